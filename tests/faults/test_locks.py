"""One run at a time on an output: the second one is refused."""

import fcntl
from pathlib import Path

import pytest

from ramctl.records.files import hidden_path
from tests.support import DATA, wait_for

CAPTIONS, PARSED = str(DATA / "captions.jsonl"), str(DATA / "parse_gold.jsonl")
OUTPUTS = [  # the last option names what is written
    ["parse", CAPTIONS, "-o"],
    ["parse", CAPTIONS, "--rejects"],
    ["parse", CAPTIONS, "--build-labels"],
    ["eval", CAPTIONS, "--truth", str(DATA / "truth.jsonl"), "-o"],
    ["train", PARSED, "--steps", "1", "--out"],
    ["convert", "mini", "--to", "onnx", "--out"],
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=lambda words: f"{words[0]} {words[-1]}")
def test_an_output_that_another_run_writes_is_refused(arguments, tmp_path, ramctl):
    lock = hidden_path(tmp_path / "out", ".lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = ramctl(*arguments, "out")
    assert done.returncode == 1
    assert done.messages.endswith("out: locked; another run is in progress\n")
    assert [path.name for path in tmp_path.iterdir()] == [lock.name]


def test_two_runs_at_once_write_one_output_once(tmp_path, ramctl):
    first = ramctl.start("parse", "-", "-o", "c.out", "-b1", "-j1")
    first.stdin.write(b'{"captions":["a horse"]}\n' * 40)
    first.stdin.flush()
    state = tmp_path / ".c.out.state.jsonl"
    wait_for(lambda: state.exists() and state.read_bytes().count(b"\n") > 1)
    second = ramctl("parse", CAPTIONS, "-o", "c.out")
    assert second.returncode == 1
    assert second.messages == "ramctl parse: c.out: locked; another run is in progress\n"
    first.communicate(b'{"captions":["a boat"]}\n')
    assert first.returncode == 0
    assert Path(tmp_path / "c.out").read_bytes().count(b"\n") == 41
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.state.jsonl", "c.out"]


def test_the_lock_of_a_killed_run_is_free(tmp_path, ramctl):
    first = ramctl.start("parse", "-", "-o", "c.out", "-b1", "-j2")
    wait_for((tmp_path / ".c.out.lock").exists)
    first.kill()
    assert first.stderr.read() == b""  # its end comes when the last worker has gone
    assert ramctl("parse", CAPTIONS, "-o", "c.out").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.state.jsonl", "c.out"]
