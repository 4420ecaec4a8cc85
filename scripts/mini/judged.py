#!/usr/bin/env python3
"""Print judged photos as records with the labels that are right of each, for --val.

    scripts/mini/judged.py --root PHOTOS --judge judge.py --labels labels.jsonl judged_*.jsonl
    scripts/mini/judged.py --words --judge judge.py --labels labels.jsonl judged_*.jsonl > words.txt

A label is right where judge.py would accept it printed; what a judge doubts counts as wrong. `main`
are the labels that name a main thing, of the file itself or of NAME_main.jsonl beside it; photos of
one repository are a `group`. With --words, in place of records the words that are no labels and
right on four photos or more.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from judging import open_judge

from ramctl.records.labels import Labels

MIN_PHOTOS = 4  # on which a word is right, so that its ranking says something


def photos_of(path: Path) -> Iterator[dict[str, Any]]:
    """The judged photos with their main things."""
    beside = path.with_name(f"{path.stem}_main.jsonl")
    main = {}
    if beside.is_file():
        main = {row["image"]: row["main"] for row in map(json.loads, beside.open("rb"))}
    for record in map(json.loads, path.open("rb")):
        yield {"main": main.get(record["image"]), **record}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", action="store_true", help="words that are no labels")
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path(), help="what photos' names begin at")
    parser.add_argument("judged", type=Path, nargs="+")
    args = parser.parse_args()
    judge = open_judge(args.judge)
    labels = Labels.read(args.labels)
    if args.words:
        records = (record for path in args.judged for record in photos_of(path))
        counts = Counter(word for record in records for word in sorted(set(record["right"])))
        known = {judge.fold(name) for label in labels for name in (label.tag, *label.synonyms)}
        printed: set[str] = set()
        for word, number in counts.items():
            form = judge.fold(word)
            if number >= MIN_PHOTOS and form not in known | printed:
                printed.add(form)
                print(word)
        return
    forms = [(tag, judge.fold(tag)) for tag in labels.tags]
    for path in args.judged:
        folder = os.path.relpath(path.parent.resolve(), args.root.resolve())
        for record in photos_of(path):
            right = {judge.fold(tag) for tag in record["right"]}
            telling = {judge.fold(word) for thing in record["main"] for word in thing}
            row = {
                "image": f"{folder}/{record['image']}",
                "tags": [tag for tag, form in forms if form in right],
                "main": [tag for tag, form in forms if form in telling],
                "group": str(record.get("origin", record["source"])).partition(":")[0],
            }
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
