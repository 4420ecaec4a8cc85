"""The tags that a photo is given: thresholds that fall with salience, their order, their number."""

from math import exp, log

import numpy as np

from ramctl.inference.log_odds import Salience, sigmoid
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.vocabulary import Vocabulary
from ramctl.records.labels import Label, Labels
from tests.inference.conftest import KINDS

CAT, SOFA, ROOM, RED, SIT, PERSON, MAN = range(7)
WEIGHTS = (2.0, 0.5, -1, -np.inf, -np.inf, 1, 1)
NEVER_MAIN = (0.0, 0.0, -30.0)


def selector(
    labels=KINDS, *, threshold=0.9, weights=WEIGHTS, main=(0.46, 0.53, 0.73), fills_up=False,
    user=None, has_salience=True, **options,
):  # fmt: skip
    salience = Salience(0.8, np.array(weights, np.float64), main) if has_salience else None
    vocabulary = Vocabulary(
        labels, labels.thresholds(threshold), salience, allows=has_salience, fills_up=fills_up
    )
    return TagSelector(vocabulary.with_threshold(user), SelectionOptions(**options))


def given(scores, **options):
    return list(selector(**options)(np.array(scores, np.float32)).scores)


def test_the_threshold_falls_with_salience_by_one_formula():
    """Counted label by label: log-odds + log(max(main, 0.1) / 0.1) > log-odds of the threshold."""
    slope, main, scores = 0.8, (0.46, 0.53, 0.73), [0.8, 0.1, 0.95, 0.93, 0.85, 0.05, 0.05]
    odds = [log(p / (1 - p)) for p in scores]
    weighed = {i: exp(slope * odds[i] + WEIGHTS[i]) for i in (CAT, SOFA, ROOM, PERSON, MAN)}
    expected, salience = set(), dict[int, float]()
    for label, z in enumerate(odds):
        salience[label] = 0.0
        if label in weighed:
            fraction = log(weighed[label] / sum(weighed.values()) + 1e-6)
            salience[label] = 1 / (1 + exp(-(main[0] * z + main[1] * fraction + main[2])))
        if z + log(max(salience[label], 0.1) / 0.1) > log(0.9 / 0.1):
            expected.add(label)
    chosen = selector()(np.array(scores, np.float32))
    assert set(chosen.labels) == expected == {CAT, ROOM, RED}  # the cat below 0.9
    assert chosen.scores["cat"] == 0.8


def test_thresholds_of_a_user_are_kept_to():
    scores = [0.8, 0.1, 0.95, 0.93, 0.85, 0.05, 0.05]
    likely = [0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1]
    assert given(scores, user=0.9) == given(scores, user={"sofa": 0.9}) == ["room", "red"]
    assert given(likely, fills_up=True) == ["cat", "sofa"]
    assert given(likely, fills_up=True, user=0.9) == []


def test_the_first_thing_comes_first_then_things_parts_and_the_rest():
    scores = sigmoid(np.array([3.0, 4.5, 6.0, 7.0, -9, -9, -9]))
    weights = (2.6, -0.5, -1, -np.inf, -np.inf, 1, 1)
    # The room is likelier to be a main thing, yet captions begin with the cat.
    assert given(scores, weights=weights) == ["cat", "room", "sofa", "red"]
    assert given(scores, weights=weights, top=2) == ["cat", "room"]
    part = Labels([KINDS[CAT].changed(part_of=("room",)), *KINDS[1:]])
    assert given(scores, weights=weights, labels=part) == ["room", "sofa", "cat", "red"]
    assert given(scores, has_salience=False) == ["red", "room", "sofa", "cat"]
    low = np.array([0.99, 0.2, 0.05, 0.05, 0.05, 0.05, 0.05], np.float32)
    assert list(selector()(low, SOFA).scores) == ["sofa", "cat"]  # a collection's first thing


def test_a_part_is_given_only_beside_its_whole():
    paw = Labels([*KINDS[:SOFA], Label("paw", part_of=("cat", "person")), *KINDS[ROOM:]])
    without = [0.05, 0.97, 0.98, 0.05, 0.05, 0.05, 0.05]
    assert given(without, labels=paw, main=NEVER_MAIN) == ["room"]
    assert set(given(without, labels=paw, user=0.9)) == {"paw", "room"}
    for whole in (CAT, PERSON, MAN):  # or beside a kind of it
        scores = [0.99 if i == whole else p for i, p in enumerate(without)]
        assert "paw" in given(scores, labels=paw, main=NEVER_MAIN)


def test_a_photo_with_few_tags_gets_the_likeliest_things(monkeypatch):
    scores = [0.55, 0.6, 0.45, 0.95, 0.7, 0.62, 0.51]
    quiet = {"weights": (-3, -2, -1, -np.inf, -np.inf, 0, -9), "main": (0.0, 1.0, -5.0)}
    assert given(scores, **quiet) == ["red"]
    likely = {"person", "sofa", "cat", "red"}
    assert set(given(scores, fills_up=True, **quiet)) == {"man", *likely}  # the room is not
    monkeypatch.setattr("ramctl.inference.selection.MIN_TAGS", 4)
    assert set(given(scores, fills_up=True, **quiet)) == likely


def test_what_a_photo_is_most_likely_of_is_given_from_a_score_of_0_3():
    quiet = {"weights": (-3, -2, -1, -np.inf, -np.inf, 0, -9), "main": (0.0, 1.0, -5.0)}
    for score, expected in ((0.31, ["sofa", "red"]), (0.29, ["red"])):
        scores = [0.05, score, 0.2, 0.95, 0.05, 0.05, 0.05]
        assert given(scores, fills_up=True, **quiet) == expected
        assert given(scores, **quiet) == ["red"]


def test_without_evidence_a_label_is_not_given_and_not_counted():
    unknown = Labels([KINDS[CAT].changed(validated=False), *KINDS[1:]])
    assert given([0.999, 0.95, 0.05, 0.05, 0.05, 0.05, 0.05], labels=unknown) == ["sofa"]


def test_a_tag_is_given_above_its_threshold_before_rounding_and_a_name_once():
    plain = {"threshold": 0.5, "has_salience": False}
    letters = Labels.from_tags(["a", "b", "c"])
    assert selector(letters, **plain)(np.float32([0.50001, 0.5, 0.49999])).scores == {"a": 0.5}
    bows = Labels.from_tags(["bow", "cat", "bow"])
    assert selector(bows, **plain)(np.float32([0.6, 0.7, 0.9])).scores == {"bow": 0.9, "cat": 0.7}
