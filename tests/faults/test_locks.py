"""One run at a time on an output: the second one is refused."""

import fcntl
import os
from pathlib import Path

from tests.command import ONE_BY_ONE
from tests.support import DATA, wait_for

CAPTIONS, PARSED = str(DATA / "captions.jsonl"), str(DATA / "parse_gold.jsonl")


def test_a_bundle_that_another_run_trains_is_refused(tmp_path, ramctl):
    (tmp_path / "out.work").mkdir()
    descriptor = os.open(tmp_path / "out.work", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    done = ramctl("train", PARSED, "--set", "training.steps=1", "--out", "out")
    os.close(descriptor)
    assert done.returncode == 1
    assert done.messages.endswith("out: locked; another run is in progress\n")


def test_two_runs_at_once_write_one_output_once(tmp_path, ramctl):
    first = ramctl.start("parse", "-", "-o", "c.out", "-j1", before=ONE_BY_ONE)
    first.stdin.write(b'{"captions":["a horse"]}\n' * 40)
    first.stdin.flush()
    state = tmp_path / ".c.out.done"
    wait_for(lambda: state.exists() and state.read_bytes().count(b"\n") > 1)
    second = ramctl("parse", CAPTIONS, "-o", "c.out")
    assert second.returncode == 1
    assert second.messages == "ramctl parse: c.out: locked; another run is in progress\n"
    first.communicate(b'{"captions":["a boat"]}\n')
    assert first.returncode == 0
    assert Path(tmp_path / "c.out").read_bytes().count(b"\n") == 41
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.done", "c.out"]


def test_the_lock_of_a_killed_run_is_free(tmp_path, ramctl):
    first = ramctl.start("parse", "-", "-o", "c.out", "-j2", before=ONE_BY_ONE)
    wait_for((tmp_path / ".c.out.done").exists)
    first.kill()
    assert first.stderr.read() == b""  # its end comes when the last worker has gone
    assert ramctl("parse", CAPTIONS, "-o", "c.out").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.out.done", "c.out"]
