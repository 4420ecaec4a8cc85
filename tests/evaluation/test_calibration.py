"""What scores are worth: the fit against another optimiser, thresholds against what they give."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.metrics import f1_score, precision_recall_curve

from ramctl.errors import RunProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN
from ramctl.inference import fitting
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import PIVOT, RIDGE
from ramctl.inference.log_odds import log_odds_of, sigmoid


def judged(n_photos=200, n_labels=12, seed=0):
    """Scores that overstate by a factor, more for some labels, and what is right."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(-1, 2, (n_photos, n_labels))
    offsets = random.normal(0, 1, n_labels)
    chance = sigmoid(0.7 * log_odds - 0.5 + offsets)
    truth = np.where(random.random(chance.shape) < chance, POSITIVE, NEGATIVE).astype(np.int8)
    return sigmoid(log_odds), truth


def calibrate(scores, truth, evidence, max_fraction=1.0):
    photos = fitting.Judged(scores, truth == POSITIVE, truth != UNKNOWN)
    return fitting.calibrate(photos, evidence, max_fraction)


def given(calibration: Calibration, scores, precision):
    return scores > calibration.thresholds(precision)


def probabilities(calibration: Calibration, scores):
    return sigmoid(calibration.log_odds(log_odds_of(scores)))


def test_the_fit_is_the_most_likely_one():
    scores, truth = judged()
    truth[3, :5] = UNKNOWN
    known, right = truth != UNKNOWN, truth == POSITIVE
    log_odds = log_odds_of(scores)

    def cost(x):
        offsets, slopes = x[2:14], x[14:]
        z = (x[0] + slopes) * (log_odds - PIVOT) + x[1] + offsets
        nll = np.logaddexp(0, z) - right * z
        own = RIDGE[0] * (offsets**2).sum() + RIDGE[1] * (slopes**2).sum()
        return nll[known].sum() + 0.5 * own

    best = minimize(cost, np.r_[1, 0, np.zeros(24)], method="BFGS").x
    slopes = best[0] + best[14:]
    ours = calibrate(scores, truth, np.ones(truth.shape[1], bool))
    assert ours.slope == pytest.approx(best[0], abs=5e-3)
    assert ours.intercept == pytest.approx(best[1] - best[0] * PIVOT, abs=2e-2)
    np.testing.assert_allclose(ours.slopes, slopes, atol=5e-3)
    np.testing.assert_allclose(ours.offsets, best[1] + best[2:14] - slopes * PIVOT, atol=2e-2)


def test_a_label_s_own_slope_is_learnt_from_many_photos_and_hardly_from_few():
    scores, truth = judged(n_photos=6000)
    random, log_odds = np.random.default_rng(1), log_odds_of(scores)
    chance = sigmoid(2.0 * log_odds[:, 0] + 0.5)  # the other labels' slope is 0.7
    truth[:, 0] = np.where(random.random(len(scores)) < chance, POSITIVE, NEGATIVE)
    many = calibrate(scores, truth, np.ones(12, bool)).slopes
    few = calibrate(scores[:15], truth[:15], np.ones(12, bool)).slopes
    assert many[0] == pytest.approx(2, abs=0.3) and many[1:] == pytest.approx(0.7, abs=0.15)
    assert np.ptp(few) < 0.7


def test_a_higher_score_never_speaks_against_a_tag():
    scores, truth = judged(n_photos=2000)
    truth[:, 0] = np.where(scores[:, 0] < 0.3, POSITIVE, NEGATIVE)
    assert calibrate(scores, truth, np.ones(12, bool)).slopes.min() > 0


def test_no_photo_of_a_group_judges_the_others_of_it():
    groups = np.repeat(np.arange(40), np.arange(1, 41))
    folds = fitting.folds_of(len(groups), groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(40))
    sizes = np.bincount(folds)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 40
    few = fitting.folds_of(20, np.repeat(["a", "b"], 10))
    assert np.array_equal(few, fitting.folds_of(20))


def test_calibrated_scores_are_the_share_that_is_right():
    scores, truth = judged(n_photos=4000)
    ours = calibrate(scores, truth, np.ones(truth.shape[1], bool))
    calibrated = probabilities(ours, scores)
    for low in (0.2, 0.5, 0.8):
        inside = (calibrated >= low) & (calibrated < low + 0.1)
        assert (truth == POSITIVE)[inside].mean() == pytest.approx(low + 0.05, abs=0.02)


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.9])
def test_thresholds_keep_their_precision_on_other_photos(precision):
    scores, truth = judged(n_photos=3000)
    ours = calibrate(scores[:2000], truth[:2000], np.ones(truth.shape[1], bool))
    chosen = given(ours, scores[2000:], precision)
    assert (truth[2000:] == POSITIVE)[chosen].mean() == pytest.approx(precision, abs=0.03)


def test_no_label_is_given_on_more_than_its_share_of_the_photos():
    scores, truth = judged()
    scores[:, 4], truth[:, 4] = np.linspace(0.9, 0.99, len(scores)), POSITIVE
    everywhere = given(calibrate(scores, truth, np.ones(12, bool)), scores, 0.8)
    seldom = given(calibrate(scores, truth, np.ones(12, bool), max_fraction=0.25), scores, 0.8)
    assert everywhere[:, 4].mean() == 1
    assert 0.2 < seldom[:, 4].mean() <= 0.25
    assert seldom.mean(0).max() <= 0.25


