"""Evidence from outside the model: predictions out of fold, other taggers, what they add up to."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import Ridge

from ramctl.checkpoints.bundle import Bundle, embedded_bundle, known_labels
from ramctl.data_engine import evidence
from ramctl.data_engine.evidence import (
    NOT_PREDICTED,
    OUT_OF_FOLD,
    RIDGE,
    SCORES,
    OutOfFold,
    estimate,
    is_mentioned,
    is_of_caption,
    label_rates,
    score_log_odds,
)
from ramctl.data_engine.heads import FOLDS, fold_of
from ramctl.data_engine.region_store import REGION, TWICE, RegionIndex, source_bits
from ramctl.decide.calibration import Calibration
from ramctl.errors import RunProblem
from ramctl.records.record import Record

CAT, DOG, NOISE = 3, 5, 8
N, PER_SHARD = 300, 128
NAMES = [f"{number:04d}.jpg" for number in range(N)]
PARSED, GENERATED = source_bits(["parsed"]), source_bits(["generated-tag"])


def index_of(features, tags) -> RegionIndex:
    """Photos with features (N, F) and their tags, `(photo, label, sources)` in order of photos."""
    shards = []
    for start in range(0, len(features), PER_SHARD):
        own = [tag for tag in tags if start <= tag[0] < start + PER_SHARD]
        regions = np.zeros(len(own), REGION)
        for place, (photo, label, sources) in enumerate(own):
            regions[place]["input"], regions[place]["label"] = photo - start, label
            regions[place]["sources"] = sources
        records = [
            Record({"image": name}, base=Path("x"))
            for name in NAMES[: len(features)][start:][:PER_SHARD]
        ]
        shards.append(
            SimpleNamespace(
                regions=regions, photos=features[start : start + PER_SHARD],
                inputs=lambda records=records: iter(records),
                facts={"counts": {"regions": len(own)}},
            )
        )  # fmt: skip
    return RegionIndex(shards)


@pytest.fixture(scope="module")
def photos():
    """Cats and dogs that features tell apart, wrong cats from a model, and a label at random."""
    random = np.random.default_rng(0)
    is_cat = random.random(N) < 0.4
    features = random.normal(size=(N, 6)).astype(np.float16)
    features[:, 0] += 4 * is_cat
    features[7] = 0  # not looked at
    tags = []
    for photo in range(N):
        tags.append((photo, CAT if is_cat[photo] else DOG, PARSED))
        if not is_cat[photo] and photo % 3 == 0:
            tags.append((photo, CAT, GENERATED))
        if random.random() < 0.3:
            tags.append((photo, NOISE, PARSED))
    return features, is_cat, tags


def test_predictions_are_those_of_ridge_regression_on_the_other_folds(photos):
    features, is_cat, tags = photos
    said = OutOfFold(index_of(features, tags)).by_features()
    fold = np.array([fold_of(name) for name in NAMES])  # whatever the folder
    assert set(fold) == set(range(FOLDS))
    known = features.any(axis=1)
    expected = np.zeros(N)
    for own in range(FOLDS):
        train = known & (fold != own)
        spread = features[train].astype(float).std(0)
        ridge = Ridge(alpha=RIDGE * train.sum())
        ridge.fit(features[train] / spread, is_cat[train])
        expected[fold == own] = ridge.predict(features[fold == own] / spread)
    base = is_cat[known].mean()
    for row, (photo, label, _) in enumerate(tags):
        if label == CAT and photo != 7:
            assert said[row] == pytest.approx(logit(np.clip(expected[photo], base, 0.99)), abs=1e-3)
    of = np.array(tags)
    assert np.isnan(said[of[:, 1] == NOISE]).all()  # features do not tell it
    assert np.isnan(said[of[:, 0] == 7]).all()


def test_another_tagger_may_use_words_of_its_own_and_miss_photos(photos, tmp_path):
    features, is_cat, tags = photos
    random = np.random.default_rng(1)
    rows = [
        {"image": f"elsewhere/{name}", "scores": {"feline": float(score)}}
        for name, score in zip(NAMES, np.clip(is_cat + random.normal(0, 0.3, N), 0, 1), strict=True)
    ]
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:250]))
    said = OutOfFold(index_of(features, tags)).by_scores(path)
    of = np.array(tags)
    told = of[:, 0] < 250
    wrong = said[told & (of[:, 1] == CAT) & (of[:, 2] == GENERATED)]
    right = said[told & (of[:, 1] == CAT) & (of[:, 2] == PARSED)]
    assert np.mean(wrong[:, None] < right) > 0.9
    assert np.isnan(said[~told]).all()
    path.write_text('{"image": "a", "scores": {"cat": "much"}}\n')
    with pytest.raises(RunProblem, match=r"other\.jsonl:1: scores is not an object of numbers"):
        OutOfFold(index_of(features, tags)).by_scores(path)


def test_folders_without_regions_have_nothing_to_say():
    assert len(OutOfFold(index_of(np.zeros((3, 4), np.float16), [])).by_features()) == 0
    unseen = OutOfFold(index_of(np.zeros((3, 4), np.float16), [(1, CAT, PARSED)])).by_features()
    assert np.isnan(unseen).all() and len(unseen) == 1


def test_evidence_adds_up(monkeypatch):
    """Own log-odds, a caption's word, and a part of what other evidence says beyond the usual."""
    monkeypatch.setattr(evidence, "SHRINK", 1e-9)
    part = 0.7 / 2**0.5
    own = np.array([-1.0, 1.0, 0.5, -9.0])
    labels = np.array([CAT] * 3 + [DOG], np.uint32)
    sources = np.array([PARSED, GENERATED, GENERATED, PARSED], np.uint8)
    # The usual: 2 of cats named, -1 of others.
    folds = np.array([2.0, -3.0, 1.0, np.nan], np.float32)
    scores = np.array([np.nan, 4.0, 4.0, -5.0], np.float32)
    found = estimate(own, labels, sources, [(OUT_OF_FOLD, folds), (SCORES, scores)])
    expected = [8, 1 - part * 2, 0.5 + part * 2, 8]
    assert found.probability == pytest.approx(expit(expected), abs=1e-6)
    assert found.against.tolist() == [0, OUT_OF_FOLD, 0, 0]


