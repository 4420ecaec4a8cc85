"""Files that appear complete or not at all, and that an interrupted run can continue."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an error."""
    part = path.with_name(path.name + ".part")
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
    """Write a whole file so that a reader never sees half of it."""
    with replacing(path) as stream:
        stream.write(content)


class PartFile:
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume`, an unfinished part is continued, else a copy of the finished FILE; the copy is
    made at the first write, so that a run with nothing to do touches nothing.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
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
        """Forget everything after byte `end`: what a killed run wrote but did not account for."""
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
        """Hand what was written to the operating system."""
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
        """Keep the part as it is, to be continued."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def finish(self) -> list[tuple[int, int]]:
        """Rename the part into place without the forgotten ranges, and return those ranges."""
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
