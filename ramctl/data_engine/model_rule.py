"""The rule `model`: a tag goes that is probably wrong, by the photo's score and by other records.

A caption's tag is judged by its lift: how much likelier the photo makes it than photos of any kind
do. A model's tag is judged by the model's score and by linear heads (heads.py), which predict each
label from the model's features of the whole photo. Both are added as log-odds.
L labels, R regions, one for each tag of each photo, whose log-odds and features are the photo's.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.heads import out_of_fold_log_odds
from ramctl.data_engine.region_store import RegionArray, RegionStore
from ramctl.data_engine.removal import IMPROBABLE, Decisions
from ramctl.inference.log_odds import Floats, sigmoid
from ramctl.records.labels import Labels

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


def improbable_tags(store: RegionStore, labels: Labels) -> Decisions:
    """The decision on each region: improbable tags go, but for the best of each added tag."""
    right = probabilities(store, labels)
    is_improbable = right < MIN_PROBABILITY
    for rows in store.rows_by_label():
        # Without a photo an added tag could not be learnt at all.
        best = rows[np.argmax(right[rows])]
        is_improbable[best] &= store.regions["is_of_caption"][best]
    nowhere = np.full(len(right), np.nan, np.float32)
    return Decisions(np.where(is_improbable, IMPROBABLE, ""), nowhere)


def probabilities(store: RegionStore, labels: Labels) -> NDArray[np.float32]:
    """The probability (R,) that the tag of each region is right.

    The heads count relative to their mean over the model's regions of the tag, and not for tags
    of captions: they learnt from the same captions, whose errors they do not find.
    """
    regions = store.regions
    log_odds = tag_log_odds(regions, labels.numbers("rate", np.nan))
    added = ~regions["is_mentioned"]
    if store.n_inputs >= MIN_PHOTOS and added.any():
        found = out_of_fold_log_odds(regions, store.features)
        added &= ~np.isnan(found)
        log_odds[added] += WEIGHT * deviations(found[added], regions["label"][added])
    return sigmoid(log_odds).astype(np.float32)


def tag_log_odds(regions: RegionArray, rates: Floats) -> Floats:
    """The log-odds of tags (R,) by the model's, by who gave them, and the labels' rates (L,)."""
    by_model = regions["log_odds"].astype(np.float64)
    lift = by_model - rates[regions["label"]]
    is_judged = np.isfinite(lift) & regions["is_of_caption"]
    by_lift = np.where(is_judged, NAMED + LIFT_SLOPE * lift, MENTIONED)
    return np.where(regions["is_mentioned"], by_lift, by_model)


def deviations(log_odds: Floats, labels: NDArray[np.uint32]) -> Floats:
    """The log-odds (R,) less the mean of each region's tag, shrunk towards the mean of all tags."""
    if not len(log_odds):
        return log_odds
    sums, number = np.bincount(labels, log_odds), np.bincount(labels)
    mean = (sums + SHRINK * log_odds.mean()) / (number + SHRINK)
    return log_odds - mean[labels]
