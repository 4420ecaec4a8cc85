"""Linear heads: for every label, how likely a caption names it, predicted from a photo's features.

They are fitted by ridge regression to the tags of captions and persons, and predict photos that
they were not fitted to: out-of-fold predictions, as in confident learning (Northcutt et al. 2021,
arXiv 1911.00068).
P photos, n of them at once, F features with a constant one, L labels, R regions, one for each tag
of each photo, r of them on the n photos.
"""

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import RegionStore, Rows
from ramctl.data_engine.tags import is_mentioned
from ramctl.inference.log_odds import Floats
from ramctl.records.record import Item, Record, image_name

FOLDS = 5
AT_ONCE = 1024  # photos
RIDGE = 0.1  # the penalty, as a fraction of each feature's variance
MIN_P, MAX_P = 1e-6, 0.99  # within which predicted probabilities are kept
# A head is used if it raises the odds of its label this many times on photos that mention it.
MIN_LIFT = 2.0


def out_of_fold_log_odds(store: RegionStore) -> Floats:
    """The log-odds (R,) that a caption of the photo names each region's tag.

    NaN for labels that the heads do not recognise on the photos that they are mentioned on.
    """
    photos = _Photos.of(store)
    labels, column = np.unique(store.regions["label"], return_inverse=True)
    mentioned = is_mentioned(store.regions["sources"])
    base, heads = _fit(photos, column, mentioned, len(labels))
    probability = np.zeros(len(column))
    for features, fold, rows, place in photos.parts():
        for own in range(FOLDS):
            chosen = np.flatnonzero(fold[place] == own)
            weights = heads[own][column[rows][chosen]]
            probability[rows][chosen] = np.einsum("rf,rf->r", features[place[chosen]], weights)
    # A linear head may go below zero; no tag is less likely than on the average photo.
    probability = np.clip(probability, base[column], MAX_P)
    n_mentioned = np.bincount(column[mentioned], minlength=len(labels))
    sums = np.bincount(column[mentioned], probability[mentioned], len(labels))
    mean = np.clip(sums / np.maximum(n_mentioned, 1), MIN_P, MAX_P)
    is_recognised = _odds(mean) >= MIN_LIFT * _odds(base)
    return np.where(is_recognised[column], np.log(_odds(probability)), np.nan)


class _Part(NamedTuple):
    """Some photos with their regions."""

    features: Floats  # (n, F), the last of which is 1
    fold: NDArray[np.uint8]  # (n,)
    rows: slice  # of their regions
    place: Rows  # (r,) of each region's photo among them


class _Photos(NamedTuple):
    """All photos that have regions."""

    store: RegionStore
    folds: NDArray[np.uint8]  # (P,)
    photo: Rows  # (R,) of each region

    @classmethod
    def of(cls, store: RegionStore) -> "_Photos":
        numbers, photo = np.unique(store.regions["input"], return_inverse=True)
        folds = np.array([fold_of(item) for item in store.inputs()], np.uint8)
        return cls(store, folds[numbers], photo)

    def parts(self) -> Iterator[_Part]:
        for start in range(0, len(self.folds), AT_ONCE):
            photos = self.store.photos[start : start + AT_ONCE]
            rows = slice(*np.searchsorted(self.photo, [start, start + AT_ONCE]).tolist())
            with_constant = np.concatenate([photos, np.ones((len(photos), 1))], 1)
            folds = self.folds[start : start + AT_ONCE]
            yield _Part(with_constant, folds, rows, self.photo[rows] - start)


def _fit(
    photos: _Photos, column: Rows, mentioned: NDArray[np.bool_], n_labels: int
) -> tuple[Floats, list[Floats]]:
    """The fraction of the photos that mention each label (L,); heads (L, F) for each fold.

    A fold's heads are fitted to the photos of the other folds.
    """
    from scipy.sparse import csr_matrix

    n_features = photos.store.photos.shape[1] + 1
    products = np.zeros((FOLDS, n_features, n_features))  # of pairs of features
    mention_sums = np.zeros((FOLDS, n_labels, n_features))  # of photos that mention each label
    for features, folds, rows, place in photos.parts():
        by = mentioned[rows]
        pairs = np.unique([column[rows][by], place[by]], axis=1)
        is_named = csr_matrix((np.ones(pairs.shape[1]), tuple(pairs)), (n_labels, len(features)))
        for fold in range(FOLDS):
            own = folds == fold
            products[fold] += features[own].T @ features[own]
            mention_sums[fold] += is_named[:, own] @ features[own]
    base = np.clip(mention_sums[..., -1].sum(0) / products[..., -1, -1].sum(), MIN_P, MAX_P)
    others = zip(products.sum(0) - products, mention_sums.sum(0) - mention_sums, strict=True)
    return base, [_solved(*sums) for sums in others]


def _solved(products: Floats, mention_sums: Floats) -> Floats:
    """The heads (L, F) with the least squared error and penalty."""
    n = max(products[-1, -1], 1.0)
    variance = products.diagonal() - products[-1] ** 2 / n
    # The constant has no penalty; a feature that never varies needs one all the same.
    penalty = np.where(np.arange(len(products)) < len(products) - 1, RIDGE, 0) * variance
    products[np.diag_indices_from(products)] += penalty + 1e-6 * n
    return np.asarray(np.linalg.solve(products, mention_sums.T).T, np.float64)


def fold_of(item: Item) -> int:
    """The fold of a record's photo, whichever record it is in; of a reject any."""
    if not isinstance(item, Record):
        return 0
    name = PurePosixPath(image_name(item.fields).rsplit("#", 1)[-1]).name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return digest[0] % FOLDS


def _odds(probability: Floats) -> Floats:
    return probability / (1 - probability)
