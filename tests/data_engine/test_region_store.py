"""Records and regions on disk: each comes back, in order, by input and by label."""

import numpy as np
import pytest

from ramctl.data_engine.region_store import REGION, RegionStore
from ramctl.records.record import Record, Reject

NOTHING = np.zeros(0, REGION), np.zeros((0, 0), np.float16), np.zeros(0, np.float16)


@pytest.fixture(scope="module")
def store():
    """Twelve inputs: one in three is a reject, the others have as many regions as their number."""
    store = RegionStore()
    for number in range(12):
        if number % 3 == 0:
            store.add(Reject("x", number, "clean", "bad_json", "?", raw="{"), *NOTHING)
            continue
        regions = np.zeros(number, REGION)
        regions["place"], regions["label"] = range(number), 7 * (np.arange(number) % 2)
        features = np.full((number, 4), number, np.float16)
        store.add(Record({"image": f"{number}.jpg"}, line=number), regions, features, features[0])
    return store


def test_inputs_and_their_regions_come_back_in_order(store):
    for _ in range(2):
        items = list(store.inputs())
        assert [item.line for item in items] == list(range(12))
        assert [isinstance(item, Reject) for item in items] == [n % 3 == 0 for n in range(12)]
    for number in range(12):
        rows = store.rows_of(number)
        assert store.regions["place"][rows].tolist() == list(range(number if number % 3 else 0))
        assert (store.features[rows] == number).all()
    assert store.photos[:, 0].tolist() == [n for n in range(12) if n % 3]


def test_regions_are_found_by_label(store):
    both = store.rows_by_label()
    assert [set(store.regions["label"][rows].tolist()) for rows in both] == [{0}, {7}]
    assert sorted(np.concatenate(both).tolist()) == list(range(len(store.regions)))
    assert all((np.diff(rows) > 0).all() for rows in both)


def test_without_regions_all_is_empty():
    store = RegionStore()
    store.add(Record({"image": "a.jpg"}), *NOTHING)
    assert len(store.regions) == len(store.features) == len(store.photos) == 0
    assert store.rows_by_label() == [] and store.rows_of(0) == slice(0, 0)
