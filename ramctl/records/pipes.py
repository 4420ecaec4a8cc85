"""What a name leads to: a file, a folder, or a pipe, whose bytes come once.

Whatever is neither a file nor a folder counts as a pipe: a FIFO, `<(...)`, /dev/stdin, a device.
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
_OF_PROCESS = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_read: set[tuple[int, int]] = set()  # device and inode of the pipes that this command has read


def mode_of(path: str | Path) -> int:
    """The type and rights of what a path leads to; 0 where nothing is, or that is not known."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116 (fast)
    except (OSError, ValueError):
        return 0


def is_file(path: str | Path) -> bool:
    """Whether a path leads to a file; Path.is_file raises for a name that is too long."""
    return stat.S_ISREG(mode_of(path))


def is_folder(path: str | Path) -> bool:
    """Whether a path leads to a folder."""
    return stat.S_ISDIR(mode_of(path))


def is_pipe(name: str | Path) -> bool:
    """Whether an input can be read but once: standard input, and what is no file or folder."""
    mode = mode_of(name)
    return str(name) == STDIN or (bool(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)))


def is_of_process(name: str) -> bool:
    """Whether an input was opened by whoever started this process, which alone has it."""
    return name == STDIN or _OF_PROCESS.fullmatch(name) is not None


def folder_of(name: str) -> Path:
    """The folder of an input; of one of this process, the current one."""
    return Path() if is_of_process(name) else Path(name).parent


def _device_and_inode(name: str | Path) -> set[tuple[int, int]]:
    """Those of a pipe; of anything else nothing."""
    try:
        facts = os.fstat(sys.stdin.fileno()) if str(name) == STDIN else os.stat(name)  # noqa: PTH116
    except (OSError, ValueError, AttributeError):  # a stand-in for standard input has no number
        return set()
    can_read_once = stat.S_ISFIFO(facts.st_mode) or stat.S_ISSOCK(facts.st_mode)
    return {(facts.st_dev, facts.st_ino)} if can_read_once else set()


def mark_read(name: str | Path, read: set[tuple[int, int]] = _read) -> None:
    """Note that an input is read; UsageProblem for a pipe that is in `read`: it has no more."""
    pipe = _device_and_inode(name)
    if pipe & read:
        raise UsageProblem(f"{name}: a pipe can be read once; name a file")
    read |= pipe


def require_each_once(names: Iterable[str]) -> None:
    """UsageProblem for a pipe that is named twice."""
    read: set[tuple[int, int]] = set()
    for name in names:
        mark_read(name, read)


def forget() -> None:
    """Begin a command, which has read no pipe."""
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
    """The bytes of some pieces, none of them empty, as a stream."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(pieces)))
