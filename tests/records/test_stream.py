"""The record loop: order, rejects, resume, stop."""

import io
import json
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem
from ramctl.records.jsonl import read_lines
from ramctl.records.report import Report
from ramctl.records.stream import StreamOptions, each, run_stream
from tests.support import read_rows

LINES = [b'{"a":1}', b"{oops", b'{"a":2}', b'{"bad":1}', b'{"a":3}']
OF_LOOP = ("fingerprint", "form")


def source_of(*lines: bytes, command="test"):
    stream = io.BytesIO(b"\n".join(lines) + b"\n")
    return read_lines(stream, "in.jsonl", Path(), command)


def mark(record):
    if record.fields.get("bad"):
        raise RecordProblem("is bad", code="bad_field")
    return {**record.fields, "seen": True}


def crash_at(value, name="a"):
    """What is done with records until one has this value, before which the power goes."""

    def crash(record):
        if record.fields.get(name) == value:
            raise OSError("power cut")
        return mark(record)

    return crash


def run(
    folder, lines=LINES, *, out="out", do=mark, stage=None, rejects=None, command="test", **options
):
    """A quiet run of the loop over lines: what is done with each, or a whole stage."""
    of_loop = {name: options.pop(name) for name in OF_LOOP if name in options}
    if rejects:
        options["rejects"] = str(folder / rejects)
    settings = StreamOptions(folder / out, progress=False, **{"batch": 1} | options)
    report, source = Report(command, quiet=True), source_of(*lines, command=command)
    return run_stream(report, source, stage or each(do), settings, **of_loop)


def test_records_come_out_in_order_with_unknown_fields_in_place(tmp_path):
    lines = [b'{"z":1,"image":"a.jpg","y":{"deep":[1,2]}}', b'{"image":"b.jpg"}', b'{"q":null}']
    report = run(tmp_path, lines, batch=2)
    assert (report.n_in, report.n_out, report.n_rejected) == (3, 3, 0)
    first = (tmp_path / "out").read_bytes().splitlines()[0]
    assert first == b'{"z":1,"image":"a.jpg","y":{"deep":[1,2]},"seen":true}'


def test_bad_lines_and_bad_records_are_rejected_and_the_rest_is_done(tmp_path):
    lines = [b'{"a":1}', b"{oops", b"[1]", b'{"bad":1}', b'{"a":"\xff"}', b"", b'{"a":2}']
    stats = tmp_path / "stats.json"
    report = run(tmp_path, lines, rejects="rejects", stats=stats, batch=2)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [1, 2]
    rejects = read_rows(tmp_path / "rejects")
    assert sorted((r["line"], r["code"]) for r in rejects) == [
        (2, "bad_json"),
        (3, "bad_json"),
        (4, "bad_field"),
        (5, "bad_utf8"),
    ]
    assert report.exit_code == 3
    told = json.loads(stats.read_bytes())
    assert (told["in"], told["out"]) == (6, 2)
    assert told["rejects"] == {"bad_json": 2, "bad_field": 1, "bad_utf8": 1}


def test_rejects_are_in_the_order_of_the_input_however_far_a_stage_works_ahead(tmp_path):
    good, bad, broken = b'{"image":"a.jpg"}', b'{"bad":1}', b"{oops"
    lines = [good, broken, bad, *[broken] * 7, good, bad, good, broken, bad, broken]
    held = []

    def stage(ahead):
        def staged(batches):
            for batch in batches:
                held.append([record.line for record in batch])
                staged.waiting.append(batch)
                if len(staged.waiting) > ahead:
                    yield from next_of(staged.waiting)
            while staged.waiting:
                yield from next_of(staged.waiting)

        staged.waiting = []
        return staged

    def next_of(waiting):
        return each(mark)(iter([waiting.pop(0)]))

    for ahead in (0, 1, 3):
        held.clear()
        settings = StreamOptions(tmp_path / "out", rejects=str(tmp_path / "rejects"), batch=2)
        report = run_stream(Report("test", quiet=True), source_of(*lines), stage(ahead), settings)
        assert [row["line"] for row in read_rows(tmp_path / "rejects")] == [
            number for number, line in enumerate(lines, 1) if line != good
        ]
        assert (report.n_in, report.n_out, report.n_rejected) == (16, 3, 13)
        # What waits is bounded by batches, of rejects as well.
        assert [line for batch in held for line in batch] == [1, 3, 11, 12, 13, 15]
        assert max(map(len, held)) <= 2
        assert held[:2] == [[1], [3]]


def test_an_existing_output_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    run(tmp_path, [b'{"old":1}'])
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, [b'{"a":1}'], do=crash_at(1))
    assert read_rows(tmp_path / "out") == [{"old": 1, "seen": True}]
