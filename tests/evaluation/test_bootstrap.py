"""Intervals by bootstrap: they cover what they claim, and depend on the seed alone."""

import numpy as np
import pytest

from ramctl.evaluation import metrics

PREVALENCE = np.array([0.02, 0.05, 0.1, 0.2])
SEPARATION = np.array([1.5, 1.0, 0.7, 0.4])


def draw(n_photos: int, rng: np.random.Generator):
    """Scores and truth of photos from one fixed distribution."""
    truth = rng.random((n_photos, 4)) < PREVALENCE
    return rng.normal(size=(n_photos, 4)) + truth * SEPARATION, truth.astype(np.int8)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr("ramctl.evaluation.metrics.RESAMPLES", 200)


def test_intervals_cover_the_mean_over_test_sets_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals, estimates = [], []
    for seed in range(120):
        scores, truth = draw(300, rng)
        estimate = metrics.mean_average_precision(scores, truth)
        rankings = metrics.rank_classes(scores, truth)
        draws = metrics.resamples(300, seed)
        blocks = [metrics.ranked_precisions(rankings, weights) for weights in draws]
        resampled = metrics.mean_over_classes(np.concatenate(blocks))
        intervals.append(metrics.interval(estimate, resampled))
        estimates.append(estimate)
    low, high = np.array(intervals).T
    covered = np.mean((low <= np.mean(estimates)) & (np.mean(estimates) <= high))
    assert 0.87 <= covered <= 1.0
    assert np.mean(high - low) < 6 * np.std(estimates)


def test_each_resample_draws_as_many_photos_as_there_are():
    blocks = list(metrics.resamples(37, seed=0))
    assert sum(block.shape[1] for block in blocks) == 200
    assert all((block.sum(axis=0) == 37).all() for block in blocks)


def test_bounds_hold_95_percent_moved_back_by_the_mean_excess_within_what_the_figure_can_be():
    values = np.linspace(0.3, 0.7, 401)
    assert metrics.interval(0.5, values) == pytest.approx((0.31, 0.69))
    assert metrics.interval(0.45, values) == pytest.approx((0.26, 0.64))
    with_empty = np.concatenate([values, np.full(50, np.nan)])
    assert metrics.interval(0.5, with_empty) == metrics.interval(0.5, values)
    assert metrics.interval(0.1, values) == pytest.approx((0.0, 0.29))
    assert metrics.interval(0.9, values) == pytest.approx((0.71, 1.0))
    assert metrics.interval(0.1, values, lowest=-1.0) == pytest.approx((-0.09, 0.29))
    assert metrics.interval(1.0, np.array([1.0] * 99 + [0.0])) == (1.0, 1.0)
    assert metrics.interval(0.0, np.array([0.0] * 99 + [1.0])) == (0.0, 0.0)
    assert metrics.interval(float("nan"), np.full(10, np.nan)) is None
