"""How far a figure would move with as many other photos: the bootstrap over photos.

The interval is about the figure's mean over test sets of this size. mAP over few positives is
higher than over many (chance ranks some positive first), which no resampling of one set can tell.

A resample is a column of photo weights (how often each was drawn), so that a ranking is sorted once
and reweighted many times; two models that are compared see the same resamples.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ramctl.evaluation.metrics import Floats, Ranking, Weights, average_precisions

LEVEL = 0.95
_BLOCK = 64


def resamples(n_photos: int, n: int, seed: int) -> Iterator[Weights]:
    """Blocks of photo weights [N, B], `n` columns in all; they depend on the seed alone."""
    generator = np.random.default_rng(seed)
    shares = np.full(n_photos, 1 / n_photos)
    for start in range(0, n, _BLOCK):
        drawn = generator.multinomial(n_photos, shares, size=min(_BLOCK, n - start))
        yield np.ascontiguousarray(drawn.T, np.float32)


def resampled_precisions(rankings: Sequence[Ranking], n_photos: int, n: int, seed: int) -> Floats:
    """Average precision of every class in every resample [n, C].

    NaN where a resample holds no positive of the class.
    """
    blocks = []
    for weights in resamples(n_photos, n, seed):
        columns = [average_precisions(ranking, weights) for ranking in rankings]
        blocks.append(np.stack(columns, axis=1))
    return np.concatenate(blocks)


def interval(
    estimate: float, resampled: Floats, *, lowest: float = 0.0, highest: float = 1.0
) -> tuple[float, float] | None:
    """The 95 % interval of an estimate from its resampled values; None without any.

    It stays between the `lowest` and the `highest` value that the figure can have.
    Resampling raises average precision a little, because a positive that is drawn twice stands
    beside itself; the percentiles are therefore moved back by the resamples' mean excess.
    """
    values = resampled[~np.isnan(resampled)]
    if np.isnan(estimate) or not len(values):
        return None
    excess = values.mean() - estimate
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]) - excess
    return max(float(low), lowest), min(float(high), highest)
