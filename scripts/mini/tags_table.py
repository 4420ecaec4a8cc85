#!/usr/bin/env python3
"""Print a table of what tags of the judged photos are worth, a row for each of several choices.

    scripts/mini/tags_table.py --judge judge.py --labels labels.jsonl \\
        --tags NAME=tags.jsonl --tags NAME=other.jsonl judged_dev.jsonl judged_other.jsonl

The files are what scripts/mini/out_of_fold.py prints. People: photos of men or boys alone that are
given a word for women or girls, and the other way.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from judged import photos_of
from judged_figures import SHARES, count, records_of
from judging import open_judge

from ramctl.labels import LabelSystem

COLUMNS = ("strict", "subject", "first two", "main things")
HE, SHE = {"man", "boy"}, {"woman", "girl"}


def wrong_words(photos: Sequence[dict[str, Any]], given: Sequence[set[str]]) -> str:
    """Of photos of one sex alone those with a word for the other, of all of them."""
    wrong, seen = [0, 0], [0, 0]
    for photo, tags in zip(photos, given, strict=True):
        right = {*photo["right"], *photo["doubtful"]}
        for index, (own, other) in enumerate(((HE, SHE), (SHE, HE))):
            if right & own and not right & other:
                seen[index] += 1
                wrong[index] += bool(tags & other)
    return f"{wrong[0]} of {seen[0]}, {wrong[1]} of {seen[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("judge", "labels"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tags", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("judged", type=Path, nargs="+")
    args = parser.parse_args()
    judge = open_judge(args.judge)
    kinds = {label.tag: str(label.kind) for label in LabelSystem.read(args.labels)}
    sets = [list(photos_of(path)) for path in args.judged]
    print("| | tags | " + " | ".join(COLUMNS) + " | wrong words for men, women |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name, _, path in (pair.partition("=") for pair in args.tags):
        given = {judge.name(record["image"]): record["tags"] for record in records_of(Path(path))}
        totals, cells = [], []
        for photos in sets:
            total: Counter[str] = Counter()
            for photo in photos:
                total.update(count(judge, kinds, photo, given[judge.name(photo["image"])]))
            totals.append(total)
        cells.append(" / ".join(f"{total['printed'] / total['photos']:.1f}" for total in totals))
        for part, whole in (SHARES[column] for column in COLUMNS):
            cells.append(" / ".join(f"{total[part] / total[whole]:.3f}" for total in totals))
        everything = [photo for photos in sets for photo in photos]
        tags = [set(given[judge.name(photo["image"])]) for photo in everything]
        cells.append(wrong_words(everything, tags))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
