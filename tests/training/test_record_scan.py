"""One pass over all records: the same for any number of processes and pieces."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from ramctl.records import jsonl
from ramctl.records.jsonl import dumps
from ramctl.training.data import record_scan
from ramctl.training.data.record_file import Source
from ramctl.training.data.record_scan import scan_records
from tests.training.conftest import training_records, write_records

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


def test_pieces_read_by_several_processes_are_the_pass_itself(source, tmp_path, monkeypatch):
    monkeypatch.setattr(record_scan, "PIECE_BYTES", 1 << 30)
    monkeypatch.setattr(jsonl, "MAX_LINE", 8000)
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
            sources, rejects.append, "train", **OPTIONS, with_shards=True, jobs=jobs
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
    rejects = []
    scan_records([Source.of(str(path), None)], rejects.append, "train", **OPTIONS)
    (reject,) = rejects
    assert reject.place == f"{path}:2" and digits in dumps(reject.to_json())
