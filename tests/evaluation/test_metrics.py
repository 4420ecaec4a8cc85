"""Average precision, precision and recall against scikit-learn and the RAM authors' numbers."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from ramctl.evaluation.metrics import (
    UNKNOWN,
    Counts,
    average_precisions,
    mean_average_precision,
    mean_over_classes,
    plain_average_precisions,
    rank,
    rank_classes,
    ranked_precisions,
)

SHAPE = st.tuples(st.integers(1, 40), st.integers(1, 5))


@st.composite
def scored_classes(draw):
    """Scores [N, C] with many ties or none, truth [N, C] with or without unknown cells."""
    shape = draw(SHAPE)
    tied = st.integers(0, 4).map(lambda step: step / 4)
    scores = draw(
        arrays(np.float64, shape, elements=draw(st.sampled_from([tied, st.floats(0, 1)])))
    )
    lowest = draw(st.sampled_from([UNKNOWN, 0]))
    return scores, draw(arrays(np.int8, shape, elements=st.integers(lowest, 1)))


def sklearn_ap(scores, truth, weights=None) -> float:
    known = truth != UNKNOWN
    if not (truth == 1).any() or (weights is not None and not weights[truth == 1].any()):
        return float("nan")
    weights = None if weights is None else weights[known]
    return float(average_precision_score(truth[known], scores[known], sample_weight=weights))


@given(scored_classes())
@settings(deadline=None, max_examples=120)
def test_average_precision_equals_scikit_learns_in_every_class(data):
    scores, truth = data
    theirs = [sklearn_ap(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]
    once = np.ones((len(scores), 1), np.float32)
    ranked = ranked_precisions(rank_classes(scores, truth), once)[0]
    for ours in (ranked, plain_average_precisions(scores, truth)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(scored_classes(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_weights_count_as_repeated_photos(data, seed):
    scores, truth = data[0][:, 0], data[1][:, 0]
    weights = np.random.default_rng(seed).integers(0, 4, (len(scores), 3)).astype(np.float32)
    ours = average_precisions(rank(scores, truth), weights)
    theirs = [sklearn_ap(scores, truth, weights[:, b]) for b in range(3)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(scored_classes(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_map_depends_neither_on_photo_order_nor_on_a_monotone_change(data, random):
    scores, truth = data
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = mean_average_precision(np.sqrt(scores[order]) / 2, truth[order])
    # sqrt may merge neighbouring doubles; compare where it keeps all groups apart.
    if len(np.unique(np.sqrt(scores))) == len(np.unique(scores)):
        np.testing.assert_allclose(shuffled, mean_average_precision(scores, truth), atol=1e-12)


def test_a_class_without_positives_is_left_out_of_the_mean():
    scores = np.array([[0.9, 0.2], [0.1, 0.8]])
    truth = np.array([[1, 0], [0, 0]], np.int8)
    assert mean_average_precision(scores, truth) == 1.0
    assert mean_average_precision(scores, truth, "ram") == pytest.approx(0.5)
    assert np.isnan(mean_average_precision(scores, np.zeros_like(truth)))


@given(scored_classes())
@settings(deadline=None, max_examples=60)
def test_precision_recall_and_f1_equal_scikit_learns(data):
    scores, truth = data
    truth = np.maximum(truth, 0)
    decided = scores > 0.5
    counts = Counts.of(decided, truth)
    both = (truth.reshape(len(truth), -1), decided)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_class = [
            precision_recall_fscore_support(t, d, pos_label=1, average="binary", zero_division=0)
            for t, d in zip(truth.T, decided.T, strict=True)
        ]
        pooled = precision_recall_fscore_support(
            both[0].ravel(), both[1].ravel(), average="binary", zero_division=0
        )
    ours = np.stack([counts.precision, counts.recall, counts.f1], axis=1)
    np.testing.assert_allclose(ours, [row[:3] for row in by_class])
    micro = counts.pooled
    np.testing.assert_allclose([micro.precision[0], micro.recall[0], micro.f1[0]], pooled[:3])


def test_the_ram_style_divides_with_the_authors_guards():
    truth = np.array([[1, 0], [0, 0]], np.int8)
    scores = np.array([[0.9, 0.1], [0.1, 0.2]])
    precisions = plain_average_precisions(scores, truth, "ram")
    assert precisions.tolist() == [1 / (1 + 1e-8), 0.0]
    counts = Counts.of(scores > 0.5, truth, "ram")
    assert counts.precision.tolist() == counts.recall.tolist() == [1 / (1 + 1e-9), 0.0]
    assert counts.pooled.precision.tolist() == [1.0]  # their code pools nothing


def test_the_ram_style_orders_ties_as_the_authors_argsort_does():
    scores, truth = np.array([0.5, 0.5]), np.array([0, 1], np.int8)
    assert average_precisions(rank(scores, truth, "ram"), np.ones((2, 1)))[0] > 0.99
    assert average_precisions(rank(scores, truth), np.ones((2, 1)))[0] == 0.5


@pytest.mark.shared
def test_the_ram_style_repeats_the_authors_figures(shared):
    numbers = json.loads((shared / "parity" / "metrics_expected.json").read_text())
    rows = [line.split(",")[1:] for line in numbers["gt_file"].splitlines() if line]
    truth = np.array([[tag in row for tag in numbers["taglist"]] for row in rows], np.int8)
    scores = np.array(numbers["scores"])
    precisions = plain_average_precisions(scores, truth, "ram")
    np.testing.assert_allclose(precisions, numbers["APs"], atol=1e-12)
    assert float(mean_over_classes(precisions)) == pytest.approx(numbers["mAP"], abs=1e-12)
    counts = Counts.of(scores > np.array(numbers["thresholds"]), truth, "ram")
    for ours, each, mean in ((counts.precision, "P", "CP"), (counts.recall, "R", "CR")):
        np.testing.assert_allclose(ours, numbers[each], atol=1e-12)
        assert ours.mean() == pytest.approx(numbers[mean], abs=1e-12)
