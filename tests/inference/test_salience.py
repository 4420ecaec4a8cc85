"""What a photo is of: weights learnt from captions, the probability of a main thing by photos."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ramctl.inference.calibration import (
    SALIENCE_RIDGE,
    Judged,
    Mentioned,
    calibrate,
    fit_main,
    fit_salience,
)
from ramctl.inference.log_odds import Probabilities, Salience, sigmoid
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.vocabulary import Vocabulary
from ramctl.records.labels import Label, Labels
from ramctl.training.annotations import Annotation, Caption
from ramctl.training.data import main_things, mentions

LABELS = Labels([
    Label("cat"), Label("sofa"), Label("room", "scene"), Label("red", "attribute"),
    Label("sit", "action"), Label("person"), Label("man", parents=("person",)),
])  # fmt: skip
THINGS = [0, 1, 2, 5, 6]
WEIGHTS = np.array([2.0, 0.5, -1, -np.inf, -np.inf, 1, 1])


def fractions_of(log_odds, slope, weights):
    """The softmax over the things (N, 5)."""
    found = np.exp(slope * log_odds[:, THINGS] + weights[THINGS])
    return found / found.sum(1, keepdims=True)


def test_captions_tell_by_their_order_what_a_photo_is_of():
    tags = [("red", "sofa", "cat"), ("cat", "sit", "sofa", "room"), ("cat", "cat")]
    note = Annotation("a.jpg", (), tuple(Caption("...", named) for named in tags))
    expected = [1 / 8 + 1 + 1, 1 + 1 / 8, 1 / 27, 0, 0, 0, 0]
    np.testing.assert_allclose(mentions(note, LABELS), expected, rtol=1e-6)
    assert main_things(note, LABELS) == [1, 0, 0]
    known = Annotation("a.jpg", (), note.captions, main=("room", "unknown"))
    assert main_things(known, LABELS) == [2]
    guessed = Annotation("a.jpg", (), (Caption("...", ("cat",), generated=True),))
    assert main_things(guessed, LABELS) == [] and not mentions(guessed, LABELS).any()


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
    ours = fit_salience(log_odds, named, LABELS)
    assert ours.slope == pytest.approx(best[0], abs=5e-3)
    np.testing.assert_allclose(ours.weights[THINGS], best[1:], atol=2e-2)
    assert np.isneginf(ours.weights[[3, 4]]).all()
    assert fit_salience(log_odds, np.zeros((400, 7), np.float32), LABELS) is None


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
    """On photos that chose nothing."""
    random = np.random.default_rng(3)
    logits = random.normal(-1, 2, (6000, 7)).astype(np.float32)
    right, known = random.random(logits.shape) < sigmoid(logits), np.ones((3000, 7), bool)
    main = right[:3000] & (logits[:3000] == logits[:3000].max(1, keepdims=True))
    judged = Judged(logits[:3000], right[:3000], known, main)
    captioned = Mentioned(logits[:300], (logits[:300] > 0).astype(np.float32))
    labels, meta = calibrate(LABELS, known[0], judged, captioned, 0.8)
    threshold = meta["thresholds"]["threshold"]
    salience = Salience.from_bundle(meta["salience"], labels)
    vocabulary = Vocabulary(labels, labels.thresholds(threshold), salience, allows=True)
    choose, scores = TagSelector(vocabulary, SelectionOptions()), Probabilities(labels)(logits)
    hits = [right[n, choose(scores[n]).labels] for n in range(3000, 6000)]
    assert np.concatenate(hits).mean() == pytest.approx(0.8, abs=0.02)
    (tags,) = [row[2] for row in meta["precisions"] if row[0] == threshold]
    assert len(np.concatenate(hits)) / 3000 == pytest.approx(tags, rel=0.05)
