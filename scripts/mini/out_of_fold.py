#!/usr/bin/env python3
"""Print the tags that a model gives judged photos when photos like them chose no threshold.

    scripts/mini/out_of_fold.py --model MODEL --root PHOTOS judged.jsonl > tags.jsonl

The photos are dealt into five parts that hold whole repositories (`group`); the curves, the weights
of the classes' evidence and the thresholds for each part come from the other four. Reads what
scripts/mini/judged.py writes, prints what judge.py and subjects.py read.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
from calibrate import logits_of
from evidence import fit_evidence
from own_vectors import read_notes

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.calibration import (
    FOLDS,
    fit_curves,
    fit_main,
    held_out_log_odds,
    precision_table,
)
from ramctl.inference.class_evidence import ClassEvidence
from ramctl.inference.log_odds import Salience, allowances, sigmoid
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import choose_threshold
from ramctl.inference.vocabulary import Vocabulary, label_rows


def folds_by(groups: np.ndarray) -> np.ndarray:
    """The fold of each photo; all photos of a group are in one."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    folds, filled = np.zeros(len(sizes), int), np.zeros(FOLDS)
    for index in np.argsort(-sizes, kind="stable"):
        folds[index] = filled.argmin()
        filled[folds[index]] += sizes[index]
    return folds[group]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("judged", type=Path)
    args = parser.parse_args()
    bundle = Bundle.open(args.model)
    labels, precision = label_rows(bundle), bundle.preset.precision
    tags, evidence = np.array(labels.tags), np.array([label.validated for label in labels])
    judged = [json.loads(line) for line in args.judged.open()]
    logits, classes = logits_of(bundle, labels, read_notes(args.judged, args.root), args.root)
    covered = ClassEvidence.of(bundle, labels)
    masses = covered.masses(classes)
    right, main = (
        np.array([np.isin(tags, row[name]) for row in judged]) for name in ("tags", "main")
    )
    folds, known = folds_by(np.array([row["group"] for row in judged])), np.ones_like(right)
    for fold in range(FOLDS):
        own = folds == fold
        others = logits[~own], right[~own], known[~own]
        held_out = held_out_log_odds(*others)
        counts = known[~own] & evidence
        classes_of = fit_evidence(covered, held_out, masses[~own], right[~own], counts)
        held_out = classes_of(held_out, masses[~own])
        salience = Salience.from_bundle(bundle.meta["salience"], labels)
        assert salience is not None
        salience = fit_main(salience, held_out, main[~own], evidence)
        needed = held_out + allowances(salience.probabilities(salience.inputs(held_out)))
        table = precision_table(np.where(evidence, needed, -np.inf), right[~own])
        thresholds = labels.thresholds(choose_threshold(table, precision, right[~own]))
        choose = TagSelector(
            Vocabulary(labels, thresholds, salience, allows=True, fills_up=True), SelectionOptions()
        )
        log_odds = classes_of(fit_curves(*others).log_odds(logits[own]), masses[own])
        probabilities = sigmoid(log_odds)
        for index, row in zip(np.flatnonzero(own), probabilities, strict=True):
            given = list(choose(row.astype(np.float32)).scores)
            print(json.dumps({"image": judged[index]["image"], "tags": given}))


if __name__ == "__main__":
    main()
