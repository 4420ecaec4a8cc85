"""What a person decided is kept in sidecars, holds for every output, and in every language."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ramctl.export.sidecar_merge import FIELDS, SUBJECT
from ramctl.export.xmp_document import OURS, Property, XmpDocument
from tests.support import gallery_photos, write_records

ENGLISH = {"image": "a.jpg", "tags": ["dog", "tree", "white"]}
GERMAN = {"image": "a.jpg", "tags": ["Hund", "Baum", "wei\u00df"], "tag_language": "de"}
TROUSERS = {"image": "a.jpg", "tags": ["Hose"], "tag_language": "de"}
SIDECAR = Path("a.jpg.xmp")


@pytest.fixture
def export(command):
    """Runs `ramctl export` for one record and with these decisions: (tag, verdict)."""
    Image.new("RGB", (8, 8)).save("a.jpg")

    def run(record, *words, decisions=()):
        rows = [{"image": "a.jpg", "tag": tag, "verdict": verdict} for tag, verdict in decisions]
        write_records(Path("decided.jsonl"), rows)
        words = [*words, *(["--decisions", "decided.jsonl"] if rows else [])]
        write_records(Path("in.jsonl"), [record])
        return command("export", "in.jsonl", *words)

    return run


def items(name: Property) -> list[str]:
    return XmpDocument(SIDECAR.read_bytes()).items(name)


def take_out(word: str) -> None:
    """Delete a word from all keyword fields, as a photo manager does."""
    document = XmpDocument(SIDECAR.read_bytes())
    for field in FIELDS:
        kept = [item for item in document.items(field.property) if not item.endswith(word)]
        document.set_items(field.property, kept)
    SIDECAR.write_bytes(document.to_bytes())


def test_sidecars_keep_the_decisions_of_a_file_for_later_runs_without_it(export):
    decisions = [("tree", "remove"), ("fence", "add"), ("dog", "keep")]
    done = export(ENGLISH, "--xmp", decisions=decisions)
    assert "1 tags newly refused" in done.messages
    for more in ([], decisions):
        assert sorted(items(SUBJECT.property)) == ["dog", "fence", "white"]
        assert "fence" in items(FIELDS[1].property)  # no path of ramctl: the word is the owner's
        assert "0 sidecars changed" in export(ENGLISH, "--xmp", decisions=more).messages
    export({**ENGLISH, "tags": ["cat", "Fence"]}, "--xmp")
    assert sorted(items(SUBJECT.property)) == ["cat", "fence"]
    export(ENGLISH, "--xmp-remove")
    assert items(SUBJECT.property) == ["fence"]


def test_photos_of_decisions_that_have_no_record_are_counted(command):
    photos = ["a.jpg", *(f"/photos/{name}.jpg" for name in "aab")]
    rows = [{"image": name, "tag": "dog", "verdict": "remove"} for name in photos]
    write_records(Path("d.jsonl"), rows)
    write_records(Path("in.jsonl"), [ENGLISH])
    words = ["export", "in.jsonl", "--decisions", "d.jsonl", "-f", "jsonl"]
    message = "ramctl export: 2 of 3 photos in d.jsonl have no record\n"
    assert command(*words).messages.endswith(message)
    assert message in command(*words, "-o", "out.jsonl").messages
    # Runs that read a part of the records cannot know.
    assert message not in command(*words, "-o", "out.jsonl", "--resume").messages
    assert message not in command(*words, "--shard", "1/2").messages
    write_records(Path("d.jsonl"), rows[:1])
    assert "no record" not in command(*words).messages


def test_an_added_word_that_is_deleted_later_stays_deleted(export):
    decisions = [("fence", "add")]
    export(ENGLISH, "--xmp", decisions=decisions)
    take_out("fence")
    for _ in range(2):
        export(ENGLISH, "--xmp", decisions=decisions)
        assert items(SUBJECT.property) == ENGLISH["tags"]


def test_a_word_that_is_added_after_it_was_refused_is_written(export):
    export(ENGLISH, "--xmp")
    take_out("tree")
    export(ENGLISH, "--xmp")
    export(ENGLISH, "--xmp", decisions=[("tree", "add")])
    assert sorted(items(SUBJECT.property)) == ["dog", "tree", "white"]


def test_no_output_has_a_tag_that_a_sidecar_refuses(export, command):
    export(ENGLISH, "--xmp")
    take_out("tree")  # no export has been run since
    row = json.loads(export(ENGLISH, "-q", "-f", "jsonl").stdout)
    assert row == {"image": "a.jpg", "tags": ["dog", "white"], "refused": ["tree"]}
    export(ENGLISH, "--gallery", "page.html", "--txt")
    assert list(gallery_photos(Path("page.html"))[0]["tags"]) == ["dog", "white"]
    assert Path("a.txt").read_text() == "dog, white\n"
    assert b"tree" in export(ENGLISH, "-q", "-f", "text", "--forget-refused", "--xmp").stdout
    human = ENGLISH | {"sources": {"tree": ["human"]}}
    take_out("tree")
    assert json.loads(export(human, "-f", "jsonl").stdout)["tags"] == ENGLISH["tags"]


def test_a_sidecar_that_cannot_be_read_stops_no_other_output(export):
    SIDECAR.write_text("no ramctl XMP")
    assert json.loads(export(ENGLISH, "-f", "jsonl").stdout) == ENGLISH


@pytest.mark.parametrize(
    ("first", "word", "then"), [(GERMAN, "Baum", ENGLISH), (ENGLISH, "tree", GERMAN)]
)
def test_a_refused_tag_returns_in_no_language(first, word, then, export):
    export(first, "--xmp")
    take_out(word)
    for record in (then, first):
        export(record, "--xmp")
        assert items(SUBJECT.property) == [record["tags"][0], record["tags"][2]]
        done = export(record, "-q", "-f", "text")
        assert done.stdout.decode() == f"a.jpg\t{record['tags'][0]}, {record['tags'][2]}\n"


def test_decisions_know_a_label_by_its_names(export):
    done = export(ENGLISH, "-q", "-f", "jsonl", decisions=[("Baum", "remove"), ("Hund", "keep")])
    row = json.loads(done.stdout)
    assert (row["tags"], row["refused"], row["confirmed"]) == (["dog", "white"], ["tree"], ["dog"])


def test_lists_of_tags_know_a_label_by_its_names(export):
    Path("list.txt").write_text("tree\nwei\u00df\n")
    for record in (GERMAN, ENGLISH):
        for option, tags in (("--exclude", record["tags"][:1]), ("--include", record["tags"][1:])):
            done = export(record, "-q", "-f", "jsonl", option, "list.txt")
            assert json.loads(done.stdout)["tags"] == tags
    Path("list.txt").write_text("trousers\n")
    assert json.loads(export(TROUSERS, "-f", "jsonl", "--exclude", "list.txt").stdout)["tags"] == []


def test_where_auto_is_a_car_the_parent_has_another_name(export):
    export(GERMAN, "--xmp")
    assert items(FIELDS[1].property)[0] == "automatisch|Hund"
    assert b"automatisch|Hund" in export(GERMAN, "-f", "exiftool-csv").stdout
    export(GERMAN, "--xmp", "--xmp-prefix", "auto")
    assert items(FIELDS[1].property)[0] == "auto|Hund"
    export(ENGLISH, "--xmp")
    assert items(FIELDS[1].property)[0] == "auto|dog"
    assert not items(Property(OURS, "ramctl", "language"))


def test_an_import_has_the_language_of_refused_tags(export, command):
    export(GERMAN, "--xmp")
    take_out("Baum")
    row = json.loads(command("import", "a.jpg").stdout)
    assert (row["refused"], row["tag_language"]) == (["Baum"], "de")


def test_the_gallery_has_the_owner_s_keywords_and_a_page_to_publish_no_names(command):
    Image.new("RGB", (8, 8), "red").save("a.jpg")
    write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": ["wall", "red"]}])
    command("export", "in.jsonl", "--xmp")
    document = XmpDocument(Path("a.jpg.xmp").read_bytes())
    hers = ["Red", "Urlaub|Ostsee", "Personen|Anna", "darktable|format|jpg"]
    paths = [*document.items(FIELDS[1].property), *hers]
    document.set_items(FIELDS[1].property, paths)
    Path("a.jpg.xmp").write_bytes(document.to_bytes())
    for options, tags in (([], ["Ostsee", "Anna"]), (["--self-contained"], ["Ostsee"])):
        rows = command("export", "in.jsonl", "-f", "jsonl", "--gallery", "page.html", *options).rows
        assert rows[0]["tags"] == ["wall", "red"]
        (photo,) = gallery_photos(Path("page.html"))
        assert [*photo["tags"]] == ["wall", "red", *tags]
