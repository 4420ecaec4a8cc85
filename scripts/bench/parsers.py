#!/usr/bin/env python3
"""Compare the caption parser with what else one would use, on a gold standard.

    scripts/bench/parsers.py --gold data/gold --tags ram_tag_list.txt

`--gold` is a folder with parse_gold_public.jsonl and score.py, `--tags` a tag list for the
dictionary pass. Prints a Markdown table: F1, wrong tags, the share of right kinds, and captions a
second of CPU time on one core (the gold captions, each once, after a warm-up). SceneGraphParser
(`pip install --no-deps SceneGraphParser tabulate`) takes part where it is installed.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("spacy")

import spacy
from measuring import core_seconds

from ramctl.labels import normalise
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import MODEL_PACKAGES
from ramctl.parsing.english.wordnet import VERB
from ramctl.parsing.parser import CaptionParser

KIND_OF_POS = {"NOUN": "object", "PROPN": "object", "ADJ": "attribute", "VERB": "action"}
Parse = Callable[[list[str]], list[dict[str, str]]]


def ours(captions: list[str]) -> list[dict[str, str]]:
    return [parsed.kinds for parsed in CaptionParser.open().parse(captions)]


def noun_chunks(nlp: Any) -> Parse:
    """Heads of noun chunks, their modifiers, and verbs, as spaCy's lemmas."""

    def parse(captions: list[str]) -> list[dict[str, str]]:
        found = []
        for doc in nlp.pipe(captions):
            heads = [chunk.root for chunk in doc.noun_chunks if chunk.root.pos_ != "PRON"]
            kinds = {head.lemma_.lower(): "object" for head in heads}
            for chunk in doc.noun_chunks:
                for word in chunk:
                    if word.dep_ in ("amod", "compound"):
                        kinds.setdefault(word.lemma_.lower(), KIND_OF_POS.get(word.pos_, "object"))
            kinds |= {word.lemma_.lower(): "action" for word in doc if word.pos_ == "VERB"}
            found.append(kinds)
        return found

    return parse


def dictionary(tags: set[str]) -> Parse:
    """The listed tags that stand in the caption, longest first, words or base forms."""
    lexicon = Lexicon.shared()
    longest = max(tag.count(" ") + 1 for tag in tags)

    def parse(captions: list[str]) -> list[dict[str, str]]:
        found = []
        for caption in captions:
            words = normalise("".join(c if c.isalnum() else " " for c in caption)).split()
            kinds: dict[str, str] = {}
            i = 0
            while i < len(words):
                for n in range(min(longest, len(words) - i), 0, -1):
                    head, last = words[i : i + n - 1], words[i + n - 1]
                    forms = (last, lexicon.noun(last), lexicon.verb(last))
                    tag = next((t for f in forms if (t := " ".join([*head, f])) in tags), None)
                    if tag:
                        kinds.setdefault(tag, "")
                        i += n - 1
                        break
                i += 1
            found.append(kinds)
        return found

    return parse


def scene_graphs(model: str) -> Parse:
    import sng_parser

    lexicon = Lexicon.shared()
    parser = sng_parser.Parser("spacy", model=model)

    def parse(captions: list[str]) -> list[dict[str, str]]:
        found = []
        for caption in captions:
            graph = parser.parse(caption)
            kinds = {entity["lemma_head"].lower(): "object" for entity in graph["entities"]}
            for entity in graph["entities"]:
                for modifier in entity["modifiers"]:
                    if modifier["dep"] != "det":
                        kinds.setdefault(modifier["lemma_span"].lower(), "attribute")
            for relation in graph["relations"]:
                verb = relation["lemma_relation"].lower().split(" ")[0]
                if lexicon.wordnet.has(verb, VERB):  # not "in", "on"
                    kinds.setdefault(verb, "action")
            found.append(kinds)
        return found

    return parse


def score(gold: Path, rows: list[dict[str, Any]], found: list[dict[str, str]]) -> dict[str, Any]:
    scorer, truth = gold / "score.py", gold / "parse_gold_public.jsonl"
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as out:
        for row, kinds in zip(rows, found, strict=True):
            known = {tag: kind for tag, kind in kinds.items() if kind}
            out.write(json.dumps({"id": row["id"], "tags": list(kinds), "kinds": known}) + "\n")
        out.flush()
        done = subprocess.run(
            [sys.executable, scorer, truth, out.name, "--json"], capture_output=True, check=True
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--gold", type=Path, required=True)
    arguments.add_argument("--tags", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()
    lines = (args.gold / "parse_gold_public.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    captions = [row["caption"] for row in rows]
    model = next(name for name in MODEL_PACKAGES if spacy.util.is_package(name))
    listed = {normalise(t) for t in args.tags.read_text(encoding="utf-8").splitlines() if t}
    ways: dict[str, Parse] = {
        "ramctl parse": ours,
        "spaCy noun chunks and verbs": noun_chunks(spacy.load(model)),
        "dictionary pass over the tag list": dictionary(listed),
    }
    if importlib.util.find_spec("sng_parser"):
        ways["SceneGraphParser 0.1.0"] = scene_graphs(model)
    print("| parser | F1 | wrong | forbidden | kinds right | captions/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, parse in ways.items():
        found = parse(captions)
        seconds = min(core_seconds(partial(parse, captions)) for _ in range(args.rounds))
        got = score(args.gold, rows, found)
        kinds = "-" if got["kind_accuracy"] is None else f"{got['kind_accuracy']:.3f}"
        print(f"| {name} | {got['f1']:.3f} | {got['wrong']} | {got['forbidden_hits']} | {kinds} "
              f"| {len(captions) / seconds:,.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
