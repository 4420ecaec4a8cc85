"""Measure the time and memory of a function, or of a command in its own process."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from venv_python import ROOT

SHARED = Path(os.environ.get("RAMCTL_SHARED", ROOT.parent / "shared")).resolve()
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
_STATUS = "/proc/self/status"
# A command says its own peak: what the system says of a child includes its parent at the start.
_COMMAND = f"""
import pathlib, sys
from ramctl.cli import main
try:
    main()
finally:
    peak = pathlib.Path("{_STATUS}").read_text().split("VmHWM:")[1].split()[0]
    print("\\n" + peak, file=sys.stderr)
"""


class Taken(NamedTuple):
    """The time, memory and output of a command."""

    core_s: float
    peak_bytes: int
    output: str


def run_ramctl(*arguments: object) -> Taken:
    """Runs a `ramctl` command on one thread; RuntimeError with its last line where it fails."""
    before = children_core_s()
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *map(str, arguments)],
        check=False, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    *said, peak = done.stderr.strip().splitlines() or [""]
    if done.returncode not in (0, 3):
        raise RuntimeError(next((line for line in reversed(said) if line), f"{arguments} failed"))
    return Taken(children_core_s() - before, int(peak) * 1024, done.stdout)


def children_core_s() -> float:
    """Core seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def core_seconds(work: Callable[[], object]) -> float:
    """Core seconds that this process takes for the work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_mb() -> float:
    """The most memory that this process has had, in units of 2**20 bytes."""
    # Not ru_maxrss: it is handed down from the parent process.
    return int(Path(_STATUS).read_text().split("VmHWM:")[1].split()[0]) / 1024
