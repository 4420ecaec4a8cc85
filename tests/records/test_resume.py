"""What `--resume` does with inputs that are done, were rejected, have changed or are gone."""

import pytest

from ramctl.errors import RunProblem
from ramctl.records.stream import Format
from tests.records.test_stream import LINES, crash_at, mark, run
from tests.support import read_rows


def never(record):
    raise AssertionError("done before")


def lines_of(path):
    return [row["line"] for row in read_rows(path)]


def test_what_is_done_is_left_alone_and_rejects_are_tried_again(tmp_path):
    assert run(tmp_path, rejects="rejects").exit_code == 3
    before, rejects = (tmp_path / "out").stat(), (tmp_path / "rejects").read_bytes()
    report = run(tmp_path, resume=True, rejects="rejects")
    after = (tmp_path / "out").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (report.n_in, report.n_skipped, report.n_rejected, report.exit_code) == (2, 3, 2, 3)
    assert "2 rejected, 3 done before" in report.summary()
    assert (tmp_path / "rejects").read_bytes() == rejects
    report = run(tmp_path, resume=True, rejects="rejects", do=lambda record: record.fields)
    assert (report.n_out, lines_of(tmp_path / "rejects")) == (1, [2])
    assert read_rows(tmp_path / "out")[-1] == {"bad": 1}


def test_a_record_that_is_a_reject_now_is_in_the_output_no_more(tmp_path):
    run(tmp_path, [b'{"a":1}', b'{"a":2}', b'{"a":3}'])
    run(tmp_path, [b'{"a":1}', b"{oops", b'{"a":3,"bad":1}'], resume=True, rejects="rejects")
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [1]
    assert lines_of(tmp_path / "rejects") == [2, 3]
    assert run(tmp_path, [b'{"a":1}'], resume=True, do=never).n_skipped == 1


def test_what_follows_an_input_that_was_taken_out_is_there_once(tmp_path):
    """Records are known by their places: what moved up is done anew, and its old line goes."""
    first, bad, *others = b'{"a":0}', b'{"bad":1}', b'{"a":2}', b'{"a":3}'
    run(tmp_path, [first, bad, *others, bad], rejects="rejects")
    again, options = [first, *others, bad], {"rejects": "rejects", "resume": True}
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, again, do=crash_at(3), **options)
    run(tmp_path, again, **options)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [0, 2, 3]
    assert lines_of(tmp_path / "rejects") == [4]
    assert run(tmp_path, again, do=mark, **options).n_skipped == 3


def test_the_record_of_a_line_that_is_gone_goes(tmp_path):
    run(tmp_path, [b'{"a":1}', b'{"a":2}', b'{"a":2}'])
    run(tmp_path, [b'{"a":1}'], resume=True, do=never)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [1]


def test_blocks_that_a_power_cut_has_lost_are_done_again(tmp_path):
    lines = [b'{"a":%d}' % n for n in range(30)]
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, lines, do=crash_at(25))
    part = tmp_path / "out.part"
    content = part.read_bytes()
    part.write_bytes(content[:300] + bytes(len(content) - 300))
    assert run(tmp_path, lines, resume=True).n_skipped < 25
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [*range(30)]


@pytest.mark.parametrize("taken", [slice(1, None), slice(0, None, 2), None])
def test_an_output_that_was_edited_is_left_as_it_is(taken, tmp_path):
    """Lines would be taken for other records' lines, and what was added would be cut off."""
    run(tmp_path, [b'{"a":1}', b'{"a":22}', b'{"a":333}'])
    lines = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    edited = b"".join(lines[taken] if taken else [*lines, b'{"mine":1}\n'])
    (tmp_path / "out").write_bytes(edited)
    with pytest.raises(RunProblem, match="changed by another program"):
        run(tmp_path, [b'{"a":1}', b'{"a":22}', b'{"a":333}', b'{"a":4}'], resume=True)
    assert (tmp_path / "out").read_bytes() == edited


def test_a_changed_first_record_does_not_take_the_header_with_it(tmp_path):
    run(tmp_path, LINES[:3], form=Format(b"[head]\n"))
    run(tmp_path, [b'{"a":7}', *LINES[1:3]], form=Format(b"[head]\n"), resume=True)
    assert (tmp_path / "out").read_bytes().splitlines() == [
        b"[head]", b'{"a":2,"seen":true}', b'{"a":7,"seen":true}',
    ]  # fmt: skip


def test_the_places_of_all_lines_are_known_whatever_was_dropped_before(tmp_path):
    lines = [LINES[0], LINES[2], LINES[4]]
    run(tmp_path, lines)
    run(tmp_path, [b'{"a":7}', *lines[1:], b'{"a":8}'], resume=True)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [2, 3, 7, 8]
    run(tmp_path, [b'{"a":7}', lines[1], b'{"a":9}', b'{"a":8}'], resume=True)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [2, 7, 8, 9]
    run(tmp_path, [b'{"a":4}', b'{"a":5}', b'{"a":6}', b'{"bad":1}'], resume=True)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [4, 5, 6]


def test_a_changed_input_is_done_again_once_however_often_the_run_is_stopped(tmp_path):
    run(tmp_path, [b'{"a":1}', b'{"a":2}'])
    changed = [b'{"a":7}', b'{"a":8}', b'{"a":9}']
    for stop in (8, 9):
        with pytest.raises(OSError, match="power cut"):
            run(tmp_path, changed, do=crash_at(stop), resume=True)
    run(tmp_path, changed, resume=True)
    assert [row["a"] for row in read_rows(tmp_path / "out")] == [7, 8, 9]
