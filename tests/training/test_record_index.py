"""The kept pass over all records: the same records, unless a file changed."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from ramctl.records.jsonl import dumps
from ramctl.training.data import record_scan
from ramctl.training.data.record_file import Source
from ramctl.training.data.record_scan import RecordIndex, scan_records
from tests.training.conftest import read_rows, training_records, write_records
from tests.training.test_train_command import assert_same_weights

OPTIONS = {"hold_out": True, "takes_untagged": False}


@pytest.fixture
def source(tmp_path) -> Source:
    rows = [
        {**row, "image": f"{n}-{row['image']}"} for n in range(20) for row in training_records()
    ]
    path = write_records(tmp_path / "in.jsonl", [*rows, {"image": "x.jpg"}])
    with path.open("ab") as stream:
        stream.write(b'{"image": "\\ud800.jpg"}\n{"image":\xff}\nnot json\n')
    for name in {row["image"] for row in rows}:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    return Source.of(str(path), None)


def read(index: RecordIndex, *, is_kept: bool):
    """What an index gives, and its rejects; a scan is an error where it should be kept."""
    rejects = []

    def scan(on_reject):
        assert not is_kept
        return scan_records(index.sources, on_reject, "train", **OPTIONS)

    return index.scanned(scan, rejects.append, keep=True), rejects


def test_a_kept_pass_is_the_pass_itself(source, tmp_path):
    index = RecordIndex(tmp_path / "kept.index", [source], OPTIONS)
    first, rejects = read(index, is_kept=False)
    again, told = read(index, is_kept=True)
    assert len(rejects) == 4 and list(map(asdict, told)) == list(map(asdict, rejects))
    assert len(again.records) == len(first.records) == 160
    assert [asdict(again.records[i]) for i in (0, 77, 159)] == [
        asdict(first.records[i]) for i in (0, 77, 159)
    ]
    assert again.counts == first.counts and again.counts.kinds["horse", "object"]
    assert (again.sha256, again.n_lines) == (first.sha256, first.n_lines)
    np.testing.assert_array_equal(again.training_ids, first.training_ids)
    np.testing.assert_array_equal(again.held_out_ids, first.held_out_ids)


def test_pieces_read_by_several_processes_are_the_pass_itself(source, tmp_path, monkeypatch):
    monkeypatch.setattr(record_scan, "PIECE_BYTES", 1 << 30)
    second = tmp_path / "second.jsonl"
    lines = source.path.read_bytes().splitlines(keepends=True)
    # Blank lines, another end, one longer than several pieces, one that is too long, no end.
    long = json.dumps({"image": "x.jpg", "tags": ["dog"] * 500}).encode() + b"\n"
    odd = [b"\xef\xbb\xbf", lines[0], b"\n\n", lines[1].replace(b"\n", b"\r\n"), long]
    second.write_bytes(b"".join([*odd, b"[" + b" " * 9000 + b"]\n", *lines[2:50]]).strip())
    sources = [source, Source.of(str(second), None)]

    def scan(jobs):
        rejects = []
        found = scan_records(
            sources, rejects.append, "train", **OPTIONS, max_line=8000, with_shards=True, jobs=jobs
        )
        return found, rejects

    whole, told = scan(1)
    assert [reject.code for reject in told].count("too_large") == 1
    for size, jobs in ((100, 1), (997, 3), (4096, 2)):
        monkeypatch.setattr(record_scan, "PIECE_BYTES", size)
        found, rejects = scan(jobs)
        assert list(map(asdict, rejects)) == list(map(asdict, told))
        assert found.records.columns == whole.records.columns
        assert found.counts == whole.counts and found.n_lines == whole.n_lines
        for name in ("training_ids", "held_out_ids", "shards"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        assert found.sha256 == scan(1)[0].sha256


def test_a_reject_with_a_number_of_many_digits_is_kept(tmp_path):
    digits = b"0.12345678901234567890"
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"image": "a", "tags": ["x"]}\n{"image": "b", "mine": ' + digits + b"}\n")
    index = RecordIndex(tmp_path / "kept.index", [Source.of(str(path), None)], OPTIONS)
    for is_kept in (False, True):
        _, (reject,) = read(index, is_kept=is_kept)
        assert reject.place == f"{path}:2" and digits in dumps(reject.to_json())


@pytest.mark.parametrize("change", ["source", "options", "damage"])
def test_what_changed_is_read_anew(source, tmp_path, change):
    path, options = tmp_path / "kept.index", OPTIONS
    read(RecordIndex(path, [source], options), is_kept=False)
    if change == "source":
        with source.path.open("a") as stream:
            stream.write("\n")
    elif change == "options":
        options = {**OPTIONS, "max_line": 100}
    else:
        path.write_bytes(path.read_bytes()[:-100])
    read(RecordIndex(path, [source], options), is_kept=False)
    read(RecordIndex(path, [source], options), is_kept=True)


def test_a_resumed_run_does_not_read_its_records_again(train, parsed, tmp_path, monkeypatch):
    path = write_records(tmp_path / "in.jsonl", [*read_rows(parsed), {"image": "no.jpg"}])
    train(path, "--steps", 4, "--out", "whole", code=3)
    stopped = [path, "--steps", 4, "--out", "again", "--save-every", 1]
    train(*stopped, "--max-time", "0.001s", code=4)
    name = "ramctl.training.job.scan_records"
    monkeypatch.setattr(name, lambda *a, **k: pytest.fail("read again"))
    resumed = train(*stopped, "--resume", code=3)
    assert "1 rejected" in resumed.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "again")
