"""Inputs that are torn or have a flipped bit, and a clock that goes back: what is whole is done."""

import gzip
import json
import os
import random
import time
from pathlib import Path

from tests.faults.crashes import contents, run
from tests.faults.streams import LINES, stream, with_lines
from tests.records.test_resume import run as run_here

ROWS = [json.dumps({"a": number, "text": "ä" * number}).encode() for number in range(20)]


def outcome(folder: Path) -> tuple[list[bytes], list[dict]]:
    """The output's lines, and the rejects."""
    rejects = (folder / "rejects").read_bytes().splitlines()
    return (folder / "out").read_bytes().splitlines(), [json.loads(line) for line in rejects]


def test_of_a_torn_shard_all_whole_lines_are_done_and_the_last_is_a_reject(tmp_path):
    whole = b"\n".join(ROWS) + b"\n"
    run_here(tmp_path, ROWS, rejects="rejects")
    expected, _ = outcome(tmp_path)
    for end in random.Random(0).sample(range(1, len(whole)), 60):
        run_here(tmp_path, whole[:end].split(b"\n"), rejects="rejects")
        out, rejects = outcome(tmp_path)
        n_whole = whole[:end].count(b"\n")
        is_torn = whole[end - 1 : end + 1].count(b"\n") == 0
        assert out[:n_whole] == expected[:n_whole]
        assert [row["line"] for row in rejects] == [n_whole + 1] * is_torn
        assert len(out) == n_whole + (whole[end] == ord("\n"))


def test_of_a_shard_with_a_flipped_bit_all_other_lines_are_done(tmp_path):
    run_here(tmp_path, ROWS, rejects="rejects")
    expected, _ = outcome(tmp_path)
    draw = random.Random(1)
    for _ in range(60):
        number = draw.randrange(len(ROWS))
        line = bytearray(ROWS[number])
        line[draw.randrange(len(line))] ^= 1 << draw.randrange(8)
        lines = [*ROWS[:number], *bytes(line).split(b"\n"), *ROWS[number + 1 :]]
        run_here(tmp_path, lines, rejects="rejects")
        out, rejects = outcome(tmp_path)
        assert out[:number] == expected[:number]
        assert out[len(out) - len(ROWS) + number + 1 :] == expected[number + 1 :]
        assert len(out) + len(rejects) == sum(1 for line in lines if line.strip())


def test_a_torn_gz_shard_is_named_and_what_was_read_is_kept(tmp_path, monkeypatch, ramctl):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"image": f"{number}.jpg", "tags": ["sky"]}) for number in range(4000)]
    packed = gzip.compress("".join(row + "\n" for row in rows).encode())
    Path("in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = ramctl("export", "in.jsonl.gz", "-f", "jsonl", "-o", "out")
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.startswith("ramctl export: in.jsonl.gz: ")
    n_done = Path("out.part").read_bytes().count(b"\n")
    assert 100 < n_done < 4000 and not Path("out").exists()
    Path("in.jsonl.gz").write_bytes(packed)
    done = ramctl("export", "in.jsonl.gz", "-f", "jsonl", "-o", "out", "--resume")
    assert (done.returncode, f"{n_done} done before" in done.messages) == (0, True)
    assert Path("out").read_bytes().count(b"\n") == 4000


def test_a_clock_that_goes_back_changes_nothing(tmp_path, monkeypatch):
    """Neither during a run, nor between it and its continuation."""
    folder, hour = tmp_path / "run", iter(range(10**6, 0, -1))
    folder.mkdir()
    with_lines(*LINES)(folder)
    assert run(folder, stream(max_time=60))[0] == 3
    whole = contents(folder)
    for name in ("out", "rejects", ".out.state.jsonl"):
        (folder / name).unlink()
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hour))
    assert run(folder, stream(max_time=60), crash_before="os.rename out.part")[0] == 137
    for path in folder.iterdir():
        os.utime(path, (2**32, 2**32))  # written, it seems, in the year 2106
    assert run(folder, stream(max_time=60, resume=True))[0] == 3
    assert contents(folder) == whole
