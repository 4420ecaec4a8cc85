"""How likely a tag is right: by the model's score, by who gave it, by predictions out of fold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import Ridge

from ramctl.checkpoints.bundle import Bundle, embedded_bundle, known_labels
from ramctl.data_engine import heads, probabilities
from ramctl.data_engine.heads import FOLDS, RIDGE, fold_of, out_of_fold_log_odds
from ramctl.data_engine.probabilities import (
    deviations,
    label_rates,
    score_log_odds,
    tag_log_odds,
)
from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.data_engine.tags import TWICE, is_mentioned, is_of_caption, source_bits
from ramctl.inference.calibration import Calibration
from ramctl.records.record import Record

CAT, DOG, NOISE = 3, 5, 8
N = 300
RECORDS = [Record({"image": f"{number:04d}.jpg"}) for number in range(N)]
PARSED, GENERATED = source_bits(["parsed"]), source_bits(["generated-tag"])


def store_of(features, tags, scores=0.5) -> RegionStore:
    """Photos with features (N, F) and their tags, `(photo, label, sources)` in order of photos."""
    store = RegionStore()
    for number, (record, feature) in enumerate(zip(RECORDS, features, strict=False)):
        own = [(label, sources) for photo, label, sources in tags if photo == number]
        regions = np.zeros(len(own), REGION)
        for region, (label, sources) in zip(regions, own, strict=True):
            region["label"], region["sources"], region["photo_score"] = label, sources, scores
        store.add(record, regions, np.ones((len(own), 1), np.float16), feature)
    return store


@pytest.fixture(scope="module")
def photos():
    """Cats and dogs that features tell apart, wrong cats from a model, and a label at random."""
    random = np.random.default_rng(0)
    is_cat = random.random(N) < 0.4
    features = random.normal(size=(N, 6)).astype(np.float16)
    features[:, 0] += 4 * is_cat
    tags = []
    for photo in range(N):
        if photo == 7:
            continue  # without regions
        tags.append((photo, CAT if is_cat[photo] else DOG, PARSED))
        if not is_cat[photo] and photo % 3 == 0:
            tags.append((photo, CAT, GENERATED))
        if random.random() < 0.3:
            tags.append((photo, NOISE, PARSED))
    return features, is_cat, tags


def test_predictions_are_those_of_ridge_regression_on_the_other_folds(photos, monkeypatch):
    monkeypatch.setattr(heads, "AT_ONCE", 64)
    features, is_cat, tags = photos
    found = out_of_fold_log_odds(store_of(features, tags))
    # Of the name alone, whatever the folder.
    fold = np.array([fold_of(Record({"image": f"y/{r.fields['image']}"})) for r in RECORDS])
    assert set(fold) == set(range(FOLDS))
    known = np.arange(N) != 7
    expected = np.zeros(N)
    for own in range(FOLDS):
        train = known & (fold != own)
        spread = features[train].astype(float).std(0)
        ridge = Ridge(alpha=RIDGE * train.sum())
        ridge.fit(features[train] / spread, is_cat[train])
        expected[fold == own] = ridge.predict(features[fold == own] / spread)
    base = is_cat[known].mean()
    for row, (photo, label, _) in enumerate(tags):
        if label == CAT:
            right = logit(np.clip(expected[photo], base, 0.99))
            assert found[row] == pytest.approx(right, abs=1e-3)
        elif label == NOISE:
            assert np.isnan(found[row])  # features do not tell it


def test_heads_count_for_a_model_s_tags_where_photos_are_many(photos, monkeypatch):
    features, _, tags = photos
    store, bundle = store_of(features, tags), Bundle.open(embedded_bundle())
    alone = probabilities.probabilities(store, bundle)
    monkeypatch.setattr(probabilities, "MIN_PHOTOS", N)
    both = probabilities.probabilities(store, bundle)
    sources, photo = store.regions["sources"], store.regions["input"]
    named = sources == PARSED
    np.testing.assert_array_equal(both[named], alone[named])
    assert len(set(alone[~named].tolist())) == 1
    least = features[photo[~named], 0] == features[photo[~named], 0].min()
    assert both[~named][least] < alone[~named][least]
    assert both[~named].std() > 0


def test_without_a_model_s_tags_there_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(probabilities, "MIN_PHOTOS", 1)
    bundle = Bundle.open(embedded_bundle())
    store = store_of(np.ones((3, 4), np.float16), [(1, CAT, PARSED)])
    assert len(probabilities.probabilities(store, bundle)) == 1
    assert len(probabilities.probabilities(store_of([], []), bundle)) == 0


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
    found = tag_log_odds(np.full(6, -6.0), labels, sources, rates)
    named, slope = probabilities.NAMED, probabilities.LIFT_SLOPE
    assert found.tolist() == [named - slope * 4, named, 8, 8, 8, -6]
    assert expit(found[0]) < probabilities.MIN_PROBABILITY
    unknown = tag_log_odds(np.full(6, -6.0), labels, sources, None)
    assert unknown.tolist() == [8, 8, 8, 8, 8, -6]


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
    labels = np.array([CAT] * 30 + [DOG], np.uint32)
    found = deviations(np.array([0.0] * 30 + [31.0]), labels)
    # All: 1 on average. 30 cats at 0 and 5 at that: 5 / 35. A dog at 31 and 5 at 1: 6.
    assert found[[0, 30]].tolist() == pytest.approx([0 - 5 / 35, 31 - 6])


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
