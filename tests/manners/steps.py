"""In the process of a command: it dies before one of its steps, or its disk is full.

A step is whatever changes a name or the size of a file, opens one to write, or waits for the disk:
what lies between two steps is only in the memory of the process, and lost with it.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from ramctl.records import stream

KILLED = 137
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = {"os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir", "os.link"}


def die_before(number: int, log: str) -> None:
    """Die before the step of this number; write down those before it. One record is a batch."""
    stream.BATCH = 1
    folder, steps = str(Path.cwd()), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    n_steps, sync = 0, os.fsync

    def take(event: str, path: object) -> None:
        nonlocal n_steps
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "."
        if not str(Path.cwd() / name).startswith(folder):
            return
        if n_steps == number:
            os._exit(KILLED)  # as SIGKILL would end it
        n_steps += 1
        os.write(steps, f"{event} {Path(name).name}\n".encode())

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and flags & _WRITES:
                take(event, path)
        elif event in _NAMES:
            take(event, arguments[0])

    def fsync(descriptor: int) -> None:
        take("fsync", Path(f"/dev/fd/{descriptor}").readlink())
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def fill_disk(most_bytes: int) -> None:
    """Let no file grow beyond this; each kind that a command writes has its own size."""
    stream.BATCH = 1
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
