"""What removes a tag, and what becomes of the record: rules and removals on made-up regions."""

from types import SimpleNamespace

import numpy as np
import pytest

from ramctl.data_engine import tags as tags_module
from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.data_engine.removal import (
    IMPROBABLE,
    NOT_PREDICTED,
    OUTLIER,
    Decisions,
    Remover,
    Rules,
    decide,
)
from ramctl.data_engine.tags import implied_ids, source_bits
from ramctl.labels import Label, Labels
from ramctl.records.record import Record


def store_of(scores, sources=(), features=None, labels=0):
    """A store with a record whose tags have regions of these scores, by default of one caption."""
    store, regions = RegionStore(), np.zeros(len(scores), REGION)
    regions["place"], regions["score"], regions["label"] = range(len(scores)), scores, labels
    regions["sources"] = source_bits(["parsed"])
    for place, names in dict(sources).items():
        regions["sources"][place] = source_bits(names)
    vectors = np.eye(len(scores), 4) if features is None else np.array(features)
    record = Record({"image": "a.jpg", "tags": [f"tag {n}" for n in range(len(scores))]})
    store.add(record, regions, vectors.astype(np.float16), np.ones(4, np.float16))
    return store


def reasons(store, right=1.0, min_probability=0.2, **rules) -> list[int]:
    probability = np.broadcast_to(np.float32(right), len(store.regions))
    return decide(store, Rules(min_probability, **rules), probability).reasons.tolist()


def test_a_region_keeps_its_tag_only_above_the_threshold():
    found = reasons(store_of([0.4, 0.5, 0.6]), thresholds=(0.5,))
    assert found == [NOT_PREDICTED, NOT_PREDICTED, 0]


def test_outliers_are_those_of_each_label_and_have_their_own_reason():
    features = [[1, 0], [1, 0.01], [1, -0.01], [0, 1]] * 2
    store = store_of([0.9, 0.1, 0.9, 0.1] * 2, features=features, labels=[0] * 4 + [1] * 4)
    found = reasons(store, outliers=0.25, thresholds=(0.5, 0.0))
    assert found == [0, NOT_PREDICTED, 0, OUTLIER | NOT_PREDICTED, 0, 0, 0, OUTLIER]


def test_tags_of_persons_stay():
    store = store_of([0.1] * 3, sources={1: ["human", "parsed"], 2: ["generated-tag"]})
    assert reasons(store, 0.1, thresholds=(0.5,)) == [IMPROBABLE | NOT_PREDICTED, 0, 6]


def test_what_one_caption_names_goes_where_it_is_improbable_even_from_a_tag_s_best_photo():
    right = [0.1, 0.1, 0.3, 0.1, 0.1]
    store = store_of([0.1] * 5, sources={0: ["generated-tag"], 3: ["parsed", "human"]})
    assert reasons(store, right) == [IMPROBABLE, IMPROBABLE, 0, 0, IMPROBABLE]
    assert reasons(store_of([0.1]), 0.1) == [IMPROBABLE]
    assert reasons(store, right, min_probability=0) == [0] * 5


def test_an_added_tag_keeps_its_likeliest_photo_that_it_can_be_learnt():
    store = store_of([0.1] * 4, sources={place: ["generated-tag"] for place in range(4)})
    right = [0.02, 0.15, 0.01, 0.15]
    assert np.flatnonzero(reasons(store, right)).tolist() == [0, 2, 3]
    # A rule that was asked for does what it says.
    assert np.flatnonzero(reasons(store, right, thresholds=(0.5,))).tolist() == [0, 1, 2, 3]


PEOPLE = Labels([
    Label("boy", parents=("child", "person")), Label("child", parents=("person",)),
    Label("person"), Label("sky"),
])  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "stays"),
    [
        (["person", "sky"], ["boy", "child", "person"]),
        (["child", "person"], ["boy", "child", "person", "sky"]),
        (["boy", "person"], ["child", "person", "sky"]),  # by the child
        (["boy", "child", "person"], ["sky"]),
    ],
)
def test_what_other_tags_imply_stays_beside_them(lost, stays):
    tags = ["boy", "child", "person", "sky"]
    against = np.array([IMPROBABLE * (tag in lost) for tag in tags], np.uint8)
    decisions = Decisions(against, np.zeros(4, np.float32), np.full(4, np.nan, np.float32))
    remover = Remover(store_of([0.5] * 4), PEOPLE, decisions)
    cleaned = remover(Record({"image": "a.jpg", "tags": list(tags)}, key="0"))
    assert cleaned["tags"] == stays
    assert {entry["tag"] for entry in cleaned.get("removed", [])} == set(tags) - set(stays)


def test_labels_without_parents_have_those_of_the_embedded_model(monkeypatch):
    built = Labels.from_tags(["boy", "person"])  # as `train` builds them of tags
    monkeypatch.setattr(tags_module, "known_labels", lambda: PEOPLE)
    assert implied_ids(["boy"], built) == {1}
    assert implied_ids(["person", "unheard of"], built) == set()


def test_a_record_loses_its_tags_with_reasons_and_keeps_earlier_ones():
    regions = np.zeros(2, REGION)
    regions["place"], regions["score"] = [0, 2], [0.75, 0.123456]
    store = SimpleNamespace(
        regions=np.tile(regions, 3), rows_of=lambda number: slice(2 * number, 2 * number + 2)
    )
    numbers = np.full(6, 0.5, np.float32), np.full(6, 0.33335, np.float32)
    against = np.array([0, OUTLIER, 0, OUTLIER | NOT_PREDICTED, OUTLIER, 0], np.uint8)
    remover = Remover(store, Labels(), Decisions(against, *numbers))
    fields = {
        "tags": ["horse", "sky", "tree"],
        "sources": {"horse": ["parsed"], "sky": ["parsed"], "tree": ["parsed", "generated-tag"]},
        "removed": [{"tag": "old"}],
    }
    cleaned = remover(Record(fields, key="1"))
    assert cleaned["tags"] == list(cleaned["sources"]) == ["horse", "sky"]
    assert [entry["tag"] for entry in cleaned["removed"]] == ["old", "tree"]
    assert cleaned["removed"][1] == {
        "tag": "tree", "reason": "outlier+not-predicted", "box": [0.0] * 4, "score": 0.1235,
        "distance": pytest.approx(0.3334, abs=1.1e-4), "chance": 0.5,
    }  # fmt: skip
    assert remover.reasons == {"outlier+not-predicted": 1}
    assert remover.before == {"tags": 3, "parsed": 3, "generated-tag": 1}
    assert remover.after == {"tags": 2, "parsed": 2}
    assert remover(Record({"tags": ["a", "b", "c"]}, key="2"))["tags"] == ["b", "c"]
    against[1] = 0
    assert "removed" not in remover(Record({"tags": ["a", "b", "c"]}, key="0"))
