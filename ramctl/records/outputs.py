"""Where a stream's lines go: standard output, an unfinished file, standard error, nowhere."""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RunProblem
from ramctl.records.files import (
    is_device,
    is_gzip,
    kept_path,
    move_into_place,
    naming,
    packing,
    part_path,
    sync_file,
)
from ramctl.records.inputs import open_input

_BLOCK = 1 << 16


class Sink:
    """Something that lines are appended to; as it is, it takes them nowhere."""

    def __init__(self) -> None:
        self.end = 0  # bytes in the file; none are counted where there is no file

    def write(self, data: bytes) -> int:
        """Append and return the offset after the data."""
        return self.end

    def flush(self) -> None:
        """Let the reader see what was written."""

    def cut(self, end: int) -> None:
        """Drop everything after byte `end`: what a killed run wrote but did not record."""
        self.end = end

    def line_before(self, end: int) -> bytes:
        """The line of an earlier run that ends at this byte."""
        raise NotImplementedError

    def compact(self, stale: Iterator[tuple[int, int]], lead: bytes = b"") -> None:
        """Write a copy of what is in the file, without these ranges, beside it.

        What is then its first line gets the `lead`.
        """

    def close(self) -> None:
        """Stop here; a file stays unfinished, to be continued."""

    def finish(self) -> None:
        """Make the file visible under its name."""


class StreamSink(Sink):
    """Lines on standard output, a pipe or a device, flushed a batch at a time."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data)
        return self.end

    def flush(self) -> None:
        self._stream.flush()


class PartFile(Sink):
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume`, an unfinished part is continued, else a copy of the finished FILE; the copy is
    made at the first write, so that a run with nothing to do touches nothing. The part of FILE.gz
    is not compressed: it is cut and continued at any byte. RunProblem, with the file's name, where
    it cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        super().__init__()
        self.path = path
        self.part = part_path(path)
        self._stream: BinaryIO | None = None
        if resume:
            self._source = self.part if self.part.exists() else path
            self.end = unfinished_bytes(path)
        else:
            self._source = self.part
            kept_path(self.part).unlink(missing_ok=True)
            self._open()

    def cut(self, end: int) -> None:
        if end < self.end:
            self.end = end
            self._open()

    def line_before(self, end: int) -> bytes:
        if is_gzip(self._source.name):
            self._open()  # it cannot be read backwards
        line, start = b"", end
        with naming(self.part), self._source.open("rb") as stream:
            while start and b"\n" not in line[:-1]:
                size = min(start, _BLOCK)
                start -= size
                stream.seek(start)
                line = stream.read(size) + line
        return line[line.rfind(b"\n", 0, -1) + 1 :]

    def write(self, data: bytes) -> int:
        if self._stream is None:
            self._open()
        assert self._stream is not None
        try:  # not `naming`, which would cost a microsecond a record
            self._stream.write(data)
        except OSError as error:
            raise RunProblem(f"{self.part}: {error.strerror or error}") from error
        self.end += len(data)
        return self.end

    def flush(self) -> None:
        if self._stream is not None:
            with naming(self.part):
                self._stream.flush()

    def _open(self) -> None:
        with naming(self.part):
            if self._source == self.path and self.path.exists():
                self._copy([])
                kept_path(self.part).replace(self.part)
            if self.end == 0:
                self.part.write_bytes(b"")
            os.truncate(self.part, self.end)
            self._source = self.part
            self._stream = self.part.open("ab")

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with naming(self.part):
                stream.close()

    def compact(self, stale: Iterator[tuple[int, int]], lead: bytes = b"") -> None:
        kept_path(self.part).unlink(missing_ok=True)  # what a killed run left is no such copy
        first = next(stale, None)
        if first is not None:
            self.close()
            with naming(self.part):
                self._copy(chain([first], stale), lead)

    def finish(self) -> None:
        self.close()
        with naming(self.part):
            if self.part.exists():
                whole = self._packed() if is_gzip(self.path.name) else self.part
                sync_file(whole)
                move_into_place(whole, self.path)
                self.part.unlink(missing_ok=True)

    def _packed(self) -> Path:
        packed = kept_path(self.part)
        with (
            self.part.open("rb") as source,
            packed.open("wb") as target,
            packing(self.path.name, target) as stream,
        ):
            shutil.copyfileobj(source, stream, 1 << 20)
        return packed

    def _copy(self, stale: Iterable[tuple[int, int]], lead: bytes = b"") -> None:
        """Write what is there to `FILE.part.kept`, without some ranges, which are in order."""
        with (
            open_input(str(self._source.absolute())) as source,
            kept_path(self.part).open("wb") as target,
        ):
            for start, end in chain(stale, [(self.end, self.end)]):
                if lead and source.tell() < start:
                    target.write(led(source.readline(), lead))
                    lead = b""
                while block := source.read(min(start - source.tell(), 1 << 20)):
                    target.write(block)
                source.seek(end)
            target.flush()
            os.fsync(target.fileno())


def led(line: bytes, lead: bytes) -> bytes:
    """A line of JSON with more fields, `,"name":value`, at its end."""
    return line[:-2] + lead + b"}\n"


def rejects_file(name: str | None) -> Path | None:
    """The file that `--rejects` names, if any: `-` is stderr."""
    return None if name in (None, "-") else Path(name)


def unfinished_bytes(path: Path | None) -> int:
    """The size of the part of a file, or of the file where it is finished; 0 where neither is.

    It is that of the content, not of what it is compressed to.
    """
    found = [] if path is None else [one for one in (part_path(path), path) if one.is_file()]
    if not (found and is_gzip(found[0].name)):
        return found[0].stat().st_size if found else 0
    with open_input(str(found[0])) as stream:
        return stream.seek(0, os.SEEK_END)


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
    with naming(Path("standard output")):
        os.write(descriptor, b"")  # where it is closed this fails, and not hours later
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
