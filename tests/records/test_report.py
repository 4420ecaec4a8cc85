"""What a run says and writes besides its records: rejects, statistics, when it has to stop."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.files import write_atomic
from ramctl.records.record import Record, Reject
from ramctl.records.report import Rejects, Report


@pytest.fixture
def reject() -> Reject:
    problem = RecordProblem("tags is not a list", code="bad_field")
    return Reject.of(Record({"tags": 3}, "in.jsonl", 7), problem, "test")


def test_a_reject_keeps_the_record_its_place_and_the_reason(reject):
    assert reject.to_json() == {
        "source": "in.jsonl", "line": 7, "stage": "test", "code": "bad_field",
        "message": "tags is not a list", "record": {"tags": 3},
    }  # fmt: skip


def test_strict_ends_the_run_after_the_reject_was_written(reject, tmp_path):
    rejects = Rejects(Report("test", quiet=True), str(tmp_path / "rejects.jsonl"), strict=True)
    with rejects, pytest.raises(RunProblem, match=r"in\.jsonl:7: tags is not a list \(--strict\)"):
        rejects.add(reject)
    assert (tmp_path / "rejects.jsonl").read_bytes().count(b"\n") == 1


def test_the_end_of_a_run_writes_the_statistics_and_says_the_counts(tmp_path, capsys):
    report = Report("test", n_in=3, n_out=2, unit="photos")
    report.finish(tmp_path / "stats.json")
    stats = json.loads((tmp_path / "stats.json").read_bytes())
    assert (stats["in"], stats["out"], stats["unit"]) == (3, 2, "photos")
    assert "3 in, 2 out, 0 rejected" in capsys.readouterr().err


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, b"content")
    reader.join()
    assert read == [b"content"] and not pipe.is_file()


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_standard_output_is_written_to_where_it_is_a_file(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        write_atomic(Path(f"/dev/fd/{file.fileno()}"), b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize(("n_out", "rate"), [(0, "0.0"), (30_000, "3.0"), (300_000, "30")])
def test_the_summary_tells_a_low_rate_with_a_decimal(n_out, rate):
    report = Report("test", n_out=n_out, started=time.monotonic() - 10_000)
    assert report.summary().endswith(f" s, {rate} records/s (cpu)")
