#!/usr/bin/env python3
"""Print a teacher's records: {"image", "scores"} of photos, without names that mean nothing.

    scripts/mini/teacher.py --useless useless_names.txt -- SET.MODEL.jsonl...
    scripts/mini/teacher.py --useless useless_names.txt --boxes PSEUDO femto80 -- SET.MODEL.jsonl...

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


def read(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.open(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--useless", type=Path, nargs="+", required=True)
    parser.add_argument("--boxes", nargs=2, metavar=("FOLDER", "MODEL"))
    parser.add_argument("scores", nargs="+", type=Path)
    args = parser.parse_args()
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
            print(json.dumps({"image": record["image"], "scores": scores}, ensure_ascii=False))


if __name__ == "__main__":
    main()
