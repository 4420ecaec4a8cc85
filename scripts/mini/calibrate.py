#!/usr/bin/env python3
r"""Calibrate a bundle by the logits of its own graphs: curves, evidence, salience, axes, rates.

    scripts/mini/calibrate.py --model MODEL --root PHOTOS --judged judged.jsonl \
        --precision P RECORDS...

Judged photos give the labels' curves, and those of words that are no labels: each label is scored
once more with the row that it would have as a new word. On photos that the curves did not see they
give the weights of the classes' evidence. Captions of the records' photos give the salience, judged
photos of all kinds the labels' rates.
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
from evidence import fit_evidence
from mentions import DENSE, Mentions
from numpy.typing import NDArray
from own_vectors import read_notes

from ramctl.checkpoints.bundle import AXES, Bundle, BundleWriter
from ramctl.inference.calibration import (
    THINGS,
    Judged,
    Mentioned,
    calibrate,
    held_out_log_odds,
    open_curve,
)
from ramctl.inference.class_evidence import ClassEvidence
from ramctl.inference.embedding import SAMPLE, write_axes
from ramctl.inference.log_odds import Floats, Probabilities, log_odds_of, score_logits
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.vocabulary import borrowed, label_rows
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import record_photo
from ramctl.records.labels import LABELS, Labels
from ramctl.records.parallel import chunks, ordered_map
from ramctl.records.record import Record
from ramctl.training.annotations import Annotation
from ramctl.training.data import Targets, main_things, mentions

CAPTIONED = 4000  # photos
AT_ONCE = 4  # photos


def logits_of(
    bundle: Bundle, labels: Labels, notes: Sequence[Annotation], root: Path
) -> tuple[Floats, Floats]:
    """The logits (N, L) of all labels in the photos, by the graphs, and the classes' (N, K)."""
    engine, preprocess = OnnxEngine(bundle, labels, scores_all=True), Preprocess(bundle.preprocess)

    def score(part: list[Annotation]) -> tuple[Floats, Floats]:
        records = [Record({"image": note.image}, "", note.line, root) for note in part]
        photos = (record_photo(record, preprocess.config.size) for record in records)
        encoded = engine.encode(preprocess.full_batch([*map(preprocess.resize, photos)], AT_ONCE))
        logits, classes = engine.logits(encoded), engine.classes(encoded)
        return logits[: len(part)].astype(float), classes[: len(part)].astype(float)

    parts = zip(*ordered_map(score, chunks(notes, AT_ONCE), 2), strict=True)
    logits, classes = map(np.concatenate, parts)
    return logits, classes


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
    judged, classes = logits_of(bundle, labels, notes, args.root)
    covered = ClassEvidence.of(bundle, labels)
    masses = covered.masses(classes)
    held_out = held_out_log_odds(judged, right, known)
    covered = fit_evidence(covered, held_out, masses, right, known & evidence)
    captioned = [n for path in args.records for n in read_notes(path, args.root) if n.captions]
    captioned = captioned[:: -(-len(captioned) // CAPTIONED)]
    seen, seen_classes = logits_of(bundle, labels, captioned, args.root)
    weights = np.stack([mentions(note, labels) for note in captioned])
    made, meta = calibrate(
        labels, evidence, Judged(judged, right, known, main, masses),
        Mentioned(seen.astype(np.float32), weights, covered.masses(seen_classes)),
        args.precision, covered,
    )  # fmt: skip
    assert labels.rows is not None
    width = bundle.preset.model.labels.width
    texts, trained = np.split(labels.rows, [width], 1)
    as_new = np.concatenate([texts, borrowed(texts, texts, trained, but_own=True)], 1)
    as_words, _ = logits_of(bundle, Labels.with_rows(labels, as_new), notes, args.root)
    curve = open_curve(as_words[:, evidence], right[:, evidence], known[:, evidence])
    meta["open_set"] = {"calibration": curve}
    meta["class_evidence"] = list(covered.weights)

    def probabilities(logits: Floats, classes: Floats) -> NDArray[np.float32]:
        log_odds = Probabilities(made).log_odds(logits.astype(np.float32))
        return score_logits(covered(log_odds, covered.masses(classes)))

    rates = log_odds_of(probabilities(judged, classes).mean(0))
    is_thing = [label.kind in THINGS for label in made]
    there = torch.from_numpy(probabilities(seen, seen_classes))
    rates_of_mention = Mentions.learn(captioned, made, there).rates[DENSE].double().numpy()
    made = made.with_numbers("mention_rate", rates_of_mention, 3)
    made = made.with_numbers("rate", np.where(is_thing & evidence, rates, np.nan), 2)
    with BundleWriter(args.model) as writer:
        writer.copy_files(bundle, without={LABELS, AXES})
        made.write(writer.path / LABELS)
        step = -(-len(seen) // SAMPLE)
        write_axes(writer.path / AXES, probabilities(seen[::step], seen_classes[::step]))
        meta["thresholds"] |= {"caption": bundle.meta["thresholds"].get("caption", 0.0)}
        writer.meta |= meta
    print(meta)


if __name__ == "__main__":
    main()
