#!/usr/bin/env python3
"""Print the classes of an evaluation by how many training photos name them, for eval --groups.

scripts/mini/group_classes.py --classes classes.txt --map coco80.tsv build/mini/*-train.jsonl
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from ramctl.labels import LabelSystem, normalise

TRAINED = 5  # the preset's training.fewest_positives


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", nargs="+", type=Path, help="tagged training records")
    parser.add_argument("--classes", required=True, type=Path)
    parser.add_argument("--labels", required=True, type=Path, help="label system of the records")
    parser.add_argument("--map", type=Path)
    args = parser.parse_args()

    words: dict[str, list[str]] = {}
    if args.map:
        for line in args.map.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                name, tags = line.split("\t")
                words[name] = tags.split("|")
    labels = LabelSystem.read(args.labels)
    photos: defaultdict[str, set[str]] = defaultdict(set)
    for path in args.records:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            for tag in record["tags"]:
                photos[normalise(tag)].add(record["image"])

    def named(word: str) -> set[str]:
        ids = labels.ids(word)
        return set().union(photos[normalise(word)], *(photos[labels[i].tag] for i in ids))

    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in args.classes.read_text(encoding="utf-8").splitlines():
        if not name:
            continue
        n = len(set().union(*(named(word) for word in words.get(name, [name]))))
        group = "trained" if n >= TRAINED else "named too rarely" if n else "never captioned"
        groups[group].append(name)
    for group in ("trained", "named too rarely", "never captioned"):
        if groups[group]:
            print(group, "|".join(groups[group]), sep="\t")


if __name__ == "__main__":
    main()
