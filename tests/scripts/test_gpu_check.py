"""scripts/gpu_check.py: a check that goes wrong is one line, and all of it runs on the CPU."""

import os
import signal
import subprocess
import sys

import gpu_check
import pytest
from gpu_check import NotHere, Place, in_process, line, told

from tests.conftest import REPOSITORY


def raises(problem):
    def check(place):
        raise problem

    return check


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda place: ("all well", True), "| x | ok | all well | 1 s |"),
        (lambda place: ("a / b", False), "| x | FAILED | a / b | 1 s |"),
        (raises(NotHere("one GPU")), "| x | not here: | one GPU | 1 s |"),
        (raises(ValueError("two\nlines | x")), "| x | FAILED | ValueError: two lines / x | 1 s |"),
    ],
)  # fmt: skip
def test_whatever_a_check_raises_is_one_line(check, expected, tmp_path):
    assert line("x", *told(check, Place(tmp_path, cpu=True)), 1.0) == expected


def test_a_check_that_dies_or_hangs_leaves_the_others_alone():
    assert in_process(os._exit, 7, limit=60) == ("FAILED", "its process died (exit code 7)")
    killed = in_process(signal.raise_signal, signal.SIGKILL, limit=60)
    assert killed == ("FAILED", "its process died (exit code -9)")
    assert in_process(gpu_check.time.sleep, 60, limit=0.1) == ("FAILED", "not done after 0 s")


def test_without_a_gpu_nothing_is_checked_and_nothing_fails(tmp_path):
    assert told(raises(ValueError()), Place(tmp_path)) == ("not here", "torch finds no GPU")


@pytest.mark.slow
def test_all_that_makes_sense_on_the_cpu_passes(tmp_path):
    command = [sys.executable, REPOSITORY / "scripts" / "gpu_check.py", "--cpu"]
    done = subprocess.run([*command, "--out", tmp_path / "page.md"], check=False)
    page = (tmp_path / "page.md").read_text("utf-8")
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| ")][1:]
    verdicts = {row[0].removeprefix("| "): row[1] for row in rows}
    assert done.returncode == 0, page
    ok = dict.fromkeys(gpu_check.CHECKS, "ok")
    assert verdicts == ok | {"memory": "not here:"}, page
