#!/usr/bin/env python3
"""Print a teacher's records: {"image", "scores"} of photos, without names that mean nothing.

    scripts/mini/teacher.py --names names.tsv --useless useless_names.txt -- SET.MODEL.jsonl...
    scripts/mini/teacher.py ... --boxes PSEUDO femto80 -- SET.MODEL.jsonl...

With --boxes a second detector, SET.femto80.jsonl of the folder, counts too: a class has the mean
of both log-odds, the second one's by its best box. A file of the second detector counts alone. The
screens that a detector sees in the archive's slides (tv, laptop in fsa-train) are their mounts.
"""

import argparse
import json
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import Any

MOUNTS = {"tv", "laptop"}
# What a detector that does not print a class would have given it, and the least that is kept.
UNSEEN, LEAST = 0.04, 0.08


def log_odds(score: float) -> float:
    return log(score / (1 - score))


def best_boxes(record: dict[str, Any]) -> dict[str, float]:
    best: dict[str, float] = {}
    for name, score, *_ in record["boxes"]:
        best[name] = max(best.get(name, 0.0), score)
    return best


def agreed(scores: dict[str, float], best: dict[str, float]) -> dict[str, float]:
    both = {}
    for name in sorted(scores.keys() | best.keys()):
        odds = (log_odds(scores.get(name, UNSEEN)) + log_odds(best.get(name, UNSEEN))) / 2
        if (score := 1 / (1 + exp(-odds))) >= LEAST:
            both[name] = round(score, 3)
    return both


def read_names(path: Path) -> dict[str, list[str]]:
    lines = path.read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {label: names.split("|") for label, names in rows}


def renamed(scores: dict[str, float], names: dict[str, list[str]]) -> dict[str, float]:
    """The scores by labels: each has the greatest of its names in the list, and no other's."""
    others = {n: s for n, s in scores.items() if n not in names}
    found = {label: [others.pop(n, scores.get(n)) for n in own] for label, own in names.items()}
    known = {label: [s for s in values if s is not None] for label, values in found.items()}
    return others | {label: max(values) for label, values in known.items() if values}


def read(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.open(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--useless", type=Path, nargs="+", required=True)
    parser.add_argument("--boxes", nargs=2, metavar=("FOLDER", "MODEL"))
    parser.add_argument("scores", nargs="+", type=Path)
    args = parser.parse_args()
    names = read_names(args.names)
    useless = {name for path in args.useless for name in path.read_text("utf-8").splitlines()}
    for path in args.scores:
        photos, model, _ = path.name.split(".")
        left_out = useless | (MOUNTS if photos == "fsa-train" else set())
        records = read(path)
        if args.boxes and model == args.boxes[1]:
            records = (record | {"scores": best_boxes(record)} for record in records)
        elif args.boxes:
            folder, second = args.boxes
            others = read(Path(folder) / f"{photos}.{second}.jsonl")
            records = (
                a | {"scores": agreed(a["scores"], best_boxes(b))}
                for a, b in zip(records, others, strict=True)
            )
        for record in records:
            scores = {n: s for n, s in record["scores"].items() if n not in left_out}
            scores = renamed(scores, names)
            print(json.dumps({"image": record["image"], "scores": scores}, ensure_ascii=False))


if __name__ == "__main__":
    main()
