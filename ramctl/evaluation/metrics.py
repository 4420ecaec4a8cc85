"""Average precision, precision and recall of scored classes, with bootstrap intervals.

`N` photos, `C` classes, `B` resamples, `G` groups of equal scores. Truth is coded 1 (positive),
0 (negative) or -1 (unknown: the pair of photo and class counts neither way).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Style = Literal["exact", "ram"]
Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]  # single precision where that is enough
Truth = NDArray[np.int8]
Decisions = NDArray[np.bool_]
Packed = NDArray[np.uint8]  # decisions, eight classes to a byte
# How often a photo counts; sums of single precision are exact up to 16 million photos.
Weights = NDArray[np.float32]

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
# The authors' guards against division by zero (ram/utils/metrics.py).
RAM_AP_EPSILON = 1e-8
RAM_PR_EPSILON = 1e-9
LEVEL = 0.95  # of the intervals
RESAMPLES = 1000
_RESAMPLES_PER_BLOCK = 64  # whose photo weights are in memory at once
_BYTES_AT_ONCE = 1 << 20
_CLASSES_AT_ONCE, _ROWS_AT_ONCE = 16, 512  # of singles, what the processor's cache holds


class Ranking(NamedTuple):
    """The photos with known truth for one class by decreasing score, up to the last positive.

    They are divided into segments, each of which ends with a group of equal scores that contains
    positives: average precision only looks at these ends. `starts` says where each segment begins
    in `order`, `positive_starts` where its positives begin in `positives`.
    """

    order: NDArray[np.int32]
    starts: NDArray[np.intp]
    positives: NDArray[np.int32]
    positive_starts: NDArray[np.intp]
    style: Style

    def curve(self, weights: Weights) -> tuple[Floats, Floats]:
        """Positives and photos so far [G, B] at the end of each segment, by weights [N, B]."""
        gained = np.add.reduceat(weights[self.positives], self.positive_starts, axis=0)
        passed = np.add.reduceat(weights[self.order], self.starts, axis=0)
        hits = np.cumsum(gained, axis=0, dtype=np.float64)
        return hits, np.cumsum(passed, axis=0, dtype=np.float64)


def rank(scores: Scores, truth: Truth, style: Style = "exact") -> Ranking:
    """The photos of one class in the order in which average precision reads them.

    `exact` takes equal scores as one group, so that input order never matters; `ram` repeats the
    authors' reversed argsort, which leaves the order of ties undefined.
    """
    known = np.flatnonzero(truth != UNKNOWN)
    if style == "ram":
        order = known[np.argsort(scores[known])[::-1]]
        group = np.arange(len(order))
    else:
        order = known[np.argsort(-scores[known], kind="stable")]
        ordered = scores[order]
        group = np.cumsum(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(order)])
    places = np.flatnonzero(truth[order] == POSITIVE)
    groups, positive_starts = np.unique(group[places], return_index=True)
    ends = np.searchsorted(group, groups, side="right")
    last = ends[-1] if len(ends) else 0
    starts = np.concatenate([[0], ends[:-1]]).astype(np.intp)[: len(ends)]
    photos: NDArray[np.int32] = order.astype(np.int32)
    return Ranking(photos[:last], starts, photos[places], positive_starts, style)


def rank_classes(scores: Scores, truth: Truth, style: Style = "exact") -> list[Ranking]:
    """The ranking of every class: a column of scores [N, C] and truth [N, C]."""
    return [rank(scores[:, c], truth[:, c], style) for c in range(scores.shape[1])]


def average_precisions(ranking: Ranking, weights: Weights) -> Floats:
    """Average precision [B] of one class for each column of photo weights [N, B].

    Each positive contributes the precision at the end of its group of equal scores, as in
    scikit-learn's `average_precision_score`. Without a positive the result is NaN, in the
    authors' style 0.
    """
    is_ram = ranking.style == "ram"
    if not len(ranking.positives):
        return np.full(weights.shape[1], 0.0 if is_ram else np.nan)
    hits, seen = ranking.curve(weights)
    gained = np.diff(hits, axis=0, prepend=0.0)
    area = (gained * _divide(hits, seen)).sum(axis=0)
    positives: Floats = hits[-1]
    if is_ram:
        return np.asarray(area / (positives + RAM_AP_EPSILON))
    return _divide(area, positives, np.nan)


def mean_over_classes(values: Floats) -> Floats:
    """The mean over the last axis without classes that have no positives (NaN); NaN if none has."""
    present = ~np.isnan(values)
    total = np.where(present, values, 0.0).sum(axis=-1)
    return _divide(total, present.sum(axis=-1), np.nan)


def plain_average_precisions(scores: Scores, truth: Truth, style: Style = "exact") -> Floats:
    """Average precision of every class [C] of scores and truth [N, C], each photo counted once.

    What `average_precisions` says of `rank_classes`, in the exact style without putting photos into
    order.
    """
    precisions = np.empty(scores.shape[1])
    for c, (column, true) in enumerate(zip(_columns(scores), _columns(truth), strict=True)):
        if style == "ram":
            once = np.ones((len(column), 1), np.float32)
            precisions[c] = average_precisions(rank(column, true, style), once)[0]
        else:
            precisions[c] = _average_precision(column, true)
    return precisions


def _columns(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Each column of an array [N, C], in memory that a later one takes."""
    block = np.empty((_CLASSES_AT_ONCE, len(values)), values.dtype)
    for start in range(0, values.shape[1], _CLASSES_AT_ONCE):
        columns = values[:, start : start + _CLASSES_AT_ONCE].T
        for row in range(0, len(values), _ROWS_AT_ONCE):
            rows = slice(row, row + _ROWS_AT_ONCE)
            block[: len(columns), rows] = columns[:, rows]
        yield from block[: len(columns)]