def test_a_precision_out_of_reach_is_one_line():
    random = np.random.default_rng(0)
    scores = random.random((50, 4))
    truth = np.where(random.random((50, 4)) < 0.3, POSITIVE, NEGATIVE).astype(np.int8)
    ours = calibrate(scores, truth, np.ones(4, bool))
    with pytest.raises(RunProblem, match=r"no threshold reaches precision 0\.999: at most 0\."):
        ours.thresholds(0.9999 if ours.curve[0].precision == 1 else 0.999)


@pytest.mark.parametrize("n_photos", [0, 4])
def test_too_few_photos_are_one_line(n_photos):
    scores, truth = judged(n_photos=10)
    with pytest.raises(RunProblem, match="judged photos are too few"):
        calibrate(scores[:n_photos], truth[:n_photos], np.ones(12, bool))


def test_a_stored_calibration_gives_the_same_thresholds(tmp_path):
    scores, truth = judged()
    evidence = np.arange(12) != 3
    ours = calibrate(scores, truth, evidence, max_fraction=0.5)
    ours.write(tmp_path / "calibration.json")
    read = Calibration.read(tmp_path / "calibration.json")
    np.testing.assert_allclose(read.thresholds(0.8), ours.thresholds(0.8), atol=1e-3)


def test_the_curve_does_not_flatter():
    """Scores that say nothing of labels that are right half of the time: precision is a half."""
    random = np.random.default_rng(5)
    scores = random.random((20, 400))
    truth = np.where(random.random(scores.shape) < 0.5, POSITIVE, NEGATIVE).astype(np.int8)
    curve = calibrate(scores, truth, np.ones(400, bool)).curve
    assert max(point.precision for point in curve if point.tags > 10) < 0.6


def test_labels_without_evidence_are_never_given_and_not_on_the_curve():
    scores, truth = judged()
    scores[:, 0], truth[:, 0] = 0.999, POSITIVE
    evidence = np.arange(12) != 0
    with_it = calibrate(scores, truth, np.ones(12, bool)).curve
    without = calibrate(scores, truth, evidence)
    assert without.curve[-1].tags == with_it[-1].tags - 1 == 11
    assert without.thresholds(0.5)[0] == 1


def test_folding_changes_no_decision_and_leaves_one_threshold():
    scores, truth = judged()
    ours = calibrate(scores, truth, np.arange(12) != 5, max_fraction=0.5)
    shifts = ours.shifts_for(0.7)
    shifted, folded = sigmoid(log_odds_of(scores) + shifts), ours.with_shifts(shifts)
    assert np.array_equal(given(folded, shifted, 0.7), given(ours, scores, 0.7))
    assert np.array_equal(given(folded, shifted, 0.5), given(ours, scores, 0.5))
    np.testing.assert_allclose(probabilities(folded, shifted), probabilities(ours, scores))
    np.testing.assert_allclose(folded.shifts, shifts)
    plain = calibrate(scores, truth, np.ones(12, bool))
    plain = plain.with_shifts(plain.shifts_for(0.7))
    np.testing.assert_allclose(plain.thresholds(0.7), plain.shared_threshold(0.7))
    np.testing.assert_allclose(plain.shifts_for(0.7), 0, atol=1e-9)


def best_f1(scores, truth):
    """The best F1 of each label by any threshold, which scikit-learn finds by trying all."""
    curves = (precision_recall_curve(truth[:, c], scores[:, c])[:2] for c in range(truth.shape[1]))
    return [np.max(2 * p * r / np.maximum(p + r, 1e-9)) for p, r in curves]


def test_thresholds_of_the_best_f1_come_close_to_it_on_other_photos():
    scores, truth = judged(n_photos=4000)
    calibration = calibrate(scores[:400], truth[:400], np.ones(scores.shape[1], bool))
    own = calibration.f1_thresholds(scores[:400])[0]
    had = f1_score(truth[400:], scores[400:] > own, average=None)
    assert np.mean(had) > np.mean(best_f1(scores[400:], truth[400:])) - 0.02
    one = [f1_score(truth[400:], scores[400:] > t, average="macro") for t in np.unique(own)]
    assert np.mean(had) > max(one) + 0.01


def test_labels_without_evidence_or_truth_have_the_threshold_of_all():
    scores, truth = judged(n_labels=4)
    truth[:, 2] = UNKNOWN
    ours = calibrate(scores, truth, np.array([True, True, True, False]))
    own, shared = ours.f1_thresholds(np.repeat(scores[:, :1], 4, axis=1))
    assert own[2] == pytest.approx(own[3]) and own[0] != pytest.approx(own[3])
    same = replace(ours, offsets=np.full(4, np.nan)).f1_thresholds(scores[:, :1].repeat(4, 1))
    assert same[0] == pytest.approx([same[1]] * 4) and 0 < shared < 1


def test_a_calibration_rests_on_some_of_very_many_scores_from_all_over(monkeypatch):
    monkeypatch.setattr(fitting, "MAX_SCORES", 100)
    scores = np.repeat(np.arange(60, dtype=np.float32)[:, None], 4, 1)
    assert scores[fitting.sample(scores), 0].tolist() == list(range(0, 60, 3))
