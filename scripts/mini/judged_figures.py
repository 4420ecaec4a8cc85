#!/usr/bin/env python3
"""Print what tags and scores of the judged photos are worth, as JSON.

    ramctl tag --dense --labels +words.txt --root PHOTOS judged.jsonl > dense.jsonl
    scripts/mini/judged_figures.py --judge judge.py --labels labels.jsonl --tags tags.jsonl \\
        --dense dense.jsonl judged_dev.jsonl judged_other.jsonl

Counts by set and by kind of photo, with 95 % intervals of the sets' (bootstrap over photos), and
how well labels and other words rank the photos: mean AUC of those that are right on four photos or
more. A photo's subject is the first of its main things.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn")

import numpy as np
from judged import photos_of
from judging import open_judge
from sklearn.metrics import roc_auc_score

from ramctl.records.labels import Labels

MIN_PHOTOS = 4
MIN_PER_KIND = 10
RESAMPLES = 2000
SHARES = {
    "strict": ("right", "printed"),
    "things": ("right_things", "things"),
    "subject": ("subjects", "photos"),
    "first two": ("telling_first", "photos"),
    "main things": ("main_found", "main"),
    "people found": ("found_people", "peopled"),
    "people false": ("false_people", "peopleless"),
}


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def count(
    judge: Any, kinds: Mapping[str, str], record: dict[str, Any], tags: Sequence[str]
) -> dict[str, int]:
    """Count these tags of a photo as judge.py and subjects.py do."""
    forms, printed = {judge.fold(tag) for tag in record["right"]}, list(map(judge.fold, tags))
    doubtful = {judge.fold(tag) for tag in record["doubtful"]} - forms
    main = [{judge.fold(word) for word in thing} for thing in record["main"]]
    things = [
        tag
        for tag in tags
        if kinds.get(tag, "object") in ("object", "scene") and tag not in judge.VAGUE
    ]
    people, found = record["people"], any(tag in judge.PEOPLE for tag in tags)
    return {
        "photos": 1,
        "printed": len(tags),
        "right": sum(form in forms for form in printed),
        "doubtful": sum(form in doubtful for form in printed),
        "things": len(things),
        "right_things": sum(judge.fold(tag) in forms for tag in things),
        "subjects": bool(main[0] & set(printed)),
        "telling_first": any(form in thing for form in printed[:2] for thing in main),
        "main": len(main),
        "main_found": sum(bool(thing & set(printed)) for thing in main),
        "peopled": int(people),
        "peopleless": int(not people),
        "found_people": int(people and found),
        "false_people": int(not people and found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("judge", "labels", "tags", "dense"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("judged", type=Path, nargs="+")
    args = parser.parse_args()
    judge = open_judge(args.judge)
    kinds = {label.tag: label.kind for label in Labels.read(args.labels)}
    given = {judge.name(record["image"]): record["tags"] for record in records_of(args.tags)}

    random = np.random.default_rng(0)
    sets: dict[str, Any] = {}
    photos: list[dict[str, Any]] = []
    for path in args.judged:
        records = list(photos_of(path))
        photos += records
        rows = [count(judge, kinds, r, given[judge.name(r["image"])]) for r in records]
        table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        picks = random.integers(0, len(rows), (RESAMPLES, len(rows)))
        intervals = {
            name: np.percentile(
                table[part][picks].sum(1) / np.maximum(table[whole][picks].sum(1), 1), [2.5, 97.5]
            )
            for name, (part, whole) in SHARES.items()
        }
        by_kind: dict[str, Counter[str]] = {}
        for record, row in zip(records, rows, strict=True):
            by_kind.setdefault(record["source"], Counter()).update(row)
        sets[path.stem] = {
            "counts": {key: int(values.sum()) for key, values in table.items()},
            "intervals": {name: np.round(pair, 3).tolist() for name, pair in intervals.items()},
            "kinds": {k: c for k, c in by_kind.items() if c["photos"] >= MIN_PER_KIND},
        }
    scored = {judge.name(record["image"]): record for record in records_of(args.dense)}
    names = next(record["label_names"] for record in scored.values() if "label_names" in record)
    scores = np.array([scored[judge.name(record["image"])]["dense"] for record in photos])
    right = [{judge.fold(tag) for tag in record["right"]} for record in photos]
    own: dict[bool, list[float]] = {True: [], False: []}
    for column, name in enumerate(names):
        truth = np.array([judge.fold(name) in forms for forms in right])
        if MIN_PHOTOS <= truth.sum() < len(truth):
            own[name in kinds].append(float(roc_auc_score(truth, scores[:, column])))
    printed = Counter(tag for tags in given.values() for tag in set(tags))
    most, number = printed.most_common(1)[0]
    figures = {
        "sets": sets,
        "auc": {
            key: {"mean": round(float(np.mean(aucs)), 4), "words": len(aucs)}
            for key, aucs in (("labels", own[True]), ("others", own[False]))
        },
        "most_printed": [most, round(number / len(photos), 3)],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
