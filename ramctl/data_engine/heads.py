"""Linear heads: for every label, how likely a caption names it, predicted from inputs of a photo.

They are fitted by ridge regression to the tags of captions and persons, and predict photos that
they were not fitted to: out-of-fold predictions, as in confident learning (Northcutt et al. 2021,
arXiv 1911.00068).
N photos, n of them at once, F inputs with a constant one, L labels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.engine.log_odds import Floats, log_odds_of
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.tagger_scores import TaggerScores, base_name

FOLDS = 5
MIN_P, MAX_P = 1e-6, 0.99  # within which predicted probabilities are kept
NO_SCORES = np.zeros(0, np.int32), np.zeros(0, np.float32)


class Photos(NamedTuple):
    """The inputs of some photos, and the labels that were mentioned on them."""

    inputs: Floats  # (n, F), the last of which is 1
    fold: NDArray[np.uint8]  # (n,); FOLDS for a photo without inputs
    mentioned: NDArray[np.int64]  # (2, ...): labels, and the places of photos that have them

    @classmethod
    def build(
        cls, inputs: NDArray[np.floating], is_known: NDArray[np.bool_],
        photos: Sequence[str | None], mentioned: NDArray[np.int64],
    ) -> "Photos":  # fmt: skip
        """Photos with inputs (n, F - 1), which count where the photo `is_known` (n,)."""
        folds = np.where(is_known, list(map(fold_of, photos)), FOLDS).astype(np.uint8)
        with_constant = np.concatenate([inputs, np.ones((len(inputs), 1))], 1, dtype=np.float64)
        return cls(with_constant, folds, mentioned)


class Sums(NamedTuple):
    """The sums that least squares needs, by fold."""

    products: Floats  # (FOLDS, F, F), of pairs of inputs
    mentioned: Floats  # (FOLDS, L, F), of the inputs of the photos that each label is mentioned on

    @classmethod
    def over(cls, parts: Iterable[Photos], n_labels: int) -> "Sums | None":
        """The sums over all parts; None where no photo is known."""
        from scipy.sparse import csr_matrix

        sums = None
        for inputs, folds, mentioned in parts:
            for fold in range(FOLDS):
                x = inputs[folds == fold]
                if not len(x):
                    continue
                if sums is None:
                    n = inputs.shape[1]
                    sums = cls(np.zeros((FOLDS, n, n)), np.zeros((FOLDS, n_labels, n)))
                pairs = np.unique(mentioned[:, folds[mentioned[1]] == fold], axis=1)
                sums.products[fold] += x.T @ x
                ones, shape = np.ones(pairs.shape[1]), (n_labels, len(inputs))
                sums.mentioned[fold] += csr_matrix((ones, tuple(pairs)), shape) @ inputs
        return sums

    @property
    def base(self) -> Floats:
        """The fraction of the photos (L,) that each label is mentioned on."""
        fraction = self.mentioned[..., -1].sum(0) / self.products[..., -1, -1].sum()
        return np.clip(fraction, MIN_P, MAX_P)

    def heads(self, ridge: float) -> list[Floats]:
        """For each fold the heads (L, F) that are fitted to the other folds.

        `ridge` is the penalty, as a fraction of each input's variance.
        """
        heads = []
        for fold in range(FOLDS):
            products = self.products.sum(0) - self.products[fold]
            mentioned = self.mentioned.sum(0) - self.mentioned[fold]
            n = max(products[-1, -1], 1.0)
            variance = products.diagonal() - products[-1] ** 2 / n
            # The constant has no penalty; an input that never varies needs one all the same.
            penalty = np.where(np.arange(len(products)) < len(products) - 1, ridge, 0) * variance
            products[np.diag_indices_from(products)] += penalty + 1e-6 * n
            heads.append(np.linalg.solve(products, mentioned.T).T)
        return heads


class TaggerInputs:
    """Another tagger's scores of photos, as inputs of heads."""

    def __init__(self, tagger: TaggerScores, photos: Iterable[str]) -> None:
        self.tagger = tagger
        # A photo of several records is matched once.
        distinct = list(dict.fromkeys(photos))
        rows = zip(distinct, tagger.rows_of(distinct).tolist(), strict=True)
        self._scores = {photo: tagger.scores[row] for photo, row in rows if row >= 0}
        given = [scores for _, scores in tagger.scores if len(scores)]
        smallest = min((float(scores.min()) for scores in given), default=0.0)
        self.are_probabilities = smallest >= 0 and all(scores.max() <= 1 for scores in given)
        self.are_tags = self.are_probabilities and smallest == 1
        # A tag that is left out scores below all that are given; tags without scores count as 1.
        self._default = min(smallest, DEFAULT_THRESHOLD)

    def scores(self, photo: str | None) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The numbers of the tagger's names on a photo and their scores; none without it."""
        return self._scores.get(photo, NO_SCORES) if photo else NO_SCORES

    def inputs(self, photos: Sequence[str | None]) -> tuple[Floats, NDArray[np.bool_]]:
        """The log-odds of the scores (n, F - 1), and which photos the tagger has scored (n,)."""
        is_scored = np.array([photo in self._scores for photo in photos], bool)
        filled = np.full((len(is_scored), len(self.tagger.names)), self._default)
        for place, photo in enumerate(photos):
            names, scores = self.scores(photo)
            filled[place, names] = scores
        return log_odds_of(filled) if self.are_probabilities else filled, is_scored


def fold_of(photo: str | None) -> int:
    """The fold of a photo, whichever record it is in; FOLDS where there is none."""
    if photo is None:
        return FOLDS
    name = base_name(photo).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=8).digest()[0] % FOLDS
