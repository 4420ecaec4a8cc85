"""The regions of many shards: each found again, and few files open at a time."""

import numpy as np
import pytest

from ramctl.data_engine import region_store
from ramctl.data_engine.region_store import SHARD_INPUTS, RegionIndex, ShardWriter, WorkFolder
from ramctl.records.record import Record
from tests.support import n_open_files

N, MOST = 12, 3


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Twelve shards of two inputs; the second one of each has a region of label 7."""
    work = WorkFolder(tmp_path_factory.mktemp("work"))
    for number in range(N):
        writer = ShardWriter()
        for place in range(2):
            writer.inputs.append(Record({"image": f"{number}-{place}.jpg"}))
            writer.photos.append(np.full(4, number, np.float16))
            writer.features.append(np.full(4, 10 * number + place, np.float16))
            writer.regions.append((place, 0, 7 * place, 1, (0, 0, 1, 1), number / N, 0.5))
        writer.save(work.shard(number).folder, "stamp")
    work.complete(N, 2 * N)
    return work


def test_however_many_shards_there_are_few_of_their_files_are_open(work, monkeypatch):
    monkeypatch.setattr(region_store, "MAX_MAPS", MOST)
    before = n_open_files()
    index = RegionIndex(work.shards())
    assert index.counts() == {0: N, 7: N}
    rows = index.rows(7)
    for _ in range(2):
        assert index.features(rows)[:, 0].tolist() == [10 * number + 1 for number in range(N)]
        assert index.regions(rows)["score"].tolist() == pytest.approx(np.arange(N) / N)
        assert index.columns()["label"].tolist() == [0, 7] * N
        for number in range(N):
            first, regions = index.at_input(number * SHARD_INPUTS + 1)
            assert (first, regions["label"].tolist()) == (2 * number + 1, [7])
    assert [float(shard.photos[0, 0]) for shard in index.shards] == list(range(N))
    assert n_open_files() <= before + MOST + 1  # `regions` is of one more


def test_what_was_read_last_is_not_opened_again(work, monkeypatch):
    index = RegionIndex(work.shards())
    index.features(index.rows(0))
    monkeypatch.setattr(np, "load", lambda *a, **k: pytest.fail("opened again"))
    assert len(index.features(index.rows(7))) == N
