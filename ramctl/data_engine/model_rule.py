"""The rule `model`: a tag goes that is probably wrong, by the photo's score and by other records.

A caption's tag is judged by its lift: how much likelier the photo makes it than photos of any kind
do. A model's tag is judged by the model's score and, where records are many, by linear heads, which
predict each label from the model's features of the whole photo. Both are added as log-odds. Heads
are fitted by ridge regression to the tags of captions and persons, and predict photos that they
were not fitted to: out-of-fold predictions, as in confident learning (Northcutt et al. 2021, arXiv
1911.00068).
P photos, n of them at once, F features with a constant one, L labels, R regions, one for each tag
of each photo, r of them at once, whose log-odds and features are the photo's.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import (
    IMPROBABLE,
    Decisions,
    Features,
    RegionArray,
    RegionStore,
    Rows,
)
from ramctl.data_engine.tags import FOLDS
from ramctl.inference.log_odds import Floats, sigmoid
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks

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
AT_ONCE = 1024  # photos, or regions
RIDGE = 0.1  # the penalty, as a fraction of each feature's variance
MIN_P, MAX_P = 1e-6, 0.99  # within which predicted probabilities are kept
# A head is used if it raises the odds of its label this many times on photos that mention it.
MIN_LIFT = 2.0


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


def out_of_fold_log_odds(regions: RegionArray, features: Features) -> Floats:
    """The log-odds (R,) that a caption of the photo names each region's tag.

    `features` (R, F - 1) are those of the regions' photos. NaN for labels that the heads do not
    recognise on the photos that they are mentioned on.
    """
    labels, column = np.unique(regions["label"], return_inverse=True)
    base, heads = _fit(regions, features, column)
    probability = np.zeros(len(column))
    for start in range(0, len(column), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        weights = heads[regions["fold"][rows], column[rows]]  # (r, F)
        probability[rows] = np.einsum("rf,rf->r", _with_constant(features[rows]), weights)
    # A linear head may go below zero; no tag is less likely than on the average photo.
    probability = np.clip(probability, base[column], MAX_P)
    mentioned = regions["is_mentioned"]
    n_mentioned = np.bincount(column[mentioned], minlength=len(labels))
    sums = np.bincount(column[mentioned], probability[mentioned], len(labels))
    mean = np.clip(sums / np.maximum(n_mentioned, 1), MIN_P, MAX_P)
    is_recognised = _odds(mean) >= MIN_LIFT * _odds(base)
    return np.where(is_recognised[column], np.log(_odds(probability)), np.nan)


def _fit(regions: RegionArray, features: Features, column: Rows) -> tuple[Floats, Floats]:
    """The fraction of the photos that mention each label (L,); heads (FOLDS, L, F).

    A fold's heads are fitted to the photos of the other folds.
    """
    from scipy.sparse import csc_matrix

    _, first, photo = np.unique(regions["input"], return_index=True, return_inverse=True)
    by = regions["is_mentioned"]
    pairs = np.unique([column[by], photo[by]], axis=1)
    n_labels, n_features = column.max(initial=0) + 1, features.shape[1] + 1
    is_named = csc_matrix((np.ones(pairs.shape[1]), tuple(pairs)), (n_labels, len(first)))
    products = np.zeros((FOLDS, n_features, n_features))  # of pairs of features
    mention_sums = np.zeros((FOLDS, n_labels, n_features))  # of photos that mention each label
    for fold in range(FOLDS):
        for own in chunks(np.flatnonzero(regions["fold"][first] == fold), AT_ONCE):
            inputs = _with_constant(features[first[own]])  # (n, F)
            products[fold] += inputs.T @ inputs
            mention_sums[fold] += is_named[:, own] @ inputs
    base = np.clip(mention_sums[..., -1].sum(0) / products[..., -1, -1].sum(), MIN_P, MAX_P)
    others = zip(products.sum(0) - products, mention_sums.sum(0) - mention_sums, strict=True)
    return base, np.stack([_solved(*sums) for sums in others])


def _with_constant(features: Features) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], 1)


def _solved(products: Floats, mention_sums: Floats) -> Floats:
    """The heads (L, F) with the least squared error and penalty."""
    n = max(products[-1, -1], 1.0)
    variance = products.diagonal() - products[-1] ** 2 / n
    # The constant has no penalty; a feature that never varies needs one all the same.
    penalty = np.where(np.arange(len(products)) < len(products) - 1, RIDGE, 0) * variance
    products[np.diag_indices_from(products)] += penalty + 1e-6 * n
    return np.asarray(np.linalg.solve(products, mention_sums.T).T, np.float64)


def _odds(probability: Floats) -> Floats:
    return probability / (1 - probability)
