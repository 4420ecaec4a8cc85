#!/usr/bin/env python3
"""Print how often a score is right: ten bins of scores, the mean score and the fraction right.

    ramctl tag --dense SET-0000.tar > dense.jsonl
    scripts/mini/reliability.py --judge judge.py --truth SET.jsonl dense.jsonl

All labels of all photos; a label is right if a careful judge accepts it without doubt.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("numpy")

import numpy as np
from judging import open_judge

BINS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("dense", type=Path)
    args = parser.parse_args()
    judge = open_judge(args.judge)
    truth = {judge.name(r["image"]): r for r in map(json.loads, args.truth.open())}
    records = [json.loads(line) for line in args.dense.open()]
    forms = [judge.fold(tag) for tag in records[0]["label_names"]]
    scores, right = [], []
    for record in records:
        accepted = {judge.fold(tag) for tag in truth[judge.name(record["image"])]["right"]}
        scores += record["dense"]
        right += [form in accepted for form in forms]
    values, is_right = np.array(scores), np.array(right)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    print("score       labels   mean  right  difference")
    for place in range(BINS):
        own = bins == place
        mean, fraction = values[own].mean(), is_right[own].mean()
        low = place / BINS
        print(f"{low:.1f} to {low + 1 / BINS:.1f}  {own.sum():7}  {mean:.3f}  {fraction:.3f}  "
              f"{fraction - mean:+.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