def test_who_named_a_tag():
    others = ["human"], [], ["parsed", "generated-tag"], ["generated-caption"], ["parsed", TWICE]
    bits = np.array([source_bits(names) for names in others], np.uint8)
    assert is_mentioned(bits).tolist() == [True, True, True, False, True]
    assert is_of_caption(bits).tolist() == [False, False, True, False, False]
    human_too = np.array([source_bits(["parsed", "human"])], np.uint8)
    assert is_of_caption(human_too).tolist() == [False]


def test_a_thing_that_one_caption_names_is_judged_by_how_much_likelier_its_photo_makes_it():
    """Dogs are rarer than cats: the same score speaks less against a dog."""
    rates = np.full(10, np.nan)
    rates[[CAT, DOG]] = -2.0, -6.0
    labels = np.array([CAT, DOG, NOISE, CAT, CAT, CAT], np.uint32)
    twice, human = source_bits(["parsed", TWICE]), source_bits(["human"])
    sources = np.array([PARSED, PARSED, PARSED, twice, human, GENERATED], np.uint8)
    folds = np.full(6, -9.0, np.float32)
    found = estimate(np.full(6, -6.0), labels, sources, [(OUT_OF_FOLD, folds)], rates)
    expected = [evidence.NAMED - evidence.LIFT_SLOPE * 4, evidence.NAMED, 8, 8, 8, -6]
    assert found.probability == pytest.approx(expit(expected), abs=1e-6)
    assert found.against.tolist() == [NOT_PREDICTED, 0, 0, 0, 0, NOT_PREDICTED]
    assert found.probability[0] < evidence.MIN_PROBABILITY


def test_rates_are_those_of_the_embedded_calibration_also_where_words_were_added():
    labels = known_labels()
    calibration = Calibration.from_bundle(Bundle.open(embedded_bundle()))
    rates = label_rates(calibration)
    assert len(rates) == len(labels)
    kinds = {labels[i].kind for i in np.flatnonzero(np.isfinite(rates))}
    assert kinds == {"object", "scene"}
    person, lizard = (rates[labels.ids(tag)[0]] for tag in ("person", "lizard"))
    assert lizard < -3 < person
    longer = replace(calibration, slopes=np.append(calibration.slopes, 1.0))
    assert np.array_equal(label_rates(longer), [*rates, np.nan], equal_nan=True)
    for other in (calibration.slopes + 0.1, calibration.slopes[:9]):
        assert label_rates(replace(calibration, slopes=other)) is None
    assert label_rates(None) is None


def test_few_regions_of_a_tag_are_compared_with_those_of_all():
    own, sources = np.zeros(31), np.full(31, GENERATED, np.uint8)
    labels = np.array([CAT] * 30 + [DOG], np.uint32)
    said = np.array([0.0] * 30 + [31.0], np.float32)
    right = estimate(own, labels, sources, [(SCORES, said)]).probability
    # All: 1 on average. 30 cats at 0 and 5 at that: 5 / 35. A dog at 31 and 5 at 1: 6.
    assert right[0] == pytest.approx(expit(0.7 * (0 - 5 / 35)))
    assert right[30] == pytest.approx(expit(0.7 * (31 - 6)))


def test_the_model_s_score_is_worth_what_its_calibration_says():
    scores, labels = np.array([0.2, 0.9], np.float32), np.array([1, 0], np.uint32)
    assert score_log_odds(scores, labels, None) == pytest.approx(logit([0.2, 0.9]), abs=1e-5)
    nothing = np.zeros(2)
    told = Calibration(
        2.0, 0.5, np.array([9.0, 3.0]), np.array([np.nan, 1.0]), nothing, nothing, ()
    )
    # Of a label without evidence what holds of all is known.
    expected = [3 * logit(0.2) + 1.0, 2 * logit(0.9) + 0.5]
    assert score_log_odds(scores, labels, told) == pytest.approx(expected, abs=1e-4)


def test_a_tag_that_the_model_gives_is_not_called_not_predicted(monkeypatch):
    """Calibrated on captions, which seldom name it, a high score can mean a low probability."""
    index = index_of(np.zeros((3, 4), np.float16), [(0, CAT, GENERATED), (1, DOG, GENERATED)])
    columns = index.columns()
    columns["photo_score"] = [0.96, 0.02]
    monkeypatch.setattr(type(index), "columns", lambda self: columns)
    monkeypatch.setattr(OutOfFold, "kinds", lambda self, files: [])
    monkeypatch.setattr(evidence, "score_log_odds", lambda *_: np.array([-2.0, -2.0]))
    bundle = Bundle.open(embedded_bundle())
    monkeypatch.setattr(evidence, "thresholds_of", lambda _: np.full(max(CAT, DOG) + 1, 0.5))
    against = OutOfFold(index).estimate(bundle, ()).against
    assert [evidence.reason(int(bits)) for bits in against] == ["improbable", "not-predicted"]
