"""Every figure against scikit-learn, a count cell for cell, repeated photos; its interval."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ramctl.evaluation import metrics
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.comparison import Comparison
from ramctl.records.labels import Labels


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


def test_average_precision_equals_scikit_learns_in_every_class():
    random = np.random.default_rng(1)
    for _ in range(200):
        scores, truth, _ = draw(random, 40)
        theirs = [
            average_precision_score(column[known], values[known]) if 1 in column else np.nan
            for values, column in zip(scores.T, truth.T, strict=True)
            for known in [column != metrics.UNKNOWN]
        ]
        found = metrics.average_precisions(scores, truth)
        np.testing.assert_allclose(found, theirs, atol=1e-12)


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


def test_decisions_are_counted_as_cell_for_cell():
    random = np.random.default_rng(0)
    for case in range(200):
        scores, truth, decided = draw(random)
        if not (truth == 1).any():
            continue
        ours = comparison(scores, truth, decided).figures
        ours.pop("mAP")
        assert ours == pytest.approx(plainly(truth, decided), abs=1e-12), case


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
