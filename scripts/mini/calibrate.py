#!/usr/bin/env python3
r"""Calibrate a bundle by the logits of its own graphs: curves, salience, axes, rates.

    scripts/mini/calibrate.py --model MODEL --root PHOTOS --judged judged.jsonl \
        --precision P RECORDS...

Judged photos give the labels' curves, and those of words that are no labels: each label is scored
once more with the row that it would have as a new word. Captions of the records' photos give the
salience, judged photos of all kinds the labels' rates.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from mentions import DENSE, Mentions
from own_vectors import read_notes

from ramctl.checkpoints.bundle import AXES, Bundle, BundleWriter
from ramctl.inference.calibration import THINGS, Judged, Mentioned, calibrate, open_curve
from ramctl.inference.embedding import SAMPLE, write_axes
from ramctl.inference.log_odds import Floats, Probabilities, log_odds_of
from ramctl.inference.onnx_engine import ONNX
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.inference.vocabulary import borrowed, label_rows
from ramctl.records.labels import LABELS, Labels
from ramctl.records.parallel import chunks, ordered_map
from ramctl.records.record import Record
from ramctl.training.annotations import Annotation
from ramctl.training.data import Targets, main_things, mentions

CAPTIONED = 4000  # photos


def logits_of(bundle: Bundle, labels: Labels, notes: Sequence[Annotation], root: Path) -> Floats:
    """The logits (N, L) of all labels in the photos, by the graphs."""
    plain = Labels(label.changed(calibration=None) for label in labels)
    plain.rows = labels.rows
    runner = ModelRunner(bundle, RunnerOptions(), ONNX, labels=plain, scores_all=True)

    def score(part: list[Annotation]) -> Floats:
        records = [Record({"image": note.image}, "", note.line, root) for note in part]
        return log_odds_of(runner.scores_of(list(map(runner.read, records)))[0])

    return np.concatenate(list(ordered_map(score, chunks(notes, runner.batch), 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--root", "--judged"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--precision", type=float, required=True)
    parser.add_argument("records", type=Path, nargs="+")
    args = parser.parse_args()
    bundle = Bundle.open(args.model)
    labels = label_rows(bundle)
    targets = Targets(labels)
    evidence = np.array([label.validated for label in labels])
    notes = read_notes(args.judged, args.root)
    right, main = np.zeros((2, len(notes), len(labels)), bool)
    for index, note in enumerate(notes):
        right[index] = targets.truth(note) == 1
        main[index, main_things(note, labels)] = True
    known = np.ones_like(right)
    judged = logits_of(bundle, labels, notes, args.root)
    captioned = [n for path in args.records for n in read_notes(path, args.root) if n.captions]
    captioned = captioned[:: -(-len(captioned) // CAPTIONED)]
    seen = logits_of(bundle, labels, captioned, args.root)
    weights = np.stack([mentions(note, labels) for note in captioned])
    made, meta = calibrate(
        labels, evidence, Judged(judged, right, known, main),
        Mentioned(seen.astype(np.float32), weights), args.precision,
    )  # fmt: skip
    assert labels.rows is not None
    width = bundle.preset.model.labels.width
    texts, trained = np.split(labels.rows, [width], 1)
    as_new = np.concatenate([texts, borrowed(texts, texts, trained, but_own=True)], 1)
    as_words = logits_of(bundle, Labels.with_rows(labels, as_new), notes, args.root)
    curve = open_curve(as_words[:, evidence], right[:, evidence], known[:, evidence])
    meta["open_set"] = {"calibration": curve}
    probabilities = Probabilities(made)
    rates = log_odds_of(probabilities(judged.astype(np.float32)).mean(0))
    is_thing = [label.kind in THINGS for label in made]
    there = torch.from_numpy(probabilities(seen.astype(np.float32)))
    rates_of_mention = Mentions.learn(captioned, made, there).rates[DENSE].double().numpy()
    made = made.with_numbers("mention_rate", rates_of_mention, 3)
    made = made.with_numbers("rate", np.where(is_thing & evidence, rates, np.nan), 2)
    with BundleWriter(args.model) as writer:
        writer.copy_files(bundle, without={LABELS, AXES})
        made.write(writer.path / LABELS)
        step = -(-len(seen) // SAMPLE)
        write_axes(writer.path / AXES, probabilities(seen[::step].astype(np.float32)))
        meta["thresholds"] |= {"caption": bundle.meta["thresholds"].get("caption", 0.0)}
        writer.meta |= meta
    print(meta)


if __name__ == "__main__":
    main()
