"""Where a stream's lines go: standard output, an unfinished file, standard error, nowhere."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from ramctl.errors import RunProblem
from ramctl.records.files import PartFile, is_device


class Sink(Protocol):
    """Something that lines are appended to; `end` is the number of bytes so far."""

    end: int

    def write(self, data: bytes) -> int:
        """Append and return the offset after the data."""

    def flush(self) -> None:
        """Let the reader see what was written."""

    def forget(self, start: int, end: int) -> None:
        """Leave a range that was written earlier out of the finished file."""

    def close(self) -> None:
        """Stop here; a file stays unfinished."""

    def finish(self) -> list[tuple[int, int]]:
        """Make the file visible under its name; returns the ranges that were left out."""


class RejectSink(Sink, Protocol):
    """A sink that can also be cut back."""

    def cut(self, end: int) -> None:
        """Forget what lies after byte `end`."""


class _Counting:
    """A sink that only counts bytes, for the offsets."""

    def __init__(self) -> None:
        self.end = 0

    def write(self, data: bytes) -> int:
        self.end += len(data)
        return self.end

    def flush(self) -> None:
        return None

    def cut(self, end: int) -> None:
        self.end = end

    def forget(self, start: int, end: int) -> None:
        return None

    def close(self) -> None:
        return None

    def finish(self) -> list[tuple[int, int]]:
        return []


class StreamSink(_Counting):
    """Lines on standard output, a pipe or a device, flushed a batch at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        return super().write(data)

    def flush(self) -> None:
        self._stream.flush()


class _StderrSink(_Counting):
    def write(self, data: bytes) -> int:
        sys.stderr.write(data.decode("utf-8"))
        return super().write(data)


def open_rejects(name: str | None, *, resume: bool) -> RejectSink:
    """The sink for rejects: a file, `-` for stderr, or nowhere."""
    if name is None:
        return _Counting()
    if name == "-":
        return _StderrSink()
    path = Path(name)
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
