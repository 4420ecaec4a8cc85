"""Thresholds of the best F1, and what `--threshold` may say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.thresholds import (
    Cut,
    max_f1_threshold,
    max_f1_thresholds,
    shrunk_thresholds,
)
from ramctl.labels import LabelSystem

PAIRS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 1)), min_size=1, max_size=30)


@given(PAIRS)
@settings(deadline=None, max_examples=150)
def test_no_threshold_has_a_better_f1(pairs):
    scores = np.array([score / 20 for score, _ in pairs])
    truth = np.array([positive for _, positive in pairs], np.int8)
    found = max_f1_threshold(scores, truth)
    if not truth.any():
        assert found == 0.5
        return
    candidates = [0.0, *scores]
    best = max(f1_score(truth, scores > candidate, zero_division=0) for candidate in candidates)
    assert f1_score(truth, scores > found, zero_division=0) == pytest.approx(best)


def test_a_threshold_lies_between_two_scores():
    scores, truth = np.array([0.9, 0.6, 0.2]), np.array([1, 1, 0], np.int8)
    assert max_f1_threshold(scores, truth) == pytest.approx(0.4)


def test_a_positive_without_a_score_does_not_lower_the_threshold_below_zero():
    scores, truth = np.array([0.0, 0.8, 0.0]), np.array([1, 1, 0], np.int8)
    assert max_f1_threshold(scores, truth) == pytest.approx(0.4)
    assert max_f1_threshold(np.zeros(3), truth) == 0.5


def test_classes_with_few_positives_share_one_threshold():
    rng = np.random.default_rng(0)
    truth = np.zeros((100, 2), np.int8)
    truth[:50, 0], truth[:3, 1] = 1, 1
    scores = np.clip(truth * 0.4 + rng.random((100, 2)) * 0.5, 0, 1)
    own, shared = max_f1_thresholds(scores, truth)
    assert own[1] == shared == max_f1_threshold(scores.ravel(), truth.ravel())
    assert own[0] == max_f1_threshold(scores[:, 0], truth[:, 0])


def test_thresholds_are_drawn_to_the_common_one_by_how_few_positives_they_rest_on():
    own = np.array([0.2, 0.2, 0.2])
    few, some, many = shrunk_thresholds(own, 0.8, np.array([0, 40, 10**9]))
    assert few == pytest.approx(0.8)
    assert some == pytest.approx(0.5)  # log-odds -1.39 and 1.39, weighing the same
    assert many == pytest.approx(0.2)


@pytest.mark.parametrize("text", ["nan", "-inf", "nowhere.jsonl"])
def test_a_threshold_that_is_neither_number_nor_file_is_wrong_usage(text):
    with pytest.raises(UsageProblem):
        Cut.parse(text)


def test_a_file_may_name_classes_or_tags(tmp_path):
    path = tmp_path / "thresholds.jsonl"
    path.write_text('{"tag": "cat", "threshold": 0.3}\n{"tag": "kitten", "threshold": 0.2}\n')
    cut = Cut.parse(str(path))
    np.testing.assert_equal(
        cut.for_classes(LabelSystem.from_tags(["cat", "dog"]), None), [0.3, np.nan]
    )
    tags = LabelSystem.from_tags(["dog", "kitten"])
    np.testing.assert_equal(cut.for_tags(tags, None), [0.5, 0.2])


def test_a_bare_list_of_numbers_must_fit_classes_or_tags(tmp_path):
    path = tmp_path / "thresholds.txt"
    path.write_text("0.1\n0.2\n")
    cut = Cut.parse(str(path))
    two, three = LabelSystem.from_tags("ab"), LabelSystem.from_tags("abc")
    np.testing.assert_equal(cut.for_classes(two, n_listed=2), [0.1, 0.2])
    np.testing.assert_equal(cut.for_tags(three, n_listed=2), [0.5] * 3)
    np.testing.assert_equal(cut.for_classes(two, n_listed=None), [np.nan] * 2)
    np.testing.assert_equal(cut.for_tags(two, n_listed=None), [0.1, 0.2])
    np.testing.assert_equal(cut.for_classes(three, n_listed=3), [np.nan] * 3)
    with pytest.raises(RunProblem, match="2 thresholds fit neither"):
        cut.for_tags(three, n_listed=3)


@pytest.mark.parametrize(("positives", "is_own"), [(9, False), (10, True)])
def test_ten_positives_are_enough_for_a_threshold_of_its_own(positives, is_own):
    truth = np.zeros((40, 2), np.int8)
    truth[:positives, 0], truth[:, 1] = 1, 1
    scores = np.stack([np.where(truth[:, 0] > 0, 0.9, 0.7), np.full(40, 0.2)], axis=1)
    own, shared = max_f1_thresholds(scores, truth)
    assert own[0] == pytest.approx(0.8 if is_own else shared)
    assert own[1] == pytest.approx(0.1)


@pytest.mark.parametrize("text", ["1.5", "-0.1"])
def test_only_logits_have_thresholds_beyond_probabilities(text):
    with pytest.raises(UsageProblem, match="a probability is between 0 and 1"):
        Cut.parse(text).require_probability()


@pytest.mark.parametrize("text", ["0", "1", "0.25"])
def test_a_threshold_may_be_any_probability(text):
    cut = Cut.parse(text)
    cut.require_probability()
    assert (cut.value, cut.is_default, cut.description) == (float(text), False, str(float(text)))
