"""Files that appear whole or not at all, that an interrupted run can continue, and locks."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem


def part_path(output: Path) -> Path:
    """`FILE.part`, which becomes FILE when it is complete."""
    return output.with_name(output.name + ".part")


def state_path(output: Path) -> Path:
    """`FILE.state.jsonl`, which tells `--resume` what FILE holds."""
    return output.with_name(output.name + ".state.jsonl")


def work_path(output: Path) -> Path:
    """`OUT.work`, the folder of what a run makes on its way to OUT."""
    return output.with_name(output.name + ".work")


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    return path.exists() and not path.is_file()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an error."""
    part = part_path(path)
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunProblem(f"{path}: {error.strerror or error}") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file so that no reader sees half of it; a pipe or device directly."""
    if is_device(path):
        path.write_bytes(content)
        return
    with replacing(path) as stream:
        stream.write(content)


class PartFile:
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume`, an unfinished part is continued, else a copy of the finished FILE; the copy is
    made at the first write, so that a run with nothing to do touches nothing.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.part = part_path(path)
        self._stream: BinaryIO | None = None
        self._stale: list[tuple[int, int]] = []
        self.end = 0
        if resume:
            self._source = self.part if self.part.exists() else path
            self.end = self._source.stat().st_size if self._source.exists() else 0
        else:
            self._source = self.part
            self._open()

    def cut(self, end: int) -> None:
        """Drop everything after byte `end`: what a killed run wrote but did not record."""
        if end < self.end:
            self.end = end
            self._open()

    def forget(self, start: int, end: int) -> None:
        """Leave the bytes from `start` to `end` out of the finished file."""
        self._stale.append((start, end))

    def write(self, data: bytes) -> int:
        """Append and return the offset after the data."""
        if self._stream is None:
            self._open()
        assert self._stream is not None
        self._stream.write(data)
        self.end += len(data)
        return self.end

    def flush(self) -> None:
        """Hand everything written so far to the operating system."""
        if self._stream is not None:
            self._stream.flush()

    def _open(self) -> None:
        try:
            if self._source == self.path and self.path.exists():
                shutil.copyfile(self.path, self.part)
            if self.end == 0:
                self.part.write_bytes(b"")
            os.truncate(self.part, self.end)
            self._stream = self.part.open("ab")
        except OSError as error:
            raise RunProblem(f"{self.part}: {error.strerror or error}") from error

    def close(self) -> None:
        """Leave the part as it is, to be continued."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def finish(self) -> list[tuple[int, int]]:
        """Rename the part into place without the ranges to forget, which are returned."""
        if self._stale and self._stream is None:
            self._open()
        self.close()
        if not self.part.exists():
            return []
        stale = sorted(self._stale)
        if stale:
            self._drop(stale)
        self.part.replace(self.path)
        return stale

    def _drop(self, stale: list[tuple[int, int]]) -> None:
        kept = self.part.with_name(self.part.name + ".kept")
        with self.part.open("rb") as source, kept.open("wb") as target:
            for start, end in [*stale, (self.end, self.end)]:
                _copy(source, target, start - source.tell())
                source.seek(end)
        kept.replace(self.part)


def _copy(source: BinaryIO, target: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        block = source.read(min(n_bytes, 1 << 20))
        if not block:
            return
        target.write(block)
        n_bytes -= len(block)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs; RunProblem at once when another process holds it.

    The lock is the kernel's, the file only its name: a killed process leaves no lock behind.
    """
    import fcntl  # not on Windows

    try:
        stream = path.open("a+")
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            owner = stream.read(20).strip()
            by = f" by process {owner}" if owner.isdigit() else ""
            raise RunProblem(f"{path}: locked{by}; another run is in progress") from error
        except OSError as error:
            raise RunProblem(f"{path}: cannot be locked: {error.strerror}") from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
