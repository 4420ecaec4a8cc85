"""Average precision, precision and recall of scored classes, with bootstrap intervals.

`N` photos, `C` classes, `B` resamples, `G` groups of equal scores. Truth is coded 1 (positive),
0 (negative) or -1 (unknown: the pair of photo and class counts neither way).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.int8]
Decisions = NDArray[np.bool_]
Weights = NDArray[np.uint8]  # how often a photo counts

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
LEVEL = 0.95  # of the intervals
RESAMPLES = 1000
_COLUMNS_AT_ONCE = 64  # of weights, which then fit into the processor's cache


class Ranking(NamedTuple):
    """The photos with known truth for one class by decreasing score, up to the last positive.

    They are divided into segments, each of which ends with a group of equal scores that contains
    positives: average precision is counted at these ends only. A segment begins at its entry of
    `starts` in `order`, its positives at that of `positive_starts` in `positives`.
    """

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    positives: NDArray[np.intp]
    positive_starts: NDArray[np.intp]

    def curve(self, weights: Weights) -> tuple[Floats, Floats]:
        """The weights [N, B] of positives, and of all photos, up to each segment's end [G, B]."""
        hits = np.add.reduceat(weights[self.positives], self.positive_starts, dtype=np.int64)
        photos = np.add.reduceat(weights[self.order], self.starts, dtype=np.int64)
        return np.cumsum(hits, axis=0, dtype=float), np.cumsum(photos, axis=0, dtype=float)

    def precision(self, weights: Weights) -> Floats:
        """The average precision [B] for each column of photo weights [N, B]; NaN without positives.

        Each positive contributes the precision at the end of its group of equal scores, as in
        scikit-learn's `average_precision_score`.
        """
        if not len(self.positives):
            return np.full(weights.shape[1], np.nan)
        hits, photos = self.curve(weights)
        steps = np.diff(hits, axis=0, prepend=0.0)
        return _divide((steps * _divide(hits, photos)).sum(axis=0), hits[-1], np.nan)


def rank(scores: Scores, truth: Truth) -> Ranking:
    """Rank the photos for one class; equal scores are one group, so input order has no effect."""
    lowest = scores[truth == POSITIVE].min(initial=np.inf)
    known = np.flatnonzero((scores >= lowest) & (truth != UNKNOWN))
    falling = -scores[known]
    places = np.argsort(falling)
    order, falling = known[places], falling[places]
    positive = truth[order] == POSITIVE
    values, positive_starts = np.unique(falling[positive], return_index=True)
    ends = np.searchsorted(falling, values, side="right")
    return Ranking(order, np.append(0, ends)[:-1], order[positive], positive_starts)


def average_precisions(scores: Scores, truth: Truth, weights: Weights | None = None) -> Floats:
    """The average precision of each class of scores and truth [N, C]: [C]; NaN without positives.

    With photo weights [N, B], those of each resample: [B, C].
    """
    if weights is None:
        once = np.ones((len(truth), 1), np.uint8)
        return average_precisions(scores, truth, once).reshape(-1)
    found: Floats = np.empty((weights.shape[1], truth.shape[1]))
    for c, column in enumerate(zip(_columns(scores), _columns(truth), strict=True)):
        ranking = rank(*column)
        for start in range(0, len(found), _COLUMNS_AT_ONCE):
            columns = slice(start, start + _COLUMNS_AT_ONCE)
            found[columns, c] = ranking.precision(weights[:, columns])
    return found


def _columns(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The columns of an array, copied by the cache line: one by one is five times as slow."""
    for start in range(0, values.shape[1], 16):
        yield from values[:, start : start + 16].T.copy()


def mean_over_classes(values: Floats) -> Floats:
    """The mean over the last axis, without NaN (classes without positives); NaN if all are NaN."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(axis=-1)
    return _divide(total, present.sum(axis=-1), np.nan)


def mean_average_precision(scores: Scores, truth: Truth) -> float:
    """mAP of scores [N, C] against truth [N, C], over the classes with positives."""
    return float(mean_over_classes(average_precisions(scores, truth)))


class Counts(NamedTuple):
    """True positives, false positives and false negatives of each class [C]."""

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats

    @classmethod
    def of(cls, decided: Decisions, truth: Truth) -> "Counts":
        """Count decisions [N, C] about known cells."""
        hits = decided.sum(axis=0, where=truth == POSITIVE, dtype=float)
        false = decided.sum(axis=0, where=truth == NEGATIVE, dtype=float)
        return cls(hits, false, (truth == POSITIVE).sum(axis=0) - hits)

    @property
    def precision(self) -> Floats:
        """The precision of each class; 0 for a class that is never predicted."""
        return _divide(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Floats:
        """The recall of each class; 0 for a class without positives."""
        return _divide(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def figures(self) -> dict[str, float]:
        """C: the mean over the classes that have positives; O: pooled over all classes.

        CF1 is the harmonic mean of CP and CR, OF1 of OP and OR.
        """
        averaged = self.true_positives + self.false_negatives > 0
        pooled = Counts(*(counts.sum(keepdims=True) for counts in self))
        figures: dict[str, float] = {}
        for kind, counts, over in ("C", self, averaged), ("O", pooled, [0]):
            p, r = float(counts.precision[over].mean()), float(counts.recall[over].mean())
            figures |= {f"{kind}P": p, f"{kind}R": r, f"{kind}F1": float(f1(p, r))}
        return figures


def f1(precision: Any, recall: Any) -> Floats:
    """The harmonic mean of precision and recall; 0 where both are 0."""
    return _divide(2 * precision * recall, precision + recall)


def _divide(part: Any, whole: Any, otherwise: float = 0.0) -> Floats:
    out: Floats = np.full(np.shape(part), otherwise)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def resamples(n_photos: int, seed: int = 0) -> Weights:
    """How often each photo is in each of B = `RESAMPLES` resamples [N, B]."""
    generator = np.random.default_rng(seed)
    weights = np.empty((n_photos, RESAMPLES), np.uint8)
    for column in weights.T:
        column[:] = generator.multinomial(n_photos, np.full(n_photos, 1 / n_photos))
    return weights


def interval(estimate: float, resampled: Floats, lowest: float = 0.0) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of an estimate from its resampled values; None without any.

    It shows how far the figure, from `lowest` to 1, would move with as many other photos.
    """
    values = resampled[~np.isnan(resampled)]
    if np.isnan(estimate) or not len(values):
        return None
    # Resampling raises average precision a little, because a positive that is drawn twice stands
    # beside itself: the percentiles are moved back by the mean excess of the resamples.
    excess = values.mean() - estimate
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) - excess
    # An estimate that few resamples differ from may then be outside.
    return min(max(float(low), lowest), estimate), max(min(float(high), 1.0), estimate)
