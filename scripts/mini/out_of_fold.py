#!/usr/bin/env python3
"""Print the tags that a model gives judged photos when photos like them chose no threshold.

    ramctl tag --dense --root PHOTOS judged.jsonl > dense.jsonl
    scripts/mini/out_of_fold.py --model MODEL --truth judged.jsonl dense.jsonl > tags.jsonl

The photos are dealt into five parts that hold whole repositories (`group`); the thresholds for each
part come from the other four. Reads what scripts/mini/judged.py writes, prints what judge.py and
subjects.py read.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import Judged, calibrate, folds_of
from ramctl.inference.log_odds import log_odds_of, sigmoid
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import LabelSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("dense", type=Path)
    args = parser.parse_args()
    bundle = Bundle.open(args.model)
    tags, preset = np.array(bundle.labels.tags), bundle.preset
    evidence = np.array([label.validated for label in bundle.labels])
    truth = {r["image"]: r for r in map(json.loads, args.truth.open())}
    records = [json.loads(line) for line in args.dense.open()]
    judged = [truth[record["image"]] for record in records]
    scores = np.array([record["dense"] for record in records])
    # The biases hold what all photos told: without it, a part's thresholds come from the others.
    stored = Calibration.from_bundle(bundle)
    shifts, salience = stored.shifts, stored.salience
    scores = sigmoid(log_odds_of(scores) - shifts)
    salience = salience and salience.with_shifts(-shifts)
    right, main = (
        np.array([np.isin(tags, row[name]) for row in judged]) for name in ("tags", "main")
    )
    groups = np.array([row["group"] for row in judged])
    part, known = folds_of(len(records), groups), np.ones(scores.shape, bool)
    every, no_rows = np.ones(len(tags), bool), np.zeros((len(tags), 0), np.float32)
    given: list[list[str]] = [[] for _ in records]
    for fold in np.unique(part):
        others = part != fold
        seen = Judged(*(x[others] for x in (scores, right, known, main, groups)))
        calibration = calibrate(seen, evidence, preset.most_share, salience)
        thresholds = calibration.thresholds(preset.precision, salient=salience is not None)
        labels = LabelSet(bundle.labels, no_rows, thresholds, every, calibration, True)
        choose = TagSelector(labels, SelectionOptions())
        for index in np.flatnonzero(~others).tolist():
            given[index] = list(choose(scores[index]).scores)
    for record, chosen in zip(records, given, strict=True):
        print(json.dumps({"image": record["image"], "tags": chosen}))


if __name__ == "__main__":
    main()
