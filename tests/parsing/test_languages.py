"""Language packs: German by its lists, and that the parser itself knows no language."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ramctl.labels import LabelSystem
from ramctl.parsing import CaptionParser
from ramctl.parsing.german import rules
from ramctl.parsing.german.lexicon import Lexicon
from ramctl.parsing.language import PACKS, open_language

ROOM = Path(__file__).resolve().parents[2] / "ramctl" / "parsing"
GENERAL = ["captions", "closed_mode", "language", "parser", "rule_table", "run", "stage"]


@pytest.fixture(scope="module")
def german() -> CaptionParser:
    return CaptionParser.open("de")


CAPTIONS = {
    "Ein Mann mit rotem Hut sitzt auf einer Bank im Park.": "mann rot hut sitzen bank park",
    "Zwei Hunde laufen am Strand.": "hund laufen strand",
    "Eine Frau liest ein Buch in der Küche.": "frau lesen buch küche",
    "Kinder spielen auf einer grünen Wiese.": "kind spielen grün wiese",
    "Ein Junge ohne Schuhe rennt über das Feld.": "junge rennen feld",
    "Keine Wolken am blauen Himmel über dem Meer.": "blau himmel meer",
    "Ein Foto von einer schwarzen Katze auf dem Sofa.": "schwarz katze sofa",
    "Die Straßenlaternen stehen im Schnee.": "straßenlaterne stehen schnee",
    "Wolken wie Berge über dem See.": "wolke see",
    "Ein Schild mit der Aufschrift „Betreten verboten“ an einem Zaun": "schild zaun",
    "Weder Autos noch Busse fahren auf der leeren Straße.": "fahren leer straße",
    "Ein Kellner trägt drei Teller mit Suppe.": "kellner tragen teller suppe",
    "Dunkelblaue Boote liegen im Hafen.": "blau boot liegen hafen",
    "Das Mädchen im gestreiften Kleid füttert Enten am Fluss.": (
        "mädchen gestreift kleid füttern ente fluss"
    ),
    "Eine Gruppe von Menschen tanzt auf dem Marktplatz.": "person tanzen marktplatz",
    "Der alte Turm bei Sonnenuntergang": "turm sonnenuntergang",
    "Ein Reiter schaut in die Kamera.": "reiter schauen",
    "Pferde weiden neben einem hölzernen Zaun.": "pferd weiden hölzern zaun",
    "Im Hintergrund verschneite Berge.": "verschneit berg",
    "Ein Apfelbaum im Garten, ohne Blätter und Äpfel.": "apfelbaum garten",
    "Ein Fahrrad mit Korb lehnt an der Mauer": "fahrrad korb lehnen mauer",
    "Eine Tasse Kaffee und ein Kuchen auf dem Tisch": "tasse kaffee kuchen tisch",
    "Musiker spielen Gitarre vor der Kirche.": "musiker spielen gitarre kirche",
    "Ein Paar geht Hand in Hand durch den Wald.": "gehen wald",
    "Zwei Kühe trinken Wasser aus dem Brunnen.": "kuh trinken wasser brunnen",
    "Die Frau trägt eine gelbe Regenjacke und keinen Schirm.": "frau tragen gelb regenjacke",
    "Ein Flugzeug fliegt über die Stadt.": "flugzeug fliegen stadt",
    "Gelbe Sonnenblumen auf einem Feld im Sommer": "gelb sonnenblume feld sommer",
    "Der Koch schneidet Brot mit einem Messer.": "koch schneiden brot messer",
    "Möwen sitzen auf dem Dach eines Hauses.": "möwe sitzen dach haus",
}


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_german_caption_gives_its_tags(german, caption):
    assert german.tags(caption) == CAPTIONS[caption].split()


def test_german_tags_have_kinds_and_evidence(german):
    (parsed,) = german.parse(["Zwei Hunde laufen am weißen Strand."])
    assert parsed.kinds == {
        "hund": "object", "laufen": "action", "weiß": "attribute", "strand": "scene",
    }  # fmt: skip
    assert [(found.words, found.rule) for found in parsed.found][:2] == [
        ("Hunde", "noun"), ("laufen", "verb"),
    ]  # fmt: skip


def test_a_german_tag_parses_to_itself(german):
    tags = {tag for caption in CAPTIONS for tag in german.tags(caption)}
    assert not {tag: german.tags(tag) for tag in tags if german.tags(tag) != [tag]}


@pytest.mark.parametrize("row", rules.RULES, ids=lambda row: row.name)
def test_a_german_rule_fires_where_it_says_and_spares_what_it_must(row):
    acting = [
        set(rules.excluded_words(caption.lower().replace("\u201e", '" ').replace(
            "\u201c", ' "').split(), Lexicon.shared()).values())
        for caption in (row.fires, row.spares)
    ]  # fmt: skip
    assert row.name in acting[0]
    assert row.name not in acting[1]


def test_closed_mode_gives_the_words_of_a_german_list():
    closed = CaptionParser.closed(LabelSystem.from_tags(["Fahrrad", "fahren", "Auto"]), "de")
    assert closed.tags("Zwei Velos und ein Wagen fahren durch den Wald.") == [
        "Fahrrad", "Auto", "fahren",
    ]  # fmt: skip


def test_parse_takes_the_language(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"caption": "Ein Hund ohne Leine"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "ramctl", "parse", "-q", "--lang", "de", "in.jsonl"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout)["tags"] == ["hund"]
    refused = subprocess.run([*command, "--build-labels", "x"], capture_output=True, cwd=tmp_path)
    assert refused.returncode == 2
    assert b"English" in refused.stderr


@pytest.mark.parametrize("name", GENERAL)
def test_general_code_imports_no_language_when_it_is_loaded(name):
    tree = ast.parse((ROOM / f"{name}.py").read_text("utf-8"))
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith(tuple(PACKS.values())) for module in imported)


@pytest.mark.parametrize("code", PACKS)
def test_a_pack_is_opened_once(code):
    assert open_language(code) is open_language(code)
