"""Fitting: what a bundle knows of its labels' logits, from photos whose tags are known.

N photos, L labels.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.inference.calibration import (
    Flags,
    Precision,
    fit_curves,
    held_out_log_odds,
    precision_table,
)
from ramctl.inference.log_odds import Floats
from ramctl.inference.salience import allowances, fit_salience
from ramctl.records.labels import DEFAULT_THRESHOLD, Labels
from ramctl.records.record import JsonObject

MIN_PHOTOS = 50  # judged ones; with fewer, curves would be guesses
MAX_LOGITS = 5_000_000  # in a calibration: more cost minutes and give the same


class Judged(NamedTuple):
    """The logits (N, L) of photos, and which of their labels are right."""

    logits: Floats
    right: Flags  # (N, L)
    known: Flags  # (N, L) whether `right` is known
    main: Flags  # (N, L) the main things


class Mentioned(NamedTuple):
    """The logits (N, L) of photos, and how early and often their captions name labels."""

    logits: NDArray[np.float32]
    weights: NDArray[np.float32]  # (N, L)


def calibrate(
    labels: Labels, evidence: Flags, judged: Judged, captioned: Mentioned | None, precision: float
) -> tuple[Labels, JsonObject]:
    """The labels with their curves and salience, and the bundle's `meta` of them.

    Labels without `evidence` (L,) are not given. The threshold is the one for the `precision`, on
    photos that the curves did not see; where none reaches it, and for 0, that of the best F1.
    Without photos enough there are no curves, and the threshold is 0.5.
    """
    labels = Labels(
        replace(label, validated=bool(known)) for label, known in zip(labels, evidence, strict=True)
    )
    step = -(-judged.logits.size // MAX_LOGITS) or 1
    judged = Judged(*(part[::step] for part in judged))  # type: ignore[arg-type]
    logits, right, known, main = judged
    if len(logits) < MIN_PHOTOS or not right[:, evidence].any():
        return labels, {"thresholds": {"threshold": DEFAULT_THRESHOLD}}
    curves = fit_curves(logits, right, known)
    log_odds = held_out_log_odds(logits, right, known)
    salience, meta = None, JsonObject()
    if captioned is not None:
        found = curves.log_odds(captioned.logits)
        salience = fit_salience(found, captioned.weights, labels)
    needed = log_odds
    if salience is not None:
        salience = salience.fitted(log_odds, main, evidence)
        needed = log_odds + allowances(salience.probabilities(salience.inputs(log_odds)))
        numbers = [round(number, 4) for number in salience.main]
        meta["salience"] = {"slope": round(salience.slope, 4), "main": numbers}
        labels = labels.with_numbers("salience", salience.weights, 3)
    table = precision_table(np.where(known & evidence, needed, -np.inf), right)
    meta["precisions"] = [list(row) for row in table]
    meta["thresholds"] = {"threshold": choose_threshold(table, precision, right)}
    slopes_offsets = zip(labels, curves.labels.tolist(), strict=True)
    return Labels(
        replace(label, calibration=(round(slope, 4), round(offset, 4)))
        for label, (slope, offset) in slopes_offsets
    ), meta


def choose_threshold(table: list[Precision], precision: float, right: Flags) -> float:
    """The lowest threshold of a precision; else, and for precision 0, that of the best F1.

    0.5 where the table is empty.
    """
    if not table:
        return DEFAULT_THRESHOLD
    if reached := [row.threshold for row in table if precision and row.precision >= precision]:
        return min(reached)
    n_right = right.sum() / len(right)
    return max(table, key=lambda row: row.precision * row.tags / (row.tags + n_right)).threshold


def open_curve(logits: Floats, right: Flags, known: Flags) -> list[float]:
    """The slope and offset of all labels together, for words that are no labels."""
    return [round(number, 4) for number in fit_curves(logits, right, known).pooled]
