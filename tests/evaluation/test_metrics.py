"""Average precision against scikit-learn's, and the RAM authors' style against their numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from ramctl.evaluation import metrics

SHAPE = st.tuples(st.integers(1, 40), st.integers(1, 5))


@st.composite
def scored_classes(draw):
    """Scores [N, C] with many ties or none, truth [N, C] with or without unknown cells."""
    shape = draw(SHAPE)
    tied = st.integers(0, 4).map(lambda step: step / 4)
    scores = draw(
        arrays(np.float64, shape, elements=draw(st.sampled_from([tied, st.floats(0, 1)])))
    )
    lowest = draw(st.sampled_from([metrics.UNKNOWN, 0]))
    return scores, draw(arrays(np.int8, shape, elements=st.integers(lowest, 1)))


def sklearn_ap(scores, truth) -> float:
    known = truth != metrics.UNKNOWN
    if not (truth == 1).any():
        return float("nan")
    return float(average_precision_score(truth[known], scores[known]))


@given(scored_classes())
@settings(deadline=None, max_examples=120)
def test_average_precision_equals_scikit_learns_in_every_class(data):
    scores, truth = data
    theirs = [sklearn_ap(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]
    once = np.ones((len(scores), 1), np.float32)
    ranked = metrics.ranked_precisions(metrics.rank_classes(scores, truth), once)[0]
    for ours in (ranked, metrics.plain_average_precisions(scores, truth)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_ram_style_divides_with_the_authors_guards():
    truth = np.array([[1, 0], [0, 0]], np.int8)
    scores = np.array([[0.9, 0.1], [0.1, 0.2]])
    precisions = metrics.plain_average_precisions(scores, truth, "ram")
    assert precisions.tolist() == [1 / (1 + 1e-8), 0.0]
    counts = metrics.Counts.of_packed(np.packbits(scores > 0.5, axis=1), truth, "ram")
    assert counts.precision.tolist() == counts.recall.tolist() == [1 / (1 + 1e-9), 0.0]
    assert counts.pooled.precision.tolist() == [1.0]  # their code pools nothing


def test_the_ram_style_orders_ties_as_the_authors_argsort_does():
    scores, truth = np.array([0.5, 0.5]), np.array([0, 1], np.int8)
    assert metrics.average_precisions(metrics.rank(scores, truth, "ram"), np.ones((2, 1)))[0] > 0.99
    assert metrics.average_precisions(metrics.rank(scores, truth), np.ones((2, 1)))[0] == 0.5
