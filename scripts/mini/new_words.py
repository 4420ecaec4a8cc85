#!/usr/bin/env python3
"""Print the words of parsed captions that no label has: word, kind, number of photos.

    ramctl parse captions.jsonl | scripts/mini/new_words.py labels.jsonl

Whoever makes labels of them reads each: many are mistakes, or say nothing of a photo.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from ramctl.labels import LabelSystem

MIN_PHOTOS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    args = parser.parse_args()
    labels = LabelSystem.read(args.labels)
    photos: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    for record in map(json.loads, sys.stdin):
        photos.update(set(record["tags"]))
        kinds |= record["kinds"]
    for word, number in photos.most_common():
        if number >= MIN_PHOTOS and not labels.ids(word):
            print(word, kinds.get(word, ""), number, sep="\t")


if __name__ == "__main__":
    main()
