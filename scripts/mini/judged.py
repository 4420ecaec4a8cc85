#!/usr/bin/env python3
"""Print judged photos as records with the labels that are right of each, for --val.

    scripts/mini/judged.py --root PHOTOS judged_dev.jsonl judge.py labels.jsonl > judged.jsonl
    scripts/mini/judged.py --words judged_dev.jsonl judge.py labels.jsonl > words.txt

A label is right where judge.py would accept it printed; what a judge doubts counts as wrong. With
--words, in place of records the words that are no labels and right on four photos or more.
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from judging import open_judge

from ramctl.labels import LabelSystem

FEWEST_PHOTOS = 4  # on which a word is right, so that its ranking says something


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", action="store_true", help="words that are no labels")
    parser.add_argument("judged", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--root", type=Path, default=Path(), help="what photos' names begin at")
    args = parser.parse_args()
    judge = open_judge(args.judge)
    labels = LabelSystem.read(args.labels)
    if args.words:
        records = map(json.loads, args.judged.open(encoding="utf-8"))
        counts = Counter(word for record in records for word in sorted(set(record["right"])))
        known = {judge.fold(name) for label in labels for name in (label.tag, *label.synonyms)}
        printed: set[str] = set()
        for word, number in counts.items():
            form = judge.fold(word)
            if number >= FEWEST_PHOTOS and form not in known | printed:
                printed.add(form)
                print(word)
        return
    forms = [(tag, judge.fold(tag)) for tag in labels.tags]
    folder = os.path.relpath(args.judged.parent.resolve(), args.root.resolve())
    for line in args.judged.open(encoding="utf-8"):
        record = json.loads(line)
        right = {judge.fold(tag) for tag in record["right"]}
        tags = [tag for tag, form in forms if form in right]
        print(json.dumps({"image": f"{folder}/{record['image']}", "tags": tags}))


if __name__ == "__main__":
    main()
