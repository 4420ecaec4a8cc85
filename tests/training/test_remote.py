"""Training from a store, and checkpoints in one: the same weights as with files beside it."""

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from ramctl.photos import shard_cache
from ramctl.records import remote
from ramctl.records.signals import StopRequest
from ramctl.training.checkpoint import is_intact
from tests.remote_store import CountedFileSystem, write_tar
from tests.training.conftest import DATA, read_rows, settings, training_records, write_records
from tests.training.test_train_command import assert_same_weights, start

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
    monkeypatch.setattr("ramctl.photos.shard_cache._OPEN_COPIES", 1)  # as of many more shards
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


@pytest.mark.slow
def test_a_killed_run_from_a_store_resumes_to_the_same_weights(command, store, far, tmp_path):
    arguments = [
        *far, "--steps", 12, *STEP, "-j", 1,
        *settings("training.shuffled_shards=2", "model.tag_decoder.dropout=0.1"),
    ]  # fmt: skip
    command("train", *arguments, "--out", "whole")
    process = start([*arguments, "--out", "killed"], tmp_path / "killed.work")
    process.kill()
    process.communicate()
    done = command("train", "--out", "killed", "--resume", "--threads", 1)
    assert "continuing after step" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")


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


PLACES = ["counted://runs/one", "runs/one"]


@pytest.fixture(params=PLACES, ids=["url", "folder"])
def place(request, store, tmp_path) -> tuple[str, Path]:
    """Where checkpoints are copied to: as it is named, and as a folder."""
    if request.param == PLACES[1]:
        return request.param, tmp_path / request.param
    return request.param, store.folder / "runs" / "one"


def stored(folder: Path, pattern: str = "step-*") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


@pytest.mark.slow
def test_a_run_goes_on_from_its_stored_checkpoints_alone(command, store, far, place, tmp_path):
    url, folder = place
    arguments = [*far, *STEP, "--set", "model.tag_decoder.dropout=0.1", "--val-every", 2]
    arguments += ["--val", far[0], "--keep", "best", "--steps", 8]
    command("train", *arguments, "--out", "whole")
    stop_after(5, command, [*arguments, "--out", "x", "--checkpoints", url])
    assert [name[:13] for name in stored(folder)] == ["step-00000004", "step-00000005"]
    assert all(is_intact(path) for path in folder.glob("step-*"))
    assert not stored(folder, "*.part")
    shutil.rmtree(tmp_path / "x.work")
    refused = command("train", *arguments, "--out", "y", "--checkpoints", url, code=2)
    assert f"{url} holds an unfinished run" in refused.messages
    done = command("train", "--out", "y", "--checkpoints", url, "--resume", "--keep", "best")
    assert "continuing after step 5 of 8" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "y")
    assert [name[:13] for name in stored(folder)] == ["step-00000005", "step-00000008"]
    assert len(stored(folder, "best-*")) == 1


def stop_after(step: int, command, arguments: list[object]):
    """Train, and be asked to stop in that step."""
    calls = []

    def is_due(self) -> bool:
        calls.append(1)
        return len(calls) > step  # and once while records are read

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "is_due", property(is_due))
        return command("train", *arguments, code=4)


def test_damaged_copies_are_passed_over(command, store, far, tmp_path):
    url, folder = PLACES[0], store.folder / "runs" / "one"
    arguments = [*far, *STEP, "--steps", 6, "--checkpoints", url]
    command("train", *arguments, "--out", "whole")
    _, newest = sorted(folder.glob("step-*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    resumed = ["train", "--out", "x", "--resume", "--checkpoints", url]
    done = command(*resumed)
    named = f"{url}/{newest.name}: content differs from the hash in its name: not used"
    assert named in done.messages and "continuing after step 5 of 6" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
    for path in folder.glob("step-*"):
        path.write_bytes(b"")
    done = command(*resumed, code=1)
    assert f"{url}: every checkpoint is damaged; start with --restart" in done.messages
    command("train", *arguments, "--out", "x", "--restart")
    assert_same_weights(tmp_path / "whole", tmp_path / "x")


def test_changed_records_and_another_run_are_refused(command, store, far, tmp_path):
    url = PLACES[0]
    arguments = [*far, *STEP, "--steps", 4, "--checkpoints", url]
    stop_after(2, command, [*arguments, "--out", "x"])
    stop_after(2, command, [*far, *STEP, "--steps", 5, "--out", "other"])
    other = command("train", "--out", "other", "--resume", "--checkpoints", url, code=2)
    assert f"{url} holds another run than other.work" in other.messages
    shutil.rmtree(tmp_path / "x.work")
    records = store.bucket / "parsed.jsonl"
    records.write_text(records.read_text() + records.read_text().splitlines()[0] + "\n")
    done = command("train", "--out", "x", "--resume", "--checkpoints", url, code=1)
    assert "the records changed since the run began" in done.messages
    assert len(stored(store.folder / "runs" / "one")) == 2


def test_failed_copies_are_told_and_do_not_stop_training(command, store, far, tmp_path):
    url, folder = PLACES[0], store.folder / "runs" / "one"
    arguments = [*far, *STEP, "--steps", 4, "-q", "--val", far[0], "--val-every", 3]
    arguments += ["--keep", "best"]
    assert command("train", *arguments, "--out", "whole").messages == ""
    put, failures = CountedFileSystem.put_file, []

    def failing(self, source, target, **options):
        if target.endswith(".pt.part") and not failures.append(target) and len(failures) != 2:
            raise ConnectionResetError("connection reset")
        return put(self, source, target, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CountedFileSystem, "put_file", failing)
        patch.setattr(remote, "WAITS_S", ())
        done = command("train", *arguments, "--out", "x", "--checkpoints", url)
    lines = done.messages.splitlines()
    assert [line.partition(" is not")[0].split("-")[1] for line in lines] == [
        "00000001", "00000003", "00000004"
    ]  # fmt: skip
    assert all("training goes on" in line and "connection reset" in line for line in lines)
    assert [name[:13] for name in stored(folder)] == ["step-00000002"]
    # Stored first, as no checkpoint may be newer than the best model.
    assert [name[:13] for name in stored(folder, "best-*")] == ["best-00000003"]
    assert_same_weights(tmp_path / "whole", tmp_path / "x")


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_copies_leaves_nothing_that_is_taken_for_whole(
    command, store, far, tmp_path, ramctl
):
    url, folder = PLACES[0], store.folder / "runs" / "one"
    arguments = [*far, *STEP, "--steps", 30, "--set", "model.tag_decoder.dropout=0.1"]
    command("train", *arguments, "--out", "whole")
    arguments += ["--checkpoints", url]
    (store.folder / "slow").touch()
    process = ramctl.start("train", *arguments, "--out", "x", stderr=subprocess.DEVNULL)
    while process.poll() is None and not (
        stored(folder, "step-*.pt") and stored(folder, "step-*.part")
    ):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (store.folder / "slow").unlink()
    assert stored(folder, "step-*.part"), "it was not killed while it copied"
    assert all(is_intact(path) for path in folder.glob("step-*.pt"))
    shutil.rmtree(tmp_path / "x.work")
    done = command("train", "--out", "x", "--resume", "--checkpoints", url)
    assert "continuing after step" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "x")
    assert len(stored(folder)) == 2 and not stored(folder, "*.part")
