"""Where a stream's lines go: standard output, an unfinished file, standard error, nowhere."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RunProblem
from ramctl.records.files import is_device, part_path


class Sink:
    """Something that lines are appended to; as it is, one that only counts their bytes."""

    def __init__(self) -> None:
        self.end = 0  # the number of bytes so far

    def write(self, data: bytes) -> int:
        """Append and return the offset after the data."""
        self.end += len(data)
        return self.end

    def flush(self) -> None:
        """Let the reader see what was written."""

    def cut(self, end: int) -> None:
        """Drop everything after byte `end`: what a killed run wrote but did not record."""
        self.end = end

    def forget(self, start: int, end: int) -> None:
        """Leave a range that was written earlier out of the finished file."""

    def close(self) -> None:
        """Stop here; a file stays unfinished, to be continued."""

    def finish(self) -> list[tuple[int, int]]:
        """Make the file visible under its name; returns the ranges that were left out."""
        return []


class StreamSink(Sink):
    """Lines on standard output, a pipe or a device, flushed a batch at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        return super().write(data)

    def flush(self) -> None:
        self._stream.flush()


class PartFile(Sink):
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume`, an unfinished part is continued, else a copy of the finished FILE; the copy is
    made at the first write, so that a run with nothing to do touches nothing.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        super().__init__()
        self.path = path
        self.part = part_path(path)
        self._stream: BinaryIO | None = None
        self._stale: list[tuple[int, int]] = []
        if resume:
            self._source = self.part if self.part.exists() else path
            self.end = self._source.stat().st_size if self._source.exists() else 0
        else:
            self._source = self.part
            self._open()

    def cut(self, end: int) -> None:
        if end < self.end:
            self.end = end
            self._open()

    def forget(self, start: int, end: int) -> None:
        self._stale.append((start, end))

    def write(self, data: bytes) -> int:
        if self._stream is None:
            self._open()
        assert self._stream is not None
        self._stream.write(data)
        return super().write(data)

    def flush(self) -> None:
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
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def finish(self) -> list[tuple[int, int]]:
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
                while block := source.read(min(start - source.tell(), 1 << 20)):
                    target.write(block)
                source.seek(end)
        kept.replace(self.part)


def rejects_file(name: str | None) -> Path | None:
    """The file that `--rejects` names, if any: `-` is stderr."""
    return None if name in (None, "-") else Path(name)


def open_rejects(name: str | None, *, resume: bool) -> Sink:
    """The sink for rejects: a file, `-` for stderr, or nowhere."""
    path = rejects_file(name)
    if path is None:
        return StreamSink(sys.stderr.buffer) if name else Sink()
    return StreamSink(path.open("wb")) if is_device(path) else PartFile(path, resume=resume)


@contextmanager
def records_to_stdout() -> Iterator[BinaryIO]:
    """Standard output as bytes; meanwhile prints of Python and C libraries go to stderr."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # an in-memory stream, as under a test runner
        target = cast(BinaryIO, sys.stdout.buffer)
        with redirect_stdout(sys.stderr):
            yield target
        return
    private = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(private), "wb") as stream:
            try:
                yield stream
                stream.flush()
            except BrokenPipeError:
                _discard(stream)
                raise
            except OSError as error:
                _discard(stream)
                if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
                    raise RunProblem(f"standard output: {error.strerror}") from error
                raise
    finally:
        os.dup2(private, descriptor)
        os.close(private)


def _discard(stream: BinaryIO) -> None:
    """Point the stream at the null device, so that closing it cannot fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
