"""What becomes of a record by the decisions on its regions."""

import numpy as np
import pytest

from ramctl.data_engine import tags as tags_module
from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.data_engine.removal import Decisions, Remover
from ramctl.data_engine.tags import implied_ids
from ramctl.records.labels import Label, Labels
from ramctl.records.record import Record

PEOPLE = Labels([
    Label("boy", parents=("child", "person")), Label("child", parents=("person",)),
    Label("person"), Label("sky"),
])  # fmt: skip


@pytest.fixture
def store():
    """Two inputs with a region for each of four tags."""
    store = RegionStore()
    for _ in range(2):
        regions = np.zeros(4, REGION)
        regions["place"], regions["log_odds"] = range(4), [0, 1, 2, 3]
        store.add(Record({}), regions, np.ones((4, 2), np.float16))
    return store


@pytest.mark.parametrize(
    ("lost", "stays"),
    [
        (["person", "sky"], ["boy", "child", "person"]),
        (["child", "person"], ["boy", "child", "person", "sky"]),
        (["boy", "person"], ["child", "person", "sky"]),  # by the child
        (["boy", "child", "person"], ["sky"]),
    ],
)
def test_what_other_tags_imply_stays_beside_them(lost, stays, store):
    reasons = np.array(["outlier" if tag in lost else "" for tag in PEOPLE.tags] * 2)
    remover = Remover(store, PEOPLE, Decisions(reasons, np.full(8, np.nan)))
    cleaned = remover(Record({"tags": PEOPLE.tags}, key="0"))
    assert cleaned["tags"] == stays
    assert {entry["tag"] for entry in cleaned.get("removed", [])} == set(PEOPLE.tags) - set(stays)


def test_labels_without_parents_have_those_of_the_embedded_model(monkeypatch):
    built = Labels.from_tags(["boy", "person"])  # as `train` builds them of tags
    monkeypatch.setattr(tags_module, "known_labels", lambda: PEOPLE)
    assert implied_ids(["boy"], built) == {1}
    assert implied_ids(["person", "unheard of"], built) == set()


def test_a_record_loses_its_tags_with_reasons_and_keeps_earlier_ones(store):
    store.regions["is_human"][5] = True
    reasons = np.array([""] * 5 + ["outlier", "outlier", ""])
    remover = Remover(store, Labels(), Decisions(reasons, np.full(8, 0.33336)))
    tags = ["horse", "sky", "tree", "man"]
    fields = {
        "tags": tags, "sources": {tag: ["parsed"] for tag in tags}, "removed": [{"tag": "old"}],
    }  # fmt: skip
    cleaned = remover(Record(fields, key="1"))
    assert cleaned["tags"] == list(cleaned["sources"]) == ["horse", "sky", "man"]
    assert cleaned["removed"] == [
        {"tag": "old"},
        {"tag": "tree", "reason": "outlier", "box": [0.0] * 4, "score": 0.8808,
         "distance": 0.3334},
    ]  # fmt: skip
    assert remover.reasons == {"outlier": 1}
    assert "removed" not in remover(Record({"tags": tags}, key="0"))
