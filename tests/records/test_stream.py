"""The record loop and what a run says and writes besides its records."""

import io
import json
import os
import threading
from itertools import chain
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.files import write_atomic
from ramctl.records.jsonl import read_lines
from ramctl.records.report import NAMED_REJECTS, Report
from ramctl.records.stream import StreamOptions, each, run_stream
from tests.support import read_rows

OF_LOOP = ("fingerprint", "form")


def source_of(*lines: bytes, command="test"):
    return read_lines(io.BytesIO(b"\n".join(lines) + b"\n"), "in.jsonl", Path(), command)


def mark(record):
    if record.fields.get("bad"):
        raise RecordProblem("is bad", code="bad_field")
    return {**record.fields, "seen": True}


def crash_at(value):
    """What is done with records until one has this value, before which the power goes."""

    def crash(record):
        if record.fields.get("a") == value:
            raise OSError("power cut")
        return mark(record)

    return crash


def run(folder, lines, *, do=mark, stage=None, rejects=True, command="test", **options):
    """A run of the loop over lines, into `out` and `rejects`: each is done, or a whole stage."""
    of_loop = {name: options.pop(name) for name in OF_LOOP if name in options}
    if rejects:
        options["rejects"] = str(folder / "rejects")
    settings = StreamOptions(folder / "out", progress=False, **{"batch": 1} | options)
    report, source = Report(command), source_of(*lines, command=command)
    return run_stream(report, source, stage or each(do), settings, **of_loop)


def test_bad_lines_and_bad_records_are_rejected_and_the_rest_is_done(tmp_path, capsys):
    lines = [b'{"a":1}', b"{oops", b"[1]", b'{"bad":1}', b'{"a":"\xff"}', b"", b'{"a":2}']
    stats = tmp_path / "stats.json"
    report = run(tmp_path, lines, stats=stats, batch=2)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [1, 2]
    rejects = read_rows(tmp_path / "rejects")
    assert [(row["line"], row["code"]) for row in rejects] == [
        (2, "bad_json"), (3, "bad_json"), (4, "bad_field"), (5, "bad_utf8"),
    ]  # fmt: skip
    assert rejects[1]["message"] == "bad JSON: not a JSON object"
    assert rejects[2] == {
        "source": "in.jsonl", "line": 4, "stage": "test", "code": "bad_field",
        "message": "is bad", "record": {"bad": 1},
    }  # fmt: skip
    assert (rejects[3]["message"], rejects[3]["raw"]) == (
        "invalid UTF-8 at byte 6", '{"a":"\\xff"}',
    )  # fmt: skip
    assert report.exit_code == 3
    told = json.loads(stats.read_bytes())
    assert (told["in"], told["out"], told["rejected"], told["skipped"]) == (6, 2, 4, 0)
    assert told["rejects"] == {"bad_json": 2, "bad_field": 1, "bad_utf8": 1}
    assert "test: 6 in, 2 out, 4 rejected, " in capsys.readouterr().err


def test_the_first_rejects_are_named_and_the_others_counted(tmp_path, capsys):
    run(tmp_path, [b'{"bad":1}'] * (NAMED_REJECTS + 5))
    said = capsys.readouterr().err.splitlines()
    assert said[NAMED_REJECTS - 1] == f"ramctl test: in.jsonl:{NAMED_REJECTS}: is bad"
    assert "counted only" in said[NAMED_REJECTS] and len(said) == NAMED_REJECTS + 2


def test_strict_ends_the_run_after_the_reject_was_written(tmp_path):
    with pytest.raises(RunProblem, match=r"in\.jsonl:2: is bad \(--strict\)"):
        run(tmp_path, [b'{"a":1}', *[b'{"bad":1}'] * 2], strict=True)
    assert len(read_rows(tmp_path / "rejects")) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_rejects_are_in_the_order_of_the_input_however_far_a_stage_works_ahead(ahead, tmp_path):
    good, bad, broken = b'{"a":1}', b'{"bad":1}', b"{oops"
    lines = [good, broken, bad, *[broken] * 7, good, bad, good, broken, bad, broken]
    held, waiting = [], []

    def stage(batches):
        for batch in batches:
            held.append([record.line for record in batch])
            waiting.append(batch)
            if len(waiting) > ahead:
                yield from each(mark)(iter([waiting.pop(0)]))
        yield from each(mark)(iter(waiting))

    report = run(tmp_path, lines, stage=stage, batch=2)
    assert [row["line"] for row in read_rows(tmp_path / "rejects")] == [
        number for number, line in enumerate(lines, 1) if line != good
    ]
    assert (report.n_in, report.n_out, report.n_rejected) == (16, 3, 13)
    # What waits is bounded by batches, of rejects as well.
    assert held[:2] == [[1], [3]] and [*chain(*held)] == [1, 3, 11, 12, 13, 15]
    assert max(map(len, held)) == 2


def test_an_existing_output_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    run(tmp_path, [b'{"old":1}'])
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, [b'{"a":0}', b'{"a":1}'], do=crash_at(1))
    assert read_rows(tmp_path / "out") == [{"old": 1, "seen": True}]
    run(tmp_path, [b'{"a":2}'])
    assert read_rows(tmp_path / "out") == [{"a": 2, "seen": True}]


def test_pipes_and_open_files_are_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, b"content")
    reader.join()
    assert read == [b"content"] and pipe.is_fifo()
    with (tmp_path / "file").open("wb") as file:
        write_atomic(Path(f"/dev/fd/{file.fileno()}"), b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
