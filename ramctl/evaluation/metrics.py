"""Average precision, precision and recall of scored classes, with bootstrap intervals.

`N` photos, `C` classes, `B` resamples, `G` groups of equal scores. Truth is coded 1 (positive),
0 (negative) or -1 (unknown: the pair of photo and class counts neither way).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.int8]
Decisions = NDArray[np.bool_]
# How often a photo counts; sums of single precision are exact up to 16 million photos.
Weights = NDArray[np.float32]

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
LEVEL = 0.95  # of the intervals
RESAMPLES = 1000
_RESAMPLES_PER_BLOCK = 64  # that are in memory at once
_CLASSES_AT_ONCE, _ROWS_AT_ONCE = 16, 512  # their float32 fit into the processor's cache


class Ranking(NamedTuple):
    """The photos with known truth for one class by decreasing score, up to the last positive.

    They are divided into segments. Each ends with a group of equal scores that contains positives:
    average precision is counted at these ends only. A segment begins at its entry of `starts` in
    `order`, and its positives at that of `positive_starts` in `positives`.
    """

    order: NDArray[np.int32]
    starts: NDArray[np.intp]
    positives: NDArray[np.int32]
    positive_starts: NDArray[np.intp]

    def curve(self, weights: Weights) -> tuple[Floats, Floats]:
        """The weights [N, B] of positives, and of all photos, up to each segment's end [G, B]."""
        positives = np.add.reduceat(weights[self.positives], self.positive_starts, axis=0)
        photos = np.add.reduceat(weights[self.order], self.starts, axis=0)
        hits = np.cumsum(positives, axis=0, dtype=np.float64)
        return hits, np.cumsum(photos, axis=0, dtype=np.float64)


def rank(scores: Scores, truth: Truth) -> Ranking:
    """Rank the photos for one class; equal scores are one group, so input order has no effect."""
    known = np.flatnonzero(truth != UNKNOWN)
    order = known[np.argsort(-scores[known], kind="stable")]
    ordered = scores[order]
    group = np.cumsum(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)])
    places = np.flatnonzero(truth[order] == POSITIVE)
    groups, positive_starts = np.unique(group[places], return_index=True)
    ends = np.searchsorted(group, groups, side="right")
    last = ends[-1] if len(ends) else 0
    starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)[: len(ends)]
    photos: NDArray[np.int32] = order.astype(np.int32)
    return Ranking(photos[:last], starts, photos[places], positive_starts)


