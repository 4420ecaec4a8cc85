"""What a stopped run keeps, what stays in memory, and strings that a label system has twice."""

import json
import signal
import weakref
from dataclasses import replace

import pytest

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.region_detectors import RegionFinder, by_attention, detect
from ramctl.data_engine.region_store import SHARD_INPUTS, WorkFolder
from ramctl.errors import Interrupted
from ramctl.labels import LabelSystem
from ramctl.records.record import Record
from tests.data_engine.conftest import DATA
from tests.support import lines


@pytest.fixture
def finder(engine_bundle):
    baseline = Baseline.load(str(engine_bundle), BaselineOptions())
    return RegionFinder(baseline, by_attention, ("object", "scene"))


def record(number: int, tags: list[str]) -> Record:
    photos = sorted((DATA / "photos").glob("*.jpg"))
    fields = {"image": photos[number % len(photos)].name, "tags": tags, "number": number}
    return Record(fields, "in.jsonl", number + 1, DATA / "photos", stamp=str(number))


def test_only_whole_shards_of_a_stopped_run_are_kept(finder, tmp_path, monkeypatch):
    monkeypatch.setattr("ramctl.data_engine.region_store.SHARD_INPUTS", 10)
    records = [record(i, ["horse", "sky", "red"]) for i in range(20)]
    work = WorkFolder(tmp_path)
    work.start({}, "mini")
    n_done = []

    def stop_after_15(n: int) -> None:
        n_done.append(n)
        if sum(n_done) > 15:
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        detect(work, iter(records), finder, tick=stop_after_15)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["00000"]
    n_done.clear()
    detect(work, iter(records), finder, tick=n_done.append)
    assert n_done[0] == 10  # at once
    numbers = [item.fields["number"] for item in work.inputs(work.shards())]
    assert numbers == list(range(20))


def test_time_that_is_up_is_said_in_the_exit_code_and_in_the_statistics(
    clean, photo_records, tmp_path
):
    (tmp_path / "in.jsonl").write_bytes(lines(photo_records))
    stats = ["--stats", "stats.json", "--resume"]
    for options in (["-o", "out.jsonl"], ["--work", "work", "--stage", "detect"]):
        done = clean("in.jsonl", *options, *stats, "--max-time", "0s", code=4)
        assert b"--max-time is over" in done.stderr
        assert json.loads((tmp_path / "stats.json").read_text())["time_is_up"] is True
    assert not (tmp_path / "out.jsonl").exists()
    clean("in.jsonl", "-o", "out.jsonl", "--resume")


class NthLook:
    """A time that has come when a clock is compared with it once more than so many times."""

    def __init__(self, n_looks: int) -> None:
        self.left = n_looks

    def __le__(self, now: float) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("n_done", [0, 3])
def test_a_run_that_is_out_of_time_while_it_writes_keeps_its_work_and_goes_on(
    n_done, clean, photo_records, tmp_path, monkeypatch
):
    (tmp_path / "in.jsonl").write_bytes(lines(photo_records))
    words = ["in.jsonl", "--threshold", 1, "--min-regions", 1]
    whole = clean(*words).stdout
    with monkeypatch.context() as patch:
        patch.setattr("ramctl.records.stream.deadline", lambda max_time: NthLook(n_done))
        done = clean(*words, "-o", "out.jsonl", "--max-time", "1h", code=4)
    assert f"{n_done} out" in done.messages
    assert (tmp_path / "out.jsonl.work" / "shards" / "00000").is_dir()
    clean(*words, "-o", "out.jsonl", "--resume")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert not (tmp_path / "out.jsonl.work").exists()


def test_no_more_than_a_shard_of_a_long_stream_is_in_memory(finder, tmp_path):
    alive: weakref.WeakSet[Record] = weakref.WeakSet()
    most = 0

    def stream():
        nonlocal most
        for number in range(3 * SHARD_INPUTS):
            item = Tracked(record(number, ["no such label"]))
            alive.add(item)
            most = max(most, len(alive))
            yield item

    work = WorkFolder(tmp_path)
    work.start({}, "mini")
    detect(work, stream(), finder)
    # The next shard is read while the last one's list is still held.
    assert most <= 2 * SHARD_INPUTS
    numbers = [item.fields["number"] for item in work.inputs(work.shards())]
    assert numbers == list(range(3 * SHARD_INPUTS))


class Tracked(Record):
    """A record that can be referred to weakly."""

    __slots__ = ("__weakref__",)

    def __init__(self, item: Record) -> None:
        super().__init__(item.fields, item.source, item.line, item.base, stamp=item.stamp)

    __hash__ = object.__hash__


DOUBLED = {"train": "horse", "sky": "field"}  # of one the first label scores more, of one the last


@pytest.fixture(scope="module")
def doubled_bundle(engine_bundle, tmp_path_factory):
    """The same model with strings that are two labels each, as some of a converted bundle are."""
    path = tmp_path_factory.mktemp("doubled") / "bundle"
    bundle = Bundle.open(engine_bundle)
    labels = [replace(label, tag=DOUBLED.get(label.tag, label.tag)) for label in bundle.labels]
    with BundleWriter(path) as writer:
        for file in engine_bundle.iterdir():
            if file.name not in ("bundle.json", "labels.jsonl"):
                (writer.path / file.name).write_bytes(file.read_bytes())
        LabelSystem(labels).write(writer.path / "labels.jsonl")
        writer.meta = {name: value for name, value in bundle.meta.items() if name != "files"}
    return path


def test_a_doubled_string_scores_the_maximum_over_its_ids(
    command, doubled_bundle, engine_bundle, photo_records
):
    rows = [{**row, "tags": ["horse", "train", "field", "sky"]} for row in photo_records]
    rule = ["--threshold", 1]
    by_id = command("clean", "--model", engine_bundle, *rule, stdin=lines(rows)).rows
    apart = [{e["tag"]: e["score"] for e in row["removed"]} for row in by_id]
    rows = [{**row, "tags": ["horse", "field"]} for row in photo_records]
    joined = command("clean", "--model", doubled_bundle, *rule, stdin=lines(rows))
    for scores, row in zip(apart, joined.rows, strict=True):
        joint = {entry["tag"]: entry["score"] for entry in row["removed"]}
        assert scores["horse"] > scores["train"] and scores["field"] < scores["sky"]
        assert joint == {"horse": scores["horse"], "field": scores["sky"]}
    generated = command(
        "generate", "--model", doubled_bundle, "--captions", 0, "--threshold", 0, stdin=lines(rows)
    )
    for row in generated.rows:
        assert row["tags"].count("horse") == row["tags"].count("field") == 1
