"""A worker process that is killed, and memory that runs out: one line, and the run can go on."""

import os
import signal
from unittest.mock import Mock

import pytest

from tests.command import ONE_BY_ONE
from tests.faults.crashes import workers_of
from tests.support import wait_for

LINE = b'{"captions":["a horse in a field near a house by the river"]}\n'


def test_killed_workers_of_parse_end_the_run_in_one_line(tmp_path, ramctl):
    """It waited for the answer of the dead ones, for ever."""
    words = ["parse", "-", "-o", "out", "-j2"]
    run = ramctl.start(*words, before=ONE_BY_ONE)
    run.stdin.write(LINE * 20)
    run.stdin.flush()
    state = tmp_path / ".out.done"
    # The first two are not done by the workers.
    wait_for(lambda: state.exists() and state.read_bytes().count(b"\n") > 4)
    for worker in workers_of(run):  # one alone may be idle, and not be missed
        os.kill(worker, signal.SIGKILL)
    _, err = run.communicate(LINE * 20, timeout=60)
    assert (run.returncode, err.count(b"\n")) == (1, 1)
    assert err.startswith(b"ramctl parse: a worker process was killed; ")
    again = ramctl(*words, "--resume", stdin=LINE * 40)
    assert again.returncode == 0 and b" done before" in again.stderr
    lines = (tmp_path / "out").read_bytes().splitlines()
    assert len(lines) == 40 and len(set(lines)) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "no memory is left"),
        (MemoryError("Unable to allocate 9 TiB\nfor an array"), "Unable to allocate 9 TiB"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory."), "CUDA out of me"),
    ],
    ids=["python", "numpy", "torch"],
)
def test_memory_that_runs_out_is_one_line(error, said, tmp_path, monkeypatch, ramctl):
    from ramctl.parsing import parse_run

    monkeypatch.setattr(parse_run, "run", Mock(side_effect=error))
    done = ramctl("parse", "-o", "out")
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert done.messages.startswith(f"ramctl parse: out of memory: {said}")
    assert "smaller batches" in done.messages
