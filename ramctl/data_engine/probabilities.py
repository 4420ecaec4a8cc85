"""The probability that a tag is right: the model's score, corrected by the other records' tags.

A caption's tag is judged by its lift: how much likelier the photo makes it than any photo does. A
model's tag is judged by the model's score and by linear heads (heads.py), which predict each label
from the model's features of the whole photo. Both are added as log-odds.
L labels, R regions, one for each tag of each photo.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.data_engine.heads import out_of_fold_log_odds
from ramctl.data_engine.region_store import RegionStore
from ramctl.data_engine.tags import Bits, is_mentioned, is_of_caption
from ramctl.inference.calibration import Calibration
from ramctl.inference.log_odds import Floats, log_odds_of, sigmoid

MIN_PROBABILITY = 0.2  # a less probable tag is removed
MIN_PHOTOS = 10_000  # for heads: fewer make right tags improbable
# The weight of the heads beside the model's score; both look at the same photo. 0.5 and 1 rank
# tags as well.
WEIGHT = 0.7
SHRINK = 5  # as many regions as the mean of all tags counts for, beside each tag's
# The log-odds of what a caption or person names and the model cannot judge.
MENTIONED = 8.0
# The log-odds of a thing that one caption names, by its lift: a logistic curve, fitted where a
# sixth of the things are wrong (scripts/reproduce/README.md).
NAMED, LIFT_SLOPE = 1.0, 1.25
# The log-odds of mini's things and scenes on photos of all kinds, else NaN (scripts/mini/rates.py).
RATES = Path(__file__).with_name("label_rates.npy")


def probabilities(store: RegionStore, bundle: Bundle) -> NDArray[np.float32]:
    """The probability (R,) that the tag of each region is right, by the scores of a bundle's model.

    The heads count relative to their mean over the model's regions of the tag, and not for tags
    of captions: they learnt from the same captions, whose errors they do not find.
    """
    labels, sources = store.regions["label"], store.regions["sources"]
    calibration = Calibration.if_known(bundle)
    by_model = score_log_odds(store.regions["photo_score"], labels, calibration)
    log_odds = tag_log_odds(by_model, labels, sources, label_rates(calibration))
    if store.n_inputs >= MIN_PHOTOS:
        found = out_of_fold_log_odds(store)
        added = ~is_mentioned(sources) & ~np.isnan(found)
        log_odds[added] += WEIGHT * deviations(found[added], labels[added])
    return sigmoid(log_odds).astype(np.float32)


def tag_log_odds(
    by_model: Floats, labels: NDArray[np.uint32], sources: Bits, rates: Floats | None
) -> Floats:
    """The log-odds of tags (R,) by the model's log-odds, who gave them, and the labels' rates."""
    lift = np.full(len(labels), np.nan) if rates is None else by_model - rates[labels]
    is_judged = np.isfinite(lift) & is_of_caption(sources)
    by_lift = np.where(is_judged, NAMED + LIFT_SLOPE * lift, MENTIONED)
    return np.where(is_mentioned(sources), by_lift, by_model)


def score_log_odds(
    scores: NDArray[np.float32], labels: NDArray[np.uint32], calibration: Calibration | None
) -> Floats:
    """The calibrated log-odds of the model's scores (R,); uncalibrated without a calibration."""
    log_odds = log_odds_of(scores.astype(np.float64))
    if calibration is None:
        return log_odds
    calibrated = calibration.log_odds(log_odds, labels)
    # Labels without a calibration of their own use the shared one.
    shared = calibration.slope * log_odds + calibration.intercept
    return np.where(np.isnan(calibrated), shared, calibrated)


def label_rates(calibration: Calibration | None) -> Floats | None:
    """RATES (L,) for the embedded bundle's calibration, which `finetune` keeps; else None."""
    rates = np.load(RATES).astype(np.float64)
    usual = Calibration.from_bundle(Bundle.open(embedded_bundle()))
    if calibration is None or not np.array_equal(calibration.slopes[: len(rates)], usual.slopes):
        return None
    return np.append(rates, np.full(len(calibration.slopes) - len(rates), np.nan))


def deviations(log_odds: Floats, labels: NDArray[np.uint32]) -> Floats:
    """The log-odds (R,) less the mean of each region's tag, shrunk towards the mean of all tags."""
    if not len(log_odds):
        return log_odds
    sums, number = np.bincount(labels, log_odds), np.bincount(labels)
    mean = (sums + SHRINK * log_odds.mean()) / (number + SHRINK)
    return log_odds - mean[labels]