def rank_classes(scores: Scores, truth: Truth) -> list[Ranking]:
    """Rank the photos for each class of scores and truth [N, C]."""
    return [rank(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]


def weighted_precisions(ranking: Ranking, weights: Weights) -> Floats:
    """The average precision [B] of one class for each column of photo weights [N, B].

    Each positive contributes the precision at the end of its group of equal scores, as in
    scikit-learn's `average_precision_score`. Without a positive the result is NaN.
    """
    if not len(ranking.positives):
        return np.full(weights.shape[1], np.nan)
    hits, photos = ranking.curve(weights)
    steps = np.diff(hits, axis=0, prepend=0.0)
    area = (steps * _divide(hits, photos)).sum(axis=0)
    return _divide(area, hits[-1], np.nan)


def mean_over_classes(values: Floats) -> Floats:
    """The mean over the last axis, without NaN (classes without positives); NaN if all are NaN."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(axis=-1)
    return _divide(total, present.sum(axis=-1), np.nan)


def plain_average_precisions(scores: Scores, truth: Truth) -> Floats:
    """The average precision [C] of each class of scores and truth [N, C]."""
    columns = zip(_columns(scores), _columns(truth), strict=True)
    return np.array([_average_precision(column, true) for column, true in columns])


def _columns(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Iterate over the columns of an array [N, C]; a later column overwrites an earlier one."""
    block = np.empty((_CLASSES_AT_ONCE, len(values)), values.dtype)
    for start in range(0, values.shape[1], _CLASSES_AT_ONCE):
        columns = values[:, start : start + _CLASSES_AT_ONCE].T
        for row in range(0, len(values), _ROWS_AT_ONCE):
            rows = slice(row, row + _ROWS_AT_ONCE)
            block[: len(columns), rows] = columns[:, rows]
        yield from block[: len(columns)]


def _average_precision(scores: Scores, truth: Truth) -> float:
    """The average precision of one class; sorts `scores` in place."""
    positives = np.sort(scores[truth == POSITIVE])
    if not len(positives):
        return float("nan")
    known = scores if truth.min() > UNKNOWN else scores[truth > UNKNOWN]
    known.sort()
    hits = len(positives) - np.searchsorted(positives, positives)
    photos = len(known) - np.searchsorted(known, positives)
    return float((hits / photos).mean())


def mean_average_precision(scores: Scores, truth: Truth) -> float:
    """mAP of scores [N, C] against truth [N, C], over the classes with positives."""
    return float(mean_over_classes(plain_average_precisions(scores, truth)))


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives and false negatives of each class [C]."""

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats

    @classmethod
    def of(cls, decided: Decisions, truth: Truth) -> "Counts":
        """Count decisions [N, C] about known cells."""
        sums = np.zeros((3, truth.shape[1]))
        for c, (given, true) in enumerate(zip(_columns(decided), _columns(truth), strict=True)):
            positives = true == POSITIVE
            hits = np.count_nonzero(given & positives)
            false = np.count_nonzero(given & (true == NEGATIVE))
            sums[:, c] = hits, false, np.count_nonzero(positives) - hits
        return cls(*sums)

    @property
    def precision(self) -> Floats:
        """The precision of each class; 0 for a class that is never predicted."""
        return _divide(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Floats:
        """The recall of each class; 0 for a class without positives."""
        return _divide(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> Floats:
        """The harmonic mean of each class's precision and recall."""
        errors = self.false_positives + self.false_negatives
        return _divide(2 * self.true_positives, 2 * self.true_positives + errors)

    @property
    def figures(self) -> dict[str, float]:
        """C: the mean over the classes that have positives; O: pooled over all classes.

        CF1 is the harmonic mean of CP and CR, OF1 of OP and OR.
        """
        over = self.true_positives + self.false_negatives > 0
        hits, false, missed = (
            float(values.sum())
            for values in (self.true_positives, self.false_positives, self.false_negatives)
        )
        means = float(self.precision[over].mean()), float(self.recall[over].mean())
        pooled = hits / max(hits + false, 1), hits / max(hits + missed, 1)
        figures: dict[str, float] = {}
        for kind, (precision, recall) in (("C", means), ("O", pooled)):
            both = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            figures |= {f"{kind}P": precision, f"{kind}R": recall, f"{kind}F1": both}
        return figures


def _divide(part: Floats, whole: Floats, otherwise: float = 0.0) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, otherwise), where=whole > 0)


def resamples(n_photos: int, seed: int = 0) -> Iterator[Weights]:
    """Draw `RESAMPLES` resamples, in blocks of photo weights [N, B] that only follow the seed.

    A column holds how often each photo was drawn, so that a ranking is sorted once and reweighted
    many times, and models that are compared have the same resamples.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, _RESAMPLES_PER_BLOCK):
        size = min(_RESAMPLES_PER_BLOCK, RESAMPLES - start)
        drawn = generator.multinomial(n_photos, np.full(n_photos, 1 / n_photos), size=size)
        yield np.ascontiguousarray(drawn.T, np.float32)


def ranked_precisions(rankings: Sequence[Ranking], weights: Weights) -> Floats:
    """The average precision of each class [B, C] for each column of photo weights [N, B]."""
    return np.stack([weighted_precisions(ranking, weights) for ranking in rankings], axis=1)


def interval(
    estimate: float, resampled: Floats, *, lowest: float = 0.0
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of an estimate from its resampled values; None without any.

    It shows how far the figure, from `lowest` to 1, would move with as many other photos. It does
    not show that mAP of few photos is higher than of many.
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
