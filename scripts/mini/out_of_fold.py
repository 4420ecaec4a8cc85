#!/usr/bin/env python3
"""Print the tags that a model gives judged photos when a photo's own part chose no threshold.

    ramctl tag --dense --root PHOTOS judged.jsonl > dense.jsonl
    scripts/mini/out_of_fold.py --model MODEL --truth judged.jsonl dense.jsonl > tags.jsonl

The photos are dealt into five parts; the thresholds for each part come from the other four. Reads
judge.py's form (scripts/mini/judged.py), prints what judge.py reads.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np

from ramctl.calibration import FOLDS, calibrate, log_odds_of, sigmoid
from ramctl.checkpoints.bundle import Bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--precision", type=float, help="that of the model's preset if left out")
    parser.add_argument("dense", type=Path)
    args = parser.parse_args()
    bundle = Bundle.open(args.model)
    tags, preset = np.array(bundle.labels.tags), bundle.preset
    evidence = np.array([label.validated for label in bundle.labels])
    right = {r["image"]: set(r["tags"]) for r in map(json.loads, args.truth.open())}
    records = [json.loads(line) for line in args.dense.open()]
    scores = np.array([record["dense"] for record in records])
    # The biases hold what all photos told: without it, a part's thresholds come from the others.
    scores = sigmoid(log_odds_of(scores) - bundle.calibration.shifts)
    eager = [index for tag in preset.eager for index in bundle.labels.ids(tag)]
    is_right = np.array([[tag in right[record["image"]] for tag in tags] for record in records])
    known = np.ones(scores.shape, bool)
    part = np.arange(len(records)) % FOLDS
    given = np.zeros(scores.shape, bool)
    for fold in range(FOLDS):
        others = part != fold
        calibration = calibrate(
            scores[others], is_right[others], known[others], evidence, preset.most_share
        )
        thresholds = calibration.thresholds(args.precision or preset.precision, eager)
        given[~others] = scores[~others] > thresholds
    for record, row in zip(records, given, strict=True):
        print(json.dumps({"image": record["image"], "tags": tags[row].tolist()}))


if __name__ == "__main__":
    main()
