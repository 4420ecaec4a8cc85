"""Average precision against scikit-learn's."""

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
