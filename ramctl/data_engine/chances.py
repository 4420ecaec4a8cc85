"""How likely each tag is right: the model's own score, corrected by evidence from outside it.

Everything is added as log-odds. R regions, one for each tag of each photo.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, log_odds_of, sigmoid
from ramctl.data_engine.evidence import is_named, is_named_twice

# The kinds of evidence, each a bit; part of the work folder's format.
OUTLIER, NOT_PREDICTED, OUT_OF_FOLD, SCORES = KINDS = 1, 2, 4, 8
NAMES = {
    OUTLIER: "outlier", NOT_PREDICTED: "not-predicted", OUT_OF_FOLD: "out-of-fold",
    SCORES: "scores",
}  # fmt: skip
# Both ask the same features of the same model: where one is wrong, the other mostly is too.
SAME_MODEL = NOT_PREDICTED | OUT_OF_FOLD
LEAST_CHANCE = 0.2  # of being right: below it a tag goes
# Of what witnesses say beside the model, over the root of their number: they all look at the same
# photo. On tags that `generate` added (scripts/reproduce/evidence.py), 0.5 and 1 rank them as well
# within 0.01 of AUC.
WEIGHT = 0.7
SHRINK = 5  # regions whose mean is that of all tags, beside a tag's own
# A caption's word: 3,000 to 1, and a second one's as much again. Captions rarely name what is not
# there. With 20 to 1, of 24 tags that one caption names and all witnesses together outweighed,
# looked at, 13 are in the picture: 4 of the 12 that seemed least likely, 9 of the others.
NAMED = 8.0


def reason(bits: int) -> str:
    """The kinds of evidence against a tag, joined by `+`; empty where it stays."""
    return "+".join(NAMES[kind] for kind in KINDS if bits & kind)


def independent(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many kinds of evidence there are among some bits that do not repeat each other."""
    others = np.bitwise_count(bits & ~np.uint8(SAME_MODEL)).astype(np.int64)
    return others + ((bits & SAME_MODEL) > 0)


@dataclass(frozen=True, slots=True)
class Chances:
    """What is estimated of each region's tag (R,)."""

    right: NDArray[np.float32]  # the chance that it is right
    against: NDArray[np.uint8]  # the kinds of evidence that speak against it, as bits


def own_log_odds(
    scores: NDArray[np.float32], labels: NDArray[np.uint32], calibration: Calibration | None
) -> NDArray[np.float64]:
    """What the model's own scores of the regions say; as they stand where it is not calibrated."""
    log_odds = log_odds_of(scores.astype(np.float64))
    if calibration is None:
        return log_odds
    of_right = calibration.log_odds(log_odds, labels)
    # Without evidence only what holds of all labels is known.
    of_any = calibration.slope * log_odds + calibration.intercept
    return np.where(np.isnan(of_right), of_any, of_right)


def estimate(
    own: NDArray[np.float64],
    labels: NDArray[np.uint32],
    sources: NDArray[np.uint8],
    witnesses: Sequence[tuple[int, NDArray[np.float32]]],
) -> Chances:
    """The chances of regions with their own log-odds, labels and bits of sources.

    Of each witness, a kind with log-odds (R,), counts by how much it is below or above what it
    says of other regions of the tag, those that were named for themselves; NaN counts nothing.
    """
    named = is_named(sources)
    weight = WEIGHT / max(len(witnesses), 1) ** 0.5
    parts = {NOT_PREDICTED: own}
    for kind, said in witnesses:
        change = weight * (said - _usual(said, labels, named))
        parts[kind] = parts.get(kind, 0.0) + np.nan_to_num(change)
    words = np.where(named, NAMED, 0.0) + np.where(is_named_twice(sources), NAMED, 0.0)
    log_odds = sum(parts.values()) + words
    against = np.zeros(len(own), np.uint8)
    for kind, part in parts.items():
        against[part < 0] |= kind
    return Chances(sigmoid(log_odds).astype(np.float32), against)


def _usual(
    said: NDArray[np.float32], labels: NDArray[np.uint32], named: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The mean (R,) of what is said of a region's tag, drawn towards that of all tags."""
    usual = np.zeros(len(said))
    for group in (named, ~named):
        told = group & ~np.isnan(said)
        if not told.any():
            continue
        n_labels = int(labels.max()) + 1
        number = np.bincount(labels[told], minlength=n_labels)
        sums = np.bincount(labels[told], said[told], n_labels)
        means = (sums + SHRINK * said[told].mean(dtype=np.float64)) / (number + SHRINK)
        usual[group] = means[labels[group]]
    return usual
