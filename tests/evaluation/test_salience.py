"""What a photo is of: weights learnt from captions, chances by judged photos, tags by both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ramctl.inference.calibration import Calibration, CurvePoint
from ramctl.inference.fitting import (
    MAX_TAKEN_FOR_OTHER,
    SALIENCE_RIDGE,
    Judged,
    calibrate,
    fit_main,
    fit_salience,
)
from ramctl.inference.log_odds import log_odds_of, sigmoid
from ramctl.inference.salience import Rival, Salience
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.thresholds import LabelSet
from ramctl.labels import Label, Labels
from ramctl.training.data.targets import Annotation, Caption, Targets, main_things, mentions

LABELS = Labels(
    [
        Label("cat"), Label("sofa", synonyms=("couch",)), Label("room", "scene"),
        Label("red", "attribute"), Label("sit", "action"), Label("person"),
        Label("man", parents=("male", "person"), one_of=("man or woman",)),
    ]
)  # fmt: skip
TARGETS = Targets(LABELS)
CAT, SOFA, ROOM, RED, _, PERSON, MAN = range(7)
RIVAL = Rival(general=PERSON, other=CAT, margin=5.0)


def annotation(*captions: tuple[str, ...], **fields) -> Annotation:
    texts = tuple(Caption("...", tags) for tags in captions)
    return Annotation("a.jpg", Path(), (), texts, None, (), **fields)


def test_captions_say_by_their_order_what_a_photo_is_of():
    note = annotation(("red", "couch", "cat"), ("cat", "sit", "sofa", "room"), ("cat", "cat"))
    expected = np.zeros(7, np.float32)
    expected[[SOFA, CAT, ROOM]] = 1 + 1 / 8, 1 / 8 + 1 + 1, 1 / 27
    np.testing.assert_allclose(mentions(note, TARGETS), expected, rtol=1e-6)
    assert main_things(note, TARGETS) == [SOFA, CAT, CAT]
    assert main_things(replace(note, main=("room", "unknown")), TARGETS) == [ROOM]
    guessed = replace(note, captions=(Caption("...", ("cat",), generated=True),))
    assert main_things(guessed, TARGETS) == [] and not mentions(guessed, TARGETS).any()


def test_weights_are_the_likeliest_for_what_captions_name():
    random = np.random.default_rng(0)
    log_odds, truth = random.normal(-1, 2, (400, 7)), np.array([2.0, 0.5, -1, 0, 0, 1, 0])
    things = [CAT, SOFA, ROOM, PERSON, MAN]
    shares = np.exp(0.8 * log_odds[:, things] + truth[things])
    shares /= shares.sum(1, keepdims=True)
    named = np.zeros((400, 7), np.float32)
    for row, share in zip(named, shares, strict=True):
        row[things] = random.multinomial(3, share)
    x = log_odds_of(sigmoid(log_odds))[:, things]

    def cost(parameters):
        logits = parameters[0] * x + parameters[1:]
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        of_all = named[:, things] / named[:, things].sum(1, keepdims=True)
        return (SALIENCE_RIDGE * (parameters[1:] ** 2).sum() - (of_all * logs).sum()) / 400

    best = minimize(cost, np.r_[1, np.zeros(5)], method="BFGS").x
    ours = fit_salience(sigmoid(log_odds).astype(np.float32), named, LABELS, ("person",))
    assert ours.slope == pytest.approx(best[0], abs=5e-3)
    np.testing.assert_allclose(ours.weights[things], best[1:], atol=2e-2)
    assert np.isneginf(ours.weights[[RED, 4]]).all()
    assert ours.careful == {}
    assert fit_salience(np.zeros((3, 7), np.float32), np.zeros((3, 7)), LABELS) is None


def made(slope=0.8, weights=(2.0, 0.5, -1, -np.inf, -np.inf, 1, 1), **fields):
    return Salience(slope, np.array(weights, np.float64), careful={MAN: RIVAL}, **fields)


def test_judged_photos_say_how_often_a_thing_of_a_share_is_a_main_one():
    random = np.random.default_rng(1)
    log_odds = random.normal(0, 2, (500, 7))
    salience, right = made(), log_odds - 0.5
    shares = np.exp(salience.slope * log_odds + salience.weights)
    shares /= shares.sum(1, keepdims=True)
    things = [CAT, SOFA, ROOM, PERSON, MAN]
    chance = sigmoid(0.5 * right + np.log(shares + 1e-6) + 1)
    is_main = random.random(chance.shape) < chance
    ours = fit_main(salience, log_odds, right, is_main)
    inputs = [right[:, things].ravel(), np.log(shares[:, things] + 1e-6).ravel()]
    theirs = LogisticRegression(C=1e4).fit(np.stack(inputs, -1), is_main[:, things].ravel())
    np.testing.assert_allclose(ours.main, [*theirs.coef_[0], theirs.intercept_[0]], atol=0.02)
    assert not ours.probabilities(ours.inputs(log_odds, right))[:, [RED, 4]].any()
    few = fit_main(salience, log_odds[:5], right[:5], is_main[:5])
    assert few.main == salience.main


def test_shifted_scores_have_the_same_shares():
    log_odds, shifts = np.random.default_rng(2).normal(0, 2, (9, 7)), np.arange(7) / 3
    before, after = made(), made().with_shifts(shifts)
    np.testing.assert_allclose(
        after.probabilities(after.inputs(log_odds + shifts, log_odds)),
        before.probabilities(before.inputs(log_odds, log_odds)), atol=1e-9,
    )  # fmt: skip


def calibration(salience):
    ones, none = np.ones(7), np.zeros(7)
    curve = (CurvePoint(0.9, 0.9, 2.0),)
    return Calibration(1.0, 0.0, ones, none, none, none, curve, 0.1, salience)


def selector(salience, uses_salience=True, labels=LABELS, fills_up=False, **options):
    known = calibration(salience)
    rows, limits = np.zeros((7, 0), np.float32), known.thresholds(0.9)
    return TagSelector(
        LabelSet(labels, rows, limits, np.full(7, uses_salience), known, fills_up),
        SelectionOptions(**options),
    )


def test_a_main_thing_may_be_less_certain_and_comes_first():
    scores = np.array([0.8, 0.1, 0.95, 0.93, 0.85, 0.05, 0.05], np.float32)
    salience = made()
    log_odds = log_odds_of(scores.astype(float))
    chances = salience.probabilities(salience.inputs(log_odds, log_odds))
    chosen = selector(salience)(scores)
    # 0.8 of the cat is log-odds 1.39 where 0.9 is 2.20: its chance of 0.6 allows for 1.8.
    assert list(chosen.scores) == ["cat", "room", "red"]
    assert chosen.salience["cat"] == pytest.approx(chances[CAT], abs=1e-4)
    assert chosen.salience["red"] == 0 and chosen.labels == [CAT, ROOM, RED]
    assert list(selector(salience, top=1)(scores).scores) == ["cat"]
    # Thresholds that the user named are kept to.
    assert list(selector(salience, uses_salience=False)(scores).scores) == ["room", "red"]
    assert selector(None)(scores).salience is None


def test_what_captions_name_first_comes_first_and_the_others_as_before():
    scores = sigmoid(np.array([3.0, 4.5, 6.0, 7.0, -9, -9, -9])).astype(np.float32)
    salience = made(weights=(2.6, -0.5, -1, -np.inf, -np.inf, 1, 1))
    chosen = selector(salience)(scores)
    room, cat, sofa = map(chosen.salience.get, ("room", "cat", "sofa"))
    assert room > cat > sofa
    assert list(chosen.scores) == ["cat", "room", "sofa", "red"]
    assert list(selector(salience, top=2)(scores).scores) == ["cat", "room"]
    # A part is not what a photo is of.
    part = Labels([replace(LABELS[CAT], part_of=("room",)), *list(LABELS)[1:]])
    assert next(iter(selector(salience, labels=part)(scores).scores)) == "room"


def test_a_label_that_does_not_exceed_its_rival_is_replaced_by_a_general_one():
    scores = np.array([0.3, 0.01, 0.01, 0.01, 0.01, 0.6, 0.95], np.float32)  # log-odds -0.8, 2.9
    salience = made(weights=(0, 0, 0, -np.inf, -np.inf, -3, 3))
    chosen = selector(salience)(scores)
    assert list(chosen.scores) == ["person"]
    assert chosen.scores["person"] == np.float32(0.6).round(4)
    assert chosen.salience["person"] > 0.5
    assert list(selector(salience, exclude=["person"])(scores).scores) == []
    # Thresholds that the user named are kept to.
    assert list(selector(salience, uses_salience=False)(scores).scores) == ["man"]
    scores[CAT] = 0.1  # log-odds -2.2
    assert list(selector(salience)(scores).scores) == ["man"]
    scores[MAN] = 0.01
    assert list(selector(salience)(scores).scores) == []


def test_rivals_are_as_seldom_given_in_place_of_each_other():
    kind, one_of = {"parents": ("person",)}, {"one_of": ("man or woman",)}
    labels = Labels([
        Label("person"), Label("man", **kind, **one_of), Label("woman", **kind, **one_of),
        Label("player", **kind),
    ])  # fmt: skip
    random, is_man = np.random.default_rng(4), np.arange(4000) % 4 > 0
    log_odds = random.normal(0, 2, (4000, 4))
    log_odds[:, 1] += 3 * is_man + 1  # men are found too easily
    mentioned = np.zeros((4000, 4), np.float32)
    mentioned[is_man, 1] = mentioned[~is_man, 2] = 1
    scores = sigmoid(log_odds).astype(np.float32)
    salience = fit_salience(scores, mentioned, labels, ["person"])
    assert {i: rival[:2] for i, rival in salience.careful.items()} == {1: (0, 2), 2: (0, 1)}
    given = ~salience.unclear(log_odds)
    wrong = given[~is_man, 1].mean(), given[is_man, 2].mean()
    assert wrong == pytest.approx((MAX_TAKEN_FOR_OTHER, MAX_TAKEN_FOR_OTHER), abs=2e-3)
    assert given[:, [0, 3]].all()
    shifts = np.arange(4.0)
    assert (salience.with_shifts(shifts).unclear(log_odds + shifts) == ~given).all()
    few = fit_salience(
        sigmoid(log_odds[:80]).astype(np.float32), mentioned[:80], labels, ["person"]
    )
    assert few.careful.keys() == {2}
    # A set of three has no rivals, nor has a set whose general label is none.
    three = Labels([*labels[:3], replace(labels[3], **one_of)])
    without = Labels([Label("sky"), *labels[1:]])
    for system in (three, without):
        found = fit_salience(sigmoid(log_odds).astype(np.float32), mentioned, system, ["person"])
        assert found.careful == {}


def test_a_photo_gets_one_label_of_a_set_and_one_part_beside_its_whole():
    cat, sofa, room, red, _, person, _ = LABELS
    labels = Labels([
        cat, replace(sofa, part_of=("person",)), replace(room, part_of=("cat", "person")),
        replace(red, one_of=("color",)), Label("white", "attribute", one_of=("color",)),
        person, Label("dog"),
    ])  # fmt: skip
    salience = replace(made(), careful={})
    scores = np.array([0.05, 0.97, 0.98, 0.95, 0.96, 0.05, 0.95], np.float32)
    # Nobody is given whose part it is.
    assert list(selector(salience, labels=labels)(scores).scores) == ["dog", "white"]
    scores[0] = 0.95
    assert list(selector(salience, labels=labels)(scores).scores) == ["cat", "dog", "room", "white"]
    by_user = selector(salience, uses_salience=False, labels=labels)(scores).scores
    assert {"sofa", "room", "red", "white"} < {*by_user}


def test_a_photo_with_few_tags_gets_likely_ones():
    scores = np.array([0.55, 0.6, 0.45, 0.95, 0.7, 0.05, 0.05], np.float32)
    salience = made(weights=(-3, -2, -1, -np.inf, -np.inf, 0, 0), main=(0.0, 1.0, -5.0))
    assert list(selector(salience)(scores).scores) == ["red"]
    assert list(selector(salience, fills_up=True)(scores).scores) == ["sofa", "cat", "red"]
    without = selector(salience, fills_up=True, exclude=["cat"])(scores)
    assert list(without.scores) == ["sofa", "red"]


def test_a_calibration_goes_to_disk_and_to_other_labels_with_its_salience(tmp_path):
    before = calibration(made())
    before.write(tmp_path / "calibration.json")
    after = Calibration.read(tmp_path / "calibration.json")
    assert after.salience.careful == {MAN: RIVAL}
    np.testing.assert_allclose(after.salience.weights, before.salience.weights)
    assert before.for_labels([PERSON, None, MAN]).salience.careful == {}
    other = before.for_labels([PERSON, CAT, MAN]).salience
    assert other.careful == {2: Rival(0, 1, 5.0)}
    np.testing.assert_allclose(other.weights, [1, 2, 1])
    new = before.for_labels([PERSON, None, MAN]).salience
    np.testing.assert_allclose(new.weights, [1, 1, 1])  # a new word has the median of things


def test_the_curve_is_that_of_tags_chosen_by_salience():
    """Precision at the cut, on photos that chose nothing, by choosing them as a tagger does."""
    random = np.random.default_rng(3)
    log_odds = random.normal(-1, 2, (6000, 7))
    scores, right = sigmoid(log_odds), random.random((6000, 7)) < sigmoid(log_odds)
    seen = Judged(scores[:3000], right[:3000], np.ones((3000, 7), bool))
    found = calibrate(seen, np.ones(7, bool), salience=replace(made(), careful={}))
    rows, limits = np.zeros((7, 0), np.float32), found.thresholds(0.8, salient=True)
    labels = LabelSet(LABELS, rows, limits, np.ones(7, bool), found)
    choose, hits, given = TagSelector(labels, SelectionOptions()), 0, 0
    for row, truth in zip(scores[3000:].astype(np.float32), right[3000:], strict=True):
        labels = choose(row).labels
        given, hits = given + len(labels), hits + int(truth[labels].sum())
    assert hits / given == pytest.approx(0.8, abs=0.02)
    # Without allowances the same precision has a lower cut.
    alone = scores[3000:] > found.thresholds(0.8)
    assert right[3000:][alone].mean() == pytest.approx(0.8, abs=0.02)
    assert found.min_probability(0.8) < found.min_probability(0.8, salient=True)
