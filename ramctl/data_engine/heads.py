"""Linear heads: for every label, how likely a caption names it, predicted from a photo's features.

They are fitted by ridge regression to the tags of captions and persons, and predict photos that
they were not fitted to: out-of-fold predictions, as in confident learning (Northcutt et al. 2021,
arXiv 1911.00068).
P photos, n of them at once, F features with a constant one, L labels, R regions, one for each tag
of each photo, r of them at once.
"""

import hashlib
from pathlib import PurePosixPath

import numpy as np

from ramctl.data_engine.region_store import Features, RegionArray, Rows
from ramctl.inference.log_odds import Floats
from ramctl.records.parallel import chunks
from ramctl.records.record import JsonObject, image_name

FOLDS = 5
AT_ONCE = 1024  # photos, or regions
RIDGE = 0.1  # the penalty, as a fraction of each feature's variance
MIN_P, MAX_P = 1e-6, 0.99  # within which predicted probabilities are kept
# A head is used if it raises the odds of its label this many times on photos that mention it.
MIN_LIFT = 2.0


def fold_of(fields: JsonObject) -> int:
    """The fold of a record's photo, whichever record it is in."""
    name = PurePosixPath(image_name(fields).rsplit("#", 1)[-1]).name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return digest[0] % FOLDS


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
