#!/usr/bin/env python3
"""Print what tags and scores of the judged photos are worth, as JSON.

    ramctl tag --dense --labels +words.txt --root PHOTOS judged.jsonl > dense.jsonl
    scripts/mini/judged_figures.py judged_dev.jsonl judge.py labels.jsonl --tags tags.jsonl \\
        --dense dense.jsonl

Counts by source with 95 % intervals (bootstrap over photos), and how well labels and other words
rank the photos: mean AUC of those that are right on four photos or more. With --teachers the same
counts of the names that other taggers' files of scores hold above 0.5.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn")

import numpy as np
from judging import open_judge
from sklearn.metrics import roc_auc_score

from ramctl.labels import LabelSystem

FEWEST_PHOTOS = 4
TEACHER_THRESHOLD = 0.5
RESAMPLES = 2000


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("judged", "judge", "labels"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--tags", type=Path, required=True)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--teachers", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    judge = open_judge(args.judge)
    judged = list(records_of(args.judged))
    labels = LabelSystem.read(args.labels)
    kinds = {label.tag: label.kind for label in labels}
    right = [{judge.fold(tag) for tag in record["right"]} for record in judged]

    def count(record: dict[str, Any], tags: list[str], forms: set[str]) -> dict[str, int]:
        """What judge.py counts on a photo."""
        doubtful = {judge.fold(tag) for tag in record["doubtful"]} - forms
        things = [
            t
            for t in tags
            if kinds.get(t, "object") in ("object", "scene") and t not in judge.VAGUE
        ]
        people, found = record["people"], any(tag in judge.PEOPLE for tag in tags)
        return {
            "photos": 1,
            "printed": len(tags),
            "right_words": len(forms),
            "right": sum(judge.fold(tag) in forms for tag in tags),
            "doubtful": sum(judge.fold(tag) in doubtful for tag in tags),
            "things": len(things),
            "right_things": sum(judge.fold(tag) in forms for tag in things),
            "peopled": int(people),
            "peopleless": int(not people),
            "found_people": int(people and found),
            "false_people": int(not people and found),
        }

    def counted(given: dict[str, list[str]]) -> list[dict[str, int]]:
        return [
            count(record, given[judge.name(record["image"])], forms)
            for record, forms in zip(judged, right, strict=True)
        ]

    given = {judge.name(record["image"]): record["tags"] for record in records_of(args.tags)}
    rows = counted(given)
    teachers = {}
    for path in args.teachers:
        above = {
            judge.name(record["image"]): [
                name for name, score in record["scores"].items() if score > TEACHER_THRESHOLD
            ]
            for record in records_of(path)
        }
        totals: Counter[str] = Counter()
        for row in counted(above):
            totals.update(row)
        teachers[path.name.split(".")[-2]] = dict(totals)
    groups: dict[str, Counter[str]] = {"all": Counter()}
    for record, row in zip(judged, rows, strict=True):
        groups["all"].update(row)
        groups.setdefault(record["source"], Counter()).update(row)

    random = np.random.default_rng(0)
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    picks = random.integers(0, len(rows), (RESAMPLES, len(rows)))
    intervals = {}
    for name, part, whole in (
        ("strict", "right", "printed"),
        ("things", "right_things", "things"),
        ("found_people", "found_people", "peopled"),
        ("false_people", "false_people", "peopleless"),
    ):
        shares = table[part][picks].sum(1) / np.maximum(table[whole][picks].sum(1), 1)
        intervals[name] = [round(float(x), 3) for x in np.percentile(shares, [2.5, 97.5])]

    records = list(records_of(args.dense))
    names, scores = records[0]["label_names"], np.array([record["dense"] for record in records])
    own: dict[bool, list[float]] = {True: [], False: []}
    for column, name in enumerate(names):
        truth = np.array([judge.fold(name) in forms for forms in right])
        if FEWEST_PHOTOS <= truth.sum() < len(truth):
            own[name in kinds].append(float(roc_auc_score(truth, scores[:, column])))
    printed = Counter(tag for tags in given.values() for tag in set(tags))
    most, number = printed.most_common(1)[0]
    print(
        json.dumps(
            {
                "counts": {name: dict(counts) for name, counts in groups.items()},
                "teachers": teachers,
                "intervals": intervals,
                "auc": {
                    key: {"mean": round(float(np.mean(aucs)), 4), "words": len(aucs)}
                    for key, aucs in (("labels", own[True]), ("others", own[False]))
                },
                "most_printed": [most, round(number / len(judged), 3)],
            }
        )
    )


if __name__ == "__main__":
    main()
