"""Runs a command in a fork of this process, which dies before any of its steps.

A step is whatever changes a name or the size of a file, opens one to
write, or waits for the disk: what lies between two steps is only in the memory of the process, and
lost with it.
"""

import ctypes
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ramctl.cli import main
from tests.forked import Forked, fork

Work = Sequence[object] | Callable[[], int]  # the words of a command, or what gives an exit status
KILLED = 137
LAST = 6  # steps, in which what was made gets its names
PATIENCE_S = 300
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir", "os.link"}


class Steps:
    """An audit hook that writes down the steps of a process and lets it die before one of them."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        crash_before: int | None,
    ) -> None:
        self.folder, self.crash_before = str(folder), crash_before
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.number = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike) and flags & _WRITES:
                self.take(event, path)
        elif event in _NAMES:
            self.take(event, arguments[0])

    def take(self, event: str, path: object) -> None:
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "."
        if os.path.isabs(name) and not name.startswith(self.folder):  # noqa: PTH117
            return
        step = f"{event} {Path(name).name}"
        self.number += 1
        if self.crash_before == self.number - 1:
            os._exit(KILLED)  # as SIGKILL would end it
        with suppress(OSError):  # the log may not grow either
            os.write(self.log, f"{step}\n".encode("utf-8", "replace"))


def run(
    folder: Path,
    work: Work,
    *,
    crash_before: int | None = None,
    most_bytes: int | None = None,
    is_powerless: bool = False,
) -> tuple[int, list[str], str]:
    """Exit status, steps and stderr of some work in a folder; files may grow to `most_bytes`.

    `crash_before` is a step's number, before which the process dies. A powerless process is
    refused what is read-only, even if it is root's.
    """
    log = folder.parent / "steps"
    arguments = (folder, work, log, crash_before, most_bytes, is_powerless)
    with_what = str(work[0]) if not callable(work) else ""
    child = _forked(arguments, with_what)
    with child.stderr as stream:
        said = stream.read().decode(errors="replace")
    status = child.wait()
    steps = log.read_text().splitlines() if log.exists() else []
    return status, steps, said


def _forked(arguments: tuple[Any, ...], like: str) -> Forked:
    pickled = pickle.dumps(arguments).hex()
    program = (
        "import pickle, tests.faults.crashes as crashes\n"
        f'crashes.be(*pickle.loads(bytes.fromhex("{pickled}")))'
    )
    streams = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.PIPE)
    return fork([], arguments[0], dict(os.environ), program, streams, like=like)


def be(
    folder: Path, work: Work, log: Path, crash_before: int | None,
    most_bytes: int | None, is_powerless: bool,
) -> NoReturn:  # fmt: skip
    """Do the work in this process, and end it."""
    try:
        if is_powerless:
            _give_up_power()
        signal.alarm(PATIENCE_S)
        null = os.open(os.devnull, os.O_RDWR)
        for target in (0, 1):
            os.dup2(null, target)
        sys.stdin, sys.stdout = os.fdopen(0, "r", closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        steps = Steps(folder, log, crash_before)
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            steps.take("fsync", Path(f"/dev/fd/{descriptor}").readlink())
            sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(steps)
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        if callable(work):
            sys.exit(work())
        main([str(word) for word in work])
    except SystemExit as ended:
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    finally:
        os._exit(99)


def _give_up_power() -> None:
    """Drop all capabilities, so that permissions count for root as well."""
    version, none = 0x20080522, (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(version, 0), none):
        raise OSError("capset failed")


def workers_of(process: Forked | subprocess.Popen) -> list[int]:
    """The processes that a run has started."""
    listed = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(process.pid)])
    return [int(number) for number in listed.split()]


def resumed_by(work: Work) -> Callable[[Path], tuple[int, str]]:
    """The exit status and stderr of some work in a folder."""

    def again(folder: Path) -> tuple[int, str]:
        status, _, err = run(folder, work)
        return status, err

    return again


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder, without the content of states, which hold places and times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file():
            found[name] = b"" if name.endswith(".done") else path.read_bytes()
    return found


def sorted_lines(content: bytes) -> list[bytes]:
    """The lines of a file in any order."""
    return sorted(content.splitlines())


def some_of(steps: Sequence[str], every: int) -> list[tuple[int, str]]:
    """Numbers and names of every N-th step and the last ones; of all with RAMCTL_EVERY_STEP."""
    if os.environ.get("RAMCTL_EVERY_STEP"):
        every = 1
    numbered = list(enumerate(steps))
    return [one for one in numbered if one[0] % every == 0 or one[0] >= len(steps) - LAST]


def crash_matrix(
    folder: Path,
    prepare: Callable[[Path], None],
    work: Work,
    again: Callable[[Path], tuple[int, str]],
    *,
    every: int = 1,
    in_order: bool = True,
) -> int:
    """Crash `work` before each of its steps, run `again`, and compare with a run that was not.

    `prepare` fills the folder; lines may come in another order unless `in_order`. Of slow work
    only some steps are taken, as `some_of` says. Returns
    the number of all.
    """
    template = folder.with_name("template")
    folder.mkdir()
    prepare(folder)
    shutil.copytree(folder, template, symlinks=True)
    code, steps, err = run(folder, work)
    assert code in (0, 3), err
    whole = contents(folder)
    for number, step in some_of(steps, every):
        shutil.rmtree(folder)
        shutil.copytree(template, folder, symlinks=True)
        where = f"killed before step {number}, {step} (after {steps[max(0, number - 3) : number]})"
        killed, _, err = run(folder, work, crash_before=number)
        assert killed == KILLED, f"{where}: {killed} {err}"
        ended, err = again(folder)
        assert ended == code, f"{where}: {ended} {err}"
        left = contents(folder)
        assert left.keys() == whole.keys(), f"{where}: {left.keys() ^ whole.keys()}"
        form = bytes if in_order else sorted_lines
        different = [name for name in whole if form(left[name]) != form(whole[name])]
        assert not different, f"{where}: {different}"
    shutil.rmtree(template)
    return len(steps)
