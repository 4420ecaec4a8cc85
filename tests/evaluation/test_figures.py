"""Every figure against scikit-learn, a count cell for cell, repeated photos; its interval."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from ramctl.evaluation import metrics
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.comparison import Comparison
from ramctl.records.labels import Labels


@st.composite
def scored_classes(draw):
    """Scores [N, C] with many ties or none, truth [N, C] with or without unknown cells."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 5)))
    tied = st.integers(0, 4).map(lambda step: step / 4)
    values = draw(st.sampled_from([tied, st.floats(0, 1)]))
    lowest = draw(st.sampled_from([metrics.UNKNOWN, 0]))
    scores = draw(arrays(np.float64, shape, elements=values))
    return scores, draw(arrays(np.int8, shape, elements=st.integers(lowest, 1)))


@given(scored_classes())
@settings(deadline=None, max_examples=120)
def test_average_precision_equals_scikit_learns_in_every_class(data):
    scores, truth = data
    theirs = [
        average_precision_score(column[known], values[known]) if 1 in column else np.nan
        for values, column in zip(scores.T, truth.T, strict=True)
        for known in [column != metrics.UNKNOWN]
    ]
    np.testing.assert_allclose(metrics.average_precisions(scores, truth), theirs, atol=1e-12)


def comparison(scores, truth, decided, known=None):
    n_photos, n_classes = truth.shape
    known = np.ones(n_classes, bool) if known is None else known
    classes = Classes(Labels.from_tags(f"c{c}" for c in range(n_classes)), None, {})
    photos = list(map(str, range(n_photos)))
    return Comparison(classes, photos, truth, scores, decided, known, True, {})


def draw(random, most_photos=9, most_classes=5):
    """A few photos and classes, with ties, unknown cells and classes without positives."""
    shape = random.integers(1, most_photos), random.integers(1, most_classes)
    scores = np.round(random.random(shape), random.integers(1, 4)).astype(np.float32)
    lowest = -1 if random.random() < 0.5 else 0
    truth = np.where(random.random(shape) < 0.4, 1, random.integers(lowest, 1, shape))
    return scores, truth.astype(np.int8), random.random(shape) < 0.4


def ratio(part, whole):
    return part / whole if whole else 0.0


def plainly(truth, decided):
    """The figures of decisions by counting, cell for cell."""
    cells = [(c, t == 1, given) for c, (ts, ds) in enumerate(zip(truth.T, decided.T, strict=True))
             for t, given in zip(ts, ds, strict=True) if t >= 0]  # fmt: skip

    def precision_recall(chosen):
        kinds = Counter((bool(true), bool(given)) for _, true, given in chosen)
        hits = kinds[True, True]
        return ratio(hits, hits + kinds[False, True]), ratio(hits, hits + kinds[True, False])

    averaged = {c for c, true, _ in cells if true}
    each = [precision_recall([cell for cell in cells if cell[0] == c]) for c in averaged]
    figures = {}
    for kind, (p, r) in (("C", np.mean(each, axis=0)), ("O", precision_recall(cells))):
        figures |= {f"{kind}P": p, f"{kind}R": r, f"{kind}F1": ratio(2 * p * r, p + r)}
    return figures


def test_decisions_are_counted_as_cell_for_cell_and_as_scikit_learn_does():
    random = np.random.default_rng(0)
    for case in range(400):
        scores, truth, decided = draw(random)
        if not (truth == 1).any():
            continue
        ours = comparison(scores, truth, decided).figures
        ours.pop("mAP")
        assert ours == pytest.approx(plainly(truth, decided), abs=1e-12), case
        if truth.min() < 0:
            continue
        has = truth.any(axis=0)
        for average, kind, classes in (("macro", "C", has), ("micro", "O", slice(None))):
            sides = truth[:, classes], decided[:, classes]
            if sides[0].shape[1] > 1:  # one column is two classes to it
                found = precision_recall_fscore_support(*sides, average=average, zero_division=0)
                assert (ours[f"{kind}P"], ours[f"{kind}R"]) == pytest.approx(found[:2])


def test_a_resample_has_the_figures_of_its_photos_repeated():
    random = np.random.default_rng(2)
    n_without = 0
    for seed in range(8):
        scores, truth, decided = draw(random, 30, 6)
        truth[:, 0] = 0
        truth[0, 0] = 1  # true of one photo, which a third of the resamples do not have
        known = random.random(truth.shape[1]) < 0.7
        weights = metrics.resamples(len(truth), seed)[:, :3]
        assert (weights.sum(axis=0) == len(truth)).all()
        found = comparison(scores, truth, decided, known).average_precisions(weights)
        for precisions, times in zip(found, weights.T, strict=True):
            often = np.repeat(np.arange(len(truth)), times)
            repeated = comparison(scores[often], truth[often], decided[often], known)
            n_without += not repeated.has_positives[0]
            assert precisions == pytest.approx(repeated.precisions, abs=1e-6, nan_ok=True)
    assert n_without > 3


def test_intervals_cover_the_mean_over_test_sets_about_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr("ramctl.evaluation.metrics.RESAMPLES", 200)
    prevalence, separation = np.array([0.02, 0.05, 0.1, 0.2]), np.array([1.5, 1.0, 0.7, 0.4])
    rng = np.random.default_rng(0)
    intervals, estimates = [], []
    for seed in range(120):
        truth = rng.random((300, 4)) < prevalence
        scores, truth = rng.normal(size=truth.shape) + truth * separation, truth.astype(np.int8)
        estimates.append(metrics.mean_average_precision(scores, truth))
        resampled = metrics.average_precisions(scores, truth, metrics.resamples(300, seed))
        means = metrics.mean_over_classes(resampled)
        intervals.append(metrics.interval(estimates[-1], means))
    low, high = np.array(intervals).T
    covered = np.mean((low <= np.mean(estimates)) & (np.mean(estimates) <= high))
    assert 0.87 <= covered <= 1.0
    assert np.mean(high - low) < 6 * np.std(estimates)


VALUES = np.linspace(0.3, 0.7, 401)


@pytest.mark.parametrize(
    ("estimate", "values", "lowest", "expected"),
    [
        (0.5, VALUES, 0, (0.31, 0.69)),
        (0.45, VALUES, 0, (0.26, 0.64)),  # moved back by the mean excess
        (0.5, np.append(VALUES, [np.nan] * 50), 0, (0.31, 0.69)),
        (0.1, VALUES, 0, (0.0, 0.29)),
        (0.9, VALUES, 0, (0.71, 1.0)),
        (0.1, VALUES, -1, (-0.09, 0.29)),
        (1.0, np.array([1.0] * 99 + [0.0]), 0, (1.0, 1.0)),
        (float("nan"), np.full(10, np.nan), 0, None),
    ],
)
def test_bounds_hold_95_percent_within_what_the_figure_can_be(estimate, values, lowest, expected):
    assert metrics.interval(estimate, values, lowest) == (expected and pytest.approx(expected))
