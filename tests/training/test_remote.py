"""Training from a store: the same weights as with files beside it."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from ramctl.photos import shard_cache
from ramctl.records.signals import StopRequest
from tests.remote_store import CountedFileSystem, write_tar
from tests.training.conftest import DATA, read_rows, settings, training_records, write_records
from tests.training.test_train_command import assert_same_weights

BUCKET = "counted://bucket"
N_SHARDS = 4
ONCE = {f"{number}.tar": 1 for number in range(N_SHARDS)}
STEP = ["--set", "training.batch_size=2", "--save-every", 1]


def photos_in_shards(bucket: Path) -> list[dict]:
    """Records whose photos are two in an archive, which are in the bucket."""
    rows = training_records()
    for number in range(N_SHARDS):
        own = rows[number::N_SHARDS]
        names = [row["image"].split("/")[-1] for row in own]
        photos = {n: (DATA / row["image"]).read_bytes() for n, row in zip(names, own, strict=True)}
        write_tar(bucket / f"{number}.tar", **photos)
        for name, row in zip(names, own, strict=True):
            row["image"] = f"{number}.tar#{name}"
    return rows


@pytest.fixture
def far(store, tiny_options) -> list[object]:
    """What `train` is given for records and photos in the store."""
    write_records(store.bucket / "parsed.jsonl", photos_in_shards(store.bucket))
    return [f"{BUCKET}/parsed.jsonl", *tiny_options[:2], *tiny_options[4:]]


def shards_of(store) -> Counter[str]:
    return Counter(name for name in store.opened() if name.endswith(".tar"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_trains_like_a_folder(command, store, far, parsed, tiny_options, workers):
    arguments = ["--epochs", 2, "--set", "training.batch_size=2", "-j", workers]
    command("train", parsed, "--out", "near", *arguments, *tiny_options)
    command("train", *far, "--out", "far", *arguments)
    assert_same_weights(Path("near"), Path("far"))
    assert shards_of(store) == ONCE


def test_a_cache_of_so_many_shards_as_are_mixed_copies_each_once_an_epoch(
    command, store, far, monkeypatch
):
    sizes = [path.stat().st_size for path in store.bucket.glob("*.tar")]
    limit = sum(sorted(sizes)[-2:])
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", str(limit))
    monkeypatch.setattr("ramctl.photos.shard_cache._MAX_OPEN", 1)  # as of many more shards
    command(
        "train", *far, "--out", "x", "--epochs", 3, "-j", 0,
        *settings("training.batch_size=2", "training.shuffled_shards=2"),
    )  # fmt: skip
    # Those that an epoch ends with need not be copied again in the next one.
    assert max(shards_of(store).values()) <= 3 and sum(shards_of(store).values()) >= 8
    kept = (store.folder.parent / "cache" / "ramctl" / "shards").iterdir()
    assert sum(path.stat().st_size for path in kept) <= limit


@pytest.mark.parametrize("workers", [0, 2])
def test_archives_of_the_next_window_are_copied_while_one_is_read(
    command, store, far, parsed, tiny_options, monkeypatch, workers
):
    asked = []
    ahead = shard_cache.copy_ahead
    monkeypatch.setattr(
        "ramctl.training.data.batches.copy_ahead",
        lambda name, base, mixed: (asked.append(name[:5]), ahead(name, base, mixed)),
    )
    arguments = ["--epochs", 2, *STEP, "-j", workers, "--set", "training.shuffled_shards=1"]
    command("train", *far, "--out", "x", *arguments)
    assert shards_of(store) == ONCE
    if not workers:
        assert len(asked) >= 2 * N_SHARDS and set(asked) == set(shards_of(store))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_outage_stops_the_run_and_rejects_nothing(
    command, store, far, tmp_path, monkeypatch, workers
):
    arguments = [*far, "--epochs", 2, *STEP, "-j", workers, "--set", "training.shuffled_shards=1"]
    command("train", *arguments, "--out", "whole")
    shutil.rmtree(tmp_path / "cache")
    opened = CountedFileSystem._open

    def open_or_fail(self, path, *arguments, **options):
        if path.endswith("3.tar"):
            raise ConnectionResetError("connection reset")
        return opened(self, path, *arguments, **options)

    with monkeypatch.context() as outage:
        outage.setattr(CountedFileSystem, "_open", open_or_fail)
        outage.setattr(shard_cache, "_open", {})
        outage.setattr(shard_cache, "_copies", {})
        failed = command("train", *arguments, "--out", "again", code=1)
    why = "failed 4 times: connection reset"
    assert failed.messages.splitlines()[-1] == f"ramctl train: {BUCKET}/3.tar: {why}"
    assert "rejected" not in failed.messages
    command("train", *arguments, "--out", "again", "--resume")
    assert_same_weights(tmp_path / "whole", tmp_path / "again")


def test_an_archive_that_is_not_there_is_its_photos_reject(command, store, far, tmp_path):
    (store.bucket / "2.tar").unlink()
    command("train", *far, "--out", "x", "--epochs", 1, "--rejects", "no.jsonl", code=3)
    rejects = read_rows("no.jsonl")
    assert [reject["code"] for reject in rejects] == ["missing_image"] * 2
    assert all(reject["record"]["image"].startswith("2.tar#") for reject in rejects)


def test_a_root_at_a_url_and_records_beside(command, store, far, tmp_path, tiny_options):
    shutil.copy(store.bucket / "parsed.jsonl", tmp_path / "near.jsonl")
    for out, arguments in (("one", far), ("two", ["near.jsonl", "--root", BUCKET, *far[1:]])):
        command("train", *arguments, "--out", out, "--steps", 2, "--val", far[0])
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_commands_that_stream_read_a_store(command, store, tiny_bundle, tmp_path):
    rows = photos_in_shards(store.bucket)
    records = write_records(store.bucket / "captions.jsonl", rows)
    url = f"{BUCKET}/captions.jsonl"
    for words in (
        ["parse"], ["generate", "--captions", 0, "--model", tiny_bundle],
        ["tag", "--model", tiny_bundle],
    ):  # fmt: skip
        done, near = (command(*words, place, "-q") for place in (url, records))
        assert done.stdout == near.stdout and len(done.rows) == 8
    (store.bucket / "tags.jsonl").write_bytes(done.stdout)
    command("eval", f"{BUCKET}/tags.jsonl", "--truth", url, "-q")
    tagged = f"{BUCKET}/tags.jsonl"
    refused = command("export", tagged, "--xmp", "--rejects", "no.jsonl", code=3)
    assert "at a URL, has no place for a sidecar" in refused.messages
    assert not list(tmp_path.rglob("*.xmp"))


def stop_after(step: int, command, arguments: list[object]):
    """Train, and be asked to stop in that step."""
    calls = []

    def is_due(self) -> bool:
        calls.append(1)
        return len(calls) > step  # and once while records are read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "is_due", property(is_due))
        return command("train", *arguments, code=4)
