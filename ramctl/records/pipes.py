"""Distinguish files, folders and pipes; a pipe can be read only once.

Anything that is neither a file nor a folder is a pipe: a FIFO, `<(...)`, /dev/stdin, a device.
"""

import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ramctl.errors import UsageProblem

STDIN = "-"
_DESCRIPTOR = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_read: set[tuple[int, int]] = set()  # device and inode of each pipe that was read
is_file, is_folder = os.path.isfile, os.path.isdir  # unlike those of Path they never raise


def mode_of(path: str | Path) -> int:
    """The type and permissions of a path, links followed; 0 where nothing can be found."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 (fast)
    except (OSError, ValueError):
        return 0


def is_pipe(name: str | Path) -> bool:
    """Whether an input can be read only once: standard input, or neither file nor folder."""
    mode = mode_of(name)
    return str(name) == STDIN or (bool(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)))


def is_of_process(name: str) -> bool:
    """Whether an input is a descriptor of this process, which no other process can open."""
    return name == STDIN or _DESCRIPTOR.fullmatch(name) is not None


def folder_of(name: str) -> Path:
    """The folder of an input; for a descriptor of this process, the current one."""
    return Path() if is_of_process(name) else Path(name).parent


def _device_and_inode(name: str | Path) -> set[tuple[int, int]]:
    """Device and inode of a pipe; nothing for other inputs."""
    try:
        facts = os.fstat(sys.stdin.fileno()) if str(name) == STDIN else os.stat(name)  # noqa: PTH116
    except (OSError, ValueError, AttributeError):  # a stand-in for standard input has no number
        return set()
    can_read_once = stat.S_ISFIFO(facts.st_mode) or stat.S_ISSOCK(facts.st_mode)
    return {(facts.st_dev, facts.st_ino)} if can_read_once else set()


def mark_read(name: str | Path, read: set[tuple[int, int]] = _read) -> None:
    """Add an input to `read`; UsageProblem for a pipe that is in it already."""
    pipe = _device_and_inode(name)
    if pipe & read:
        raise UsageProblem(f"{name}: a pipe can be read once; name a file")
    read |= pipe


def require_each_once(names: Iterable[str]) -> None:
    """Raise UsageProblem for a pipe that is named twice."""
    read: set[tuple[int, int]] = set()
    for name in names:
        mark_read(name, read)


def forget() -> None:
    """Forget which pipes were read, at the start of a command."""
    _read.clear()


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def stream_of(pieces: Iterator[bytes]) -> BinaryIO:
    """A stream of the bytes of some pieces, none of them empty."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(pieces)))
