"""Thresholds of the best F1, and what `--threshold` may say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.thresholds import (
    Cut,
    F1Thresholds,
    macro_f1_threshold,
    max_f1_threshold,
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


def test_the_fewer_positives_the_closer_to_the_shared_threshold():
    rng = np.random.default_rng(0)
    truth = np.zeros((100, 3), np.int8)
    truth[:50, 0], truth[:3, 1] = 1, 1
    scores = np.clip(truth * 0.4 + rng.random((100, 3)) * 0.5, 0, 1)
    found = F1Thresholds.choose(scores, truth)
    assert found.shared == macro_f1_threshold(scores, truth)
    best = np.array([max_f1_threshold(scores[:, c], truth[:, c]) for c in range(2)] + [0.9])
    assert found.own == pytest.approx(shrunk_thresholds(best, found.shared, np.array([50, 3, 0])))


@given(st.lists(st.tuples(*[st.integers(0, 9), st.integers(-1, 1)] * 2), min_size=1, max_size=20))
@settings(deadline=None, max_examples=150)
def test_no_single_threshold_has_a_better_macro_f1(rows):
    table = np.array(rows)
    scores, truth = table[:, ::2] / 10, table[:, 1::2].astype(np.int8)

    def macro_f1(threshold):
        return np.mean([
            f1_score(column[known] == 1, given[known] > threshold, zero_division=0)
            for column, given in zip(truth.T, scores.T, strict=True)
            if ((known := column >= 0) & (column == 1)).any()
        ])  # fmt: skip

    found = macro_f1_threshold(scores, truth)
    if not (truth == 1).any():
        assert found == 0.5
    else:
        best = max(macro_f1(candidate) for candidate in [0.0, *scores.ravel()])
        assert macro_f1(found) == pytest.approx(best)


def noisy(shifts, n=400, seed=0, signed=False):
    """Scores of classes that are right more often the higher they are, each shifted."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, (n, len(shifts)))
    truth = (rng.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    shifted = log_odds + np.array(shifts)
    return (shifted if signed else 1 / (1 + np.exp(-shifted))), truth


@pytest.mark.parametrize("signed", [False, True])
def test_classes_that_differ_have_their_own_thresholds_and_others_one(signed):
    found = F1Thresholds.choose(*noisy([-3, 0, 3], signed=signed))
    assert found.gains and np.array_equal(found.best, found.own)
    assert found.own[0] < found.shared < found.own[2]
    # What was expected is had, within luck, on other photos.
    scores, truth = noisy([-3, 0, 3], n=4000, seed=1, signed=signed)
    assert macro(scores > found.own, truth) == pytest.approx(found.macro_f1, abs=0.02)
    assert macro(scores > found.shared, truth) == pytest.approx(found.macro_f1_shared, abs=0.02)
    alike = F1Thresholds.choose(*noisy([0] * 20, n=100, signed=signed))
    assert not alike.gains and np.array_equal(alike.best, np.full(20, alike.shared))


def macro(given, truth):
    return f1_score(truth, given, average="macro")


def test_what_is_expected_is_counted_on_photos_that_did_not_choose():
    """Of scores that say nothing, thresholds look better than chance on the photos they fit."""
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 30)) < 0.3).astype(np.int8)
    scores = rng.random(truth.shape)
    found = F1Thresholds.choose(scores, truth)
    by_hand = np.zeros_like(truth)
    for part in range(5):
        others = np.arange(60) % 5 != part
        by_hand[~others] = scores[~others] > F1Thresholds.choose(scores[others], truth[others]).own
    assert found.macro_f1 == pytest.approx(macro(by_hand, truth))
    assert found.macro_f1 < macro(scores > found.own, truth)


def test_too_few_photos_have_the_one_threshold():
    found = F1Thresholds.choose(np.array([[0.9], [0.1]]), np.array([[1], [0]], np.int8))
    assert (found.best.tolist(), found.gains) == ([0.5], False)
    nothing = F1Thresholds.choose(np.full((9, 2), 0.3), np.zeros((9, 2), np.int8))
    assert (nothing.best.tolist(), nothing.gains) == ([0.5, 0.5], False)


def test_thresholds_of_logits_are_drawn_together_as_they_are():
    assert shrunk_thresholds(np.array([-3.0]), 1.0, np.array([2])).tolist() == [-1.0]


def test_thresholds_are_drawn_to_the_common_one_by_how_few_positives_they_rest_on():
    own = np.array([0.2, 0.2, 0.2])
    few, some, many = shrunk_thresholds(own, 0.8, np.array([0, 2, 10**9]))
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


@pytest.mark.parametrize("text", ["1.5", "-0.1"])
def test_only_logits_have_thresholds_beyond_probabilities(text):
    with pytest.raises(UsageProblem, match="a probability is between 0 and 1"):
        Cut.parse(text).require_probability()


@pytest.mark.parametrize("text", ["0", "1", "0.25"])
def test_a_threshold_may_be_any_probability(text):
    cut = Cut.parse(text)
    cut.require_probability()
    assert (cut.value, cut.is_default, cut.description) == (float(text), False, str(float(text)))
