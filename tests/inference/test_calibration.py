"""Curves and salience against other optimisers, thresholds against what they give."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ramctl.inference.calibration import (
    PIVOT,
    RIDGE,
    SALIENCE_RIDGE,
    Judged,
    Mentioned,
    calibrate,
    fit_curves,
    fit_main,
    fit_salience,
    open_curve,
    precision_table,
)
from ramctl.inference.log_odds import Probabilities, Salience, log_odds_of, score_logits, sigmoid
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import choose_threshold
from ramctl.inference.vocabulary import Vocabulary
from ramctl.records.labels import Label, Labels
from ramctl.training.annotations import Annotation, Caption
from ramctl.training.data import main_things, mentions
from tests.inference.conftest import KINDS

THINGS, SOFA = [0, 1, 2, 5, 6], 1  # of KINDS
WEIGHTS = np.array([2.0, 0.5, -1, -np.inf, -np.inf, 1, 1])


def judged(n_photos=200, n_labels=12, seed=0):
    """Logits that overstate by a factor, more for some labels, and which labels are right."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, (n_photos, n_labels))
    expected = sigmoid(0.7 * logits - 0.5 + random.normal(0, 1, n_labels))
    return logits, random.random(logits.shape) < expected


def known(right):
    return np.ones_like(right)


def fractions_of(log_odds, slope, weights):
    """The softmax over the things (N, 5)."""
    found = np.exp(slope * log_odds[:, THINGS] + weights[THINGS])
    return found / found.sum(1, keepdims=True)


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
    assert open_curve(logits, right, is_known) == pytest.approx(ours.pooled, abs=1e-4)


def test_a_higher_logit_never_speaks_against_a_tag():
    logits, right = judged(n_photos=2000)
    right[:, 0] = logits[:, 0] < -1
    assert fit_curves(logits, right, known(right)).labels[:, 0].min() > 0


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


def test_captions_tell_by_their_order_what_a_photo_is_of():
    tags = [("red", "sofa", "cat"), ("cat", "sit", "sofa", "room"), ("cat", "cat")]
    note = Annotation("a.jpg", (), tuple(Caption("...", named) for named in tags))
    expected = [1 / 8 + 1 + 1, 1 + 1 / 8, 1 / 27, 0, 0, 0, 0]
    np.testing.assert_allclose(mentions(note, KINDS), expected, rtol=1e-6)
    assert main_things(note, KINDS) == [1, 0, 0]
    known = Annotation("a.jpg", (), note.captions, main=("room", "unknown"))
    assert main_things(known, KINDS) == [2]
    guessed = Annotation("a.jpg", (), (Caption("...", ("cat",), generated=True),))
    assert main_things(guessed, KINDS) == [] and not mentions(guessed, KINDS).any()


def test_weights_are_the_likeliest_for_what_captions_name():
    random = np.random.default_rng(0)
    log_odds = random.normal(-1, 2, (400, 7))
    named = np.zeros((400, 7), np.float32)
    for row, fractions in zip(named, fractions_of(log_odds, 0.8, WEIGHTS), strict=True):
        row[THINGS] = random.multinomial(3, fractions)

    def cost(parameters):
        logits = parameters[0] * log_odds[:, THINGS] + parameters[1:]
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        likelihood = (named[:, THINGS] / 3 * logs).sum()
        return (SALIENCE_RIDGE * (parameters[1:] ** 2).sum() - likelihood) / 400

    best = minimize(cost, np.r_[1, np.zeros(5)], method="BFGS").x
    ours = fit_salience(log_odds, named, KINDS)
    assert ours.slope == pytest.approx(best[0], abs=5e-3)
    np.testing.assert_allclose(ours.weights[THINGS], best[1:], atol=2e-2)
    assert np.isneginf(ours.weights[[3, 4]]).all()
    assert fit_salience(log_odds, np.zeros((400, 7), np.float32), KINDS) is None


def test_judged_photos_show_how_often_a_thing_of_a_fraction_is_a_main_one():
    random = np.random.default_rng(1)
    log_odds, salience = random.normal(0, 2, (500, 7)), Salience(0.8, WEIGHTS)
    logs = np.log(fractions_of(log_odds, 0.8, WEIGHTS) + 1e-6)
    is_main = np.zeros((500, 7), bool)
    expected = sigmoid(0.5 * log_odds[:, THINGS] + logs + 1)
    is_main[:, THINGS] = random.random(expected.shape) < expected
    ours = fit_main(salience, log_odds, is_main, np.ones(7, bool))
    inputs = [log_odds[:, THINGS].ravel(), logs.ravel()]
    theirs = LogisticRegression(C=1e4).fit(np.stack(inputs, -1), is_main[:, THINGS].ravel())
    np.testing.assert_allclose(ours.main, [*theirs.coef_[0], theirs.intercept_[0]], atol=0.02)
    assert not ours.probabilities(ours.inputs(log_odds))[:, [3, 4]].any()
    few = fit_main(salience, log_odds[:5], is_main[:5], np.ones(7, bool))
    assert few.main == salience.main


def test_a_threshold_has_its_precision_where_tags_are_chosen_by_salience():
    # On photos that chose nothing.
    random = np.random.default_rng(3)
    logits = random.normal(-1, 2, (6000, 7)).astype(np.float32)
    right, known = random.random(logits.shape) < sigmoid(logits), np.ones((3000, 7), bool)
    main = right[:3000] & (logits[:3000] == logits[:3000].max(1, keepdims=True))
    judged = Judged(logits[:3000], right[:3000], known, main)
    captioned = Mentioned(logits[:300], (logits[:300] > 0).astype(np.float32))
    labels, meta = calibrate(KINDS, np.arange(7) != SOFA, judged, captioned, 0.8)
    assert [label.validated for label in labels] == [True, False, *[True] * 5]
    threshold = meta["thresholds"]["threshold"]
    salience = Salience.from_bundle(meta["salience"], labels)
    vocabulary = Vocabulary(labels, labels.thresholds(threshold), salience, allows=True)
    choose, scores = TagSelector(vocabulary, SelectionOptions()), Probabilities(labels)(logits)
    hits = [right[n, choose(scores[n]).labels] for n in range(3000, 6000)]
    assert np.concatenate(hits).mean() == pytest.approx(0.8, abs=0.02)
    table = meta["precisions"]
    assert table == sorted(table) and table[-1][1] > 0.9 and table[0][2] > table[-1][2]
    (tags,) = [row[2] for row in table if row[0] == threshold]
    assert len(np.concatenate(hits)) / 3000 == pytest.approx(tags, rel=0.05)