def _average_precision(scores: Scores, truth: Truth) -> float:
    """Of one class; `scores` are put into order."""
    positives = np.sort(scores[truth == POSITIVE])
    if not len(positives):
        return float("nan")
    known = scores if truth.min() > UNKNOWN else scores[truth > UNKNOWN]
    known.sort()
    hits = len(positives) - np.searchsorted(positives, positives)
    seen = len(known) - np.searchsorted(known, positives)
    return float((hits / seen).mean())


def mean_average_precision(scores: Scores, truth: Truth, style: Style = "exact") -> float:
    """mAP of scores [N, C] against truth [N, C]: over classes with positives, or all (`ram`)."""
    return float(mean_over_classes(plain_average_precisions(scores, truth, style)))


def row_blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Slices of the rows of an array [N, C], a megabyte each."""
    step = max(1, _BYTES_AT_ONCE // max(1, values.itemsize * values.shape[1]))
    return (slice(start, start + step) for start in range(0, len(values), step))


def unpacked(packed: Packed, n_classes: int) -> Decisions:
    """Decisions [N, C] of eight classes to a byte."""
    return np.unpackbits(packed, axis=1, count=n_classes).view(np.bool_)


@dataclass(frozen=True, slots=True)
class Counts:
    """True positives, false positives and false negatives of each class [..., C]."""

    true_positives: Floats
    false_positives: Floats
    false_negatives: Floats
    style: Style = "exact"

    @classmethod
    def of_packed(
        cls, packed: Packed, truth: Truth, style: Style = "exact", weights: Weights | None = None
    ) -> "Counts":
        """The counts of packed decisions on known cells; [B, C] by photos' weights [N, B]."""
        n_photos, n_classes = truth.shape
        often = np.ones((n_photos, 1), np.float32) if weights is None else weights
        sums = np.zeros((3, n_classes, often.shape[1]))
        for part in row_blocks(truth):
            decided, true = unpacked(packed[part], n_classes), truth[part]
            right = decided & (true == POSITIVE), decided & (true == NEGATIVE)
            for total, cells in zip(sums, (*right, ~decided & (true == POSITIVE)), strict=True):
                total += cells.astype(np.float32).T @ often[part]
        hits, false, missed = (total[:, 0] if weights is None else total.T for total in sums)
        return cls(hits, false, missed, style)

    @property
    def precision(self) -> Floats:
        """Precision of each class; 0 for a class that is never predicted."""
        return self._ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Floats:
        """Recall of each class; 0 for a class without positives."""
        return self._ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> Floats:
        """The harmonic mean of each class's precision and recall."""
        errors = self.false_positives + self.false_negatives
        return _divide(2 * self.true_positives, 2 * self.true_positives + errors)

    @property
    def pooled(self) -> "Counts":
        """The counts of all classes together, as one class."""
        sums = (self.true_positives, self.false_positives, self.false_negatives)
        hits, false, missed = (values.sum(axis=-1, keepdims=True) for values in sums)
        return Counts(hits, false, missed)

    def _ratio(self, part: Floats, whole: Floats) -> Floats:
        return part / (whole + RAM_PR_EPSILON) if self.style == "ram" else _divide(part, whole)


def _divide(part: Floats, whole: Floats, otherwise: float = 0.0) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, otherwise), where=whole > 0)


def resamples(n_photos: int, seed: int) -> Iterator[Weights]:
    """Blocks of photo weights [N, B], `RESAMPLES` columns in all, that depend on the seed alone.

    A resample is a column of weights (how often each photo was drawn), so that a ranking is sorted
    once and reweighted many times; two models that are compared see the same resamples.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, _RESAMPLES_PER_BLOCK):
        size = min(_RESAMPLES_PER_BLOCK, RESAMPLES - start)
        drawn = generator.multinomial(n_photos, np.full(n_photos, 1 / n_photos), size=size)
        yield np.ascontiguousarray(drawn.T, np.float32)


def ranked_precisions(rankings: Sequence[Ranking], weights: Weights) -> Floats:
    """Average precision of every class [B, C] for each column of photo weights [N, B]."""
    return np.stack([average_precisions(ranking, weights) for ranking in rankings], axis=1)


def interval(
    estimate: float, resampled: Floats, *, lowest: float = 0.0
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of an estimate from its resampled values; None without any.

    It tells how far the figure, from `lowest` to 1, would move with as many other photos;
    not that mAP over few positives is higher than over many (chance ranks some positive first).
    """
    values = resampled[~np.isnan(resampled)]
    if np.isnan(estimate) or not len(values):
        return None
    # Resampling raises average precision a little, because a positive that is drawn twice stands
    # beside itself: the percentiles are moved back by the mean excess of the resamples.
    excess = values.mean() - estimate
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) - excess
    return max(float(low), lowest), min(float(high), 1.0)
