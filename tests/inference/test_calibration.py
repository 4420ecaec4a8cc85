"""What scores are worth: the fit against another optimiser, thresholds against what they give."""

import numpy as np
import pytest
from scipy.optimize import minimize

from ramctl.inference.calibration import (
    PIVOT,
    RIDGE,
    Judged,
    calibrate,
    fit_curves,
    precision_table,
)
from ramctl.inference.log_odds import Probabilities, log_odds_of, score_logits, sigmoid
from ramctl.inference.thresholds import choose_threshold
from ramctl.records.labels import Label, Labels


def judged(n_photos=200, n_labels=12, seed=0):
    """Logits that overstate by a factor, more for some labels, and which labels are right."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, (n_photos, n_labels))
    expected = sigmoid(0.7 * logits - 0.5 + random.normal(0, 1, n_labels))
    return logits, random.random(logits.shape) < expected


def known(right):
    return np.ones_like(right)


def labels_of(number):
    return Labels.from_tags(map(str, range(number)))


def test_a_score_is_the_sigmoid_of_the_labels_curve():
    logits = np.random.default_rng(0).normal(0, 5, (4, 2)).astype(np.float32)
    curved = Labels([Label("a", calibration=(1.5, -0.25)), Label("b")])
    expected = [1 / (1 + np.exp(-(1.5 * logits[:, 0] - 0.25))), 1 / (1 + np.exp(-logits[:, 1]))]
    np.testing.assert_allclose(Probabilities(curved)(logits), np.stack(expected, 1), rtol=1e-5)
    plain = Probabilities(labels_of(2))(logits)
    assert plain.tobytes() == score_logits(logits).tobytes()


def test_sigmoid_holds_far_out():
    logits = np.array([-1000, -5, 0, 5, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(5)), 0.5, 1 / (1 + np.exp(-5)), 1]
    np.testing.assert_allclose(score_logits(logits), expected, atol=1e-7)
    small = np.array([-70, -40, -17], np.float32)
    np.testing.assert_allclose(score_logits(small), np.exp(small.astype(float)), rtol=1e-5)


def test_the_fit_is_the_most_likely_one():
    logits, right = judged()
    is_known = known(right)
    is_known[3, :5] = False

    def cost(x):
        offsets, slopes = x[2:14], x[14:]
        z = (x[0] + slopes) * (logits - PIVOT) + x[1] + offsets
        nll = np.logaddexp(0, z) - right * z
        own = RIDGE[0] * (offsets**2).sum() + RIDGE[1] * (slopes**2).sum()
        return nll[is_known].sum() + 0.5 * own

    best = minimize(cost, np.r_[1, 0, np.zeros(24)], method="BFGS").x
    slopes = best[0] + best[14:]
    ours = fit_curves(logits, right, is_known)
    assert ours.pooled == pytest.approx((best[0], best[1] - best[0] * PIVOT), abs=2e-2)
    np.testing.assert_allclose(ours.labels[:, 0], slopes, atol=5e-3)
    expected = best[1] + best[2:14] - slopes * PIVOT
    np.testing.assert_allclose(ours.labels[:, 1], expected, atol=2e-2)


def test_a_higher_logit_never_speaks_against_a_tag():
    logits, right = judged(n_photos=2000)
    right[:, 0] = logits[:, 0] < -1
    assert fit_curves(logits, right, known(right)).labels[:, 0].min() > 0


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.9])
def test_a_threshold_keeps_its_precision_on_other_photos(precision):
    logits, right = judged(n_photos=3000)
    seen = Judged(logits[:2000], right[:2000], known(right)[:2000], right[:2000])
    made, meta = calibrate(labels_of(12), np.arange(12) > 0, seen, None, precision)
    given = Probabilities(made)(logits[2000:].astype(np.float32)) > meta["thresholds"]["threshold"]
    assert right[2000:, 1:][given[:, 1:]].mean() == pytest.approx(precision, abs=0.03)
    assert [label.validated for label in made] == [False, *[True] * 11]
    table = meta["precisions"]
    assert table == sorted(table) and table[-1][1] > 0.9 and table[0][2] > table[-1][2]


def test_where_no_threshold_reaches_the_precision_it_is_that_of_the_best_f1():
    random = np.random.default_rng(0)
    log_odds, right = random.normal(0, 1, (500, 4)), random.random((500, 4)) < 0.6
    table = precision_table(log_odds, right)
    f1 = [
        2 * (given & right).sum() / (given.sum() + right.sum())
        for row in table
        for given in [log_odds >= log_odds_of(row.threshold) - 1e-3]
    ]
    best = table[int(np.argmax(f1))].threshold
    assert choose_threshold(table, 0.999, right) == choose_threshold(table, 0, right) == best
    assert choose_threshold([], 0.9, right) == 0.5


def test_too_few_photos_leave_the_labels_their_plain_sigmoid():
    logits, right = judged(n_photos=10)
    seen = Judged(logits, right, known(right), right)
    made, meta = calibrate(labels_of(12), np.ones(12, bool), seen, None, 0.9)
    assert made == labels_of(12) and meta == {"thresholds": {"threshold": 0.5}}
