"""What the two rules decide on each tag: the model's, and the paper's by clusters of regions."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge

from ramctl.data_engine import model_rule
from ramctl.data_engine.model_rule import (
    RIDGE,
    improbable_tags,
    out_of_fold_log_odds,
    probabilities,
    tag_log_odds,
)
from ramctl.data_engine.paper_rule import cluster_distances, farthest, unlike_tags
from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.data_engine.tags import FOLDS, fold_of, requested_tags
from ramctl.records.labels import Label, Labels
from ramctl.records.record import Record

CAT, DOG, NOISE = 3, 5, 8
LABELS = Labels(Label(f"label {n}") for n in range(9))
N = 300
NAMES = [f"{number:04d}.jpg" for number in range(N)]
# Whether a person gave a tag, a caption or person named it, one caption named it.
PARSED, GENERATED = (False, True, True), (False, False, False)
HUMAN, TWICE = (True, True, False), (False, True, False)
SOURCES = ["is_human", "is_mentioned", "is_of_caption"]


def regions_of(labels, sources, log_odds=0.0):
    regions = np.zeros(len(labels), REGION)
    regions["label"], regions["log_odds"] = labels, log_odds
    for name, values in zip(SOURCES, zip(*sources, strict=True), strict=False):
        regions[name] = values
    return regions


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


@pytest.fixture
def store(photos):
    features, _, tags = photos
    store = RegionStore()
    for number, name in enumerate(NAMES):
        own = [tag for tag in tags if tag[0] == number]
        regions = regions_of([label for _, label, _ in own], [named for *_, named in own])
        regions["fold"] = fold_of({"image": name})
        store.add(Record({"image": name}), regions, features[[number] * len(own)])
    return store


def test_predictions_are_those_of_ridge_regression_on_the_other_folds(photos, store, monkeypatch):
    monkeypatch.setattr(model_rule, "AT_ONCE", 64)
    features, is_cat, tags = photos
    found = out_of_fold_log_odds(store.regions, store.features)
    fold = np.array([fold_of({"image": f"y/{name}"}) for name in NAMES])  # whatever the folder
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


def test_heads_count_for_a_model_s_tags_where_photos_are_many(photos, store, monkeypatch):
    features, regions = photos[0], store.regions
    alone = probabilities(store, LABELS)
    monkeypatch.setattr(model_rule, "MIN_PHOTOS", N)
    both = probabilities(store, LABELS)
    named = regions["is_mentioned"]
    np.testing.assert_array_equal(both[named], alone[named])
    assert set(alone[~named].tolist()) == {0.5}
    photo = regions["input"][~named]
    least = features[photo, 0] == features[photo, 0].min()
    assert both[~named][least] < 0.5
    assert both[~named].std() > 0


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["parsed", "generated-tag"], PARSED), (["parsed", "human"], HUMAN), (["human"], HUMAN),
        ([], TWICE), (["generated-caption"], GENERATED),
    ],
)  # fmt: skip
def test_who_named_a_tag(sources, expected):
    fields = {"image": "a.jpg", "tags": ["label 1"], "sources": {"label 1": sources}}
    (tag,) = requested_tags(fields, LABELS, ["object"])
    assert tuple(getattr(tag, name) for name in SOURCES) == expected
    fields["caption_tags"] = [["label 1", "label 1"], ["label 1"]]
    (tag,) = requested_tags(fields, LABELS, ["object"])
    assert not tag.is_of_caption  # but of two


def test_a_thing_that_one_caption_names_is_judged_by_how_much_likelier_its_photo_makes_it():
    """Dogs are rarer than cats: the same score speaks less against a dog."""
    rates = np.full(10, np.nan)
    rates[[CAT, DOG]] = -2.0, -6.0
    sources = [PARSED, PARSED, PARSED, TWICE, HUMAN, GENERATED]
    regions = regions_of([CAT, DOG, NOISE, CAT, CAT, CAT], sources, -6.0)
    found = tag_log_odds(regions, rates)
    named, slope = model_rule.NAMED, model_rule.LIFT_SLOPE
    assert found.tolist() == [named - slope * 4, named, 8, 8, 8, -6]
    assert expit(found[0]) < model_rule.MIN_PROBABILITY


@pytest.mark.parametrize(
    ("sources", "log_odds", "kept"),
    [
        ([GENERATED] * 4, [-4, -2, -5, -2], [1]),  # so that it can be learnt
        ([GENERATED] * 4, [0, -2, -5, -2], [0]),
        ([PARSED] * 3, [-9, -9, -9], []),
        ([PARSED, GENERATED], [-9, -5], [1]),
    ],
)
def test_an_added_tag_keeps_its_likeliest_photo(sources, log_odds, kept):
    store = RegionStore()
    n = len(sources)
    store.add(Record({}), regions_of([0] * n, sources, log_odds), np.ones((n, 1), np.float16))
    found = improbable_tags(store, Labels([Label("cat", rate=-2.0)]))
    assert np.flatnonzero(found.reasons == "").tolist() == kept


def blobs(n: int, seed: int = 0) -> np.ndarray:
    """Two tight groups and, in the last tenth, points that belong to neither."""
    random = np.random.default_rng(seed)
    centres = np.eye(8, dtype=np.float32)[[0, 1]]
    points = centres[np.arange(n) % 2] + 0.05 * random.standard_normal((n, 8))
    n_far = n // 10
    points[n - n_far :] = np.eye(8)[5] + 0.3 * random.standard_normal((n_far, 8))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


def test_distances_are_to_the_nearest_centre_that_scikit_learn_finds():
    points, rows = blobs(300), np.arange(0, 300, 2)
    distance = cluster_distances(points, rows, seed=3)  # three clusters
    chosen = points[rows].astype(np.float32)
    means = KMeans(3, n_init=1, random_state=3).fit(chosen)
    np.testing.assert_allclose(distance, means.transform(chosen).min(1), atol=1e-5)


def test_fractions_are_rounded_down_and_ties_are_broken_by_order():
    distance = np.array([1, 3, 3, 2, 3, 0, 0, 0, 0, 0], np.float32)
    assert np.flatnonzero(farthest(distance, 0.29)).tolist() == [2, 4]
    assert not farthest(distance, 0.09).any()
    assert farthest(np.arange(30, dtype=np.float32), 0.1).sum() == 3
    assert np.flatnonzero(farthest(-distance, 0.2)).tolist() == [8, 9]


def test_outliers_are_those_of_each_label_and_only_a_higher_score_is_a_prediction():
    regions = np.zeros(8, REGION)
    regions["label"], regions["log_odds"] = [0] * 4 + [1] * 4, [1, 0, 1, -1] * 2
    features = np.array([[1, 0], [1, 0.01], [1, -0.01], [0, 1]] * 2, np.float16)
    store = RegionStore()
    store.add(Record({}), regions, features)
    found = unlike_tags(store, np.array([0.5, 0.1]), 0.25)
    low, out = "not-predicted", "outlier"
    assert found.reasons.tolist() == ["", low, "", out, "", "", "", out]
    assert np.isfinite(found.distance).all()
    found = unlike_tags(store, np.array([0.5, 0.1]), 0.0)
    assert found.reasons.tolist() == ["", low, "", low, "", "", "", ""]
    assert np.isnan(found.distance).all()  # no clusters where they decide nothing
