"""Where inputs come from: files, standard input, and the folder of relative photo names."""

import errno
import gzip
import io
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO, TypeVar, cast

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.records import parquet
from ramctl.records.files import is_gzip, is_url, require_known_packing
from ramctl.records.jsonl import unread_records
from ramctl.records.pipes import (
    STDIN,
    is_pipe,
    mark_read,
    mode_of,
    require_each_once,
    stream_of,
)
from ramctl.records.record import Item, Record, image_name, shown_name
from ramctl.records.remote import exists, open_url, photo_base

Seen = TypeVar("Seen")
ROOT_CHECK_RECORDS = 100
PEEK = 1 << 16  # bytes by which an input is recognised
_BUFFER = 1 << 17  # bytes; several lines of `tag --dense`
# Pipes whose first bytes were looked at: the whole of each, and what closes it.
_begun: dict[str, tuple[ExitStack, BinaryIO]] = {}


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """The bytes of a file or URL or, for `-`, of standard input.

    What is compressed (`.gz`) is unpacked, and Parquet read as JSON lines. UsageProblem for a pipe
    that was read before.
    """
    if name in _begun:
        stack, whole = _begun.pop(name)
        with stack:
            yield whole
        return
    mark_read(name)
    if name == STDIN:
        yield sys.stdin.buffer
        return
    if name.endswith(parquet.SUFFIX) and not is_url(name):
        if is_pipe(name):
            raise UsageProblem(f"{name}: Parquet is read from a file, not from a pipe")
        with parquet.open_lines(name) as lines:
            yield lines
        return
    try:
        with open_url(name, _BUFFER) if is_url(name) else Path(name).open("rb", _BUFFER) as plain:
            if is_gzip(name):
                if not cast(io.BufferedReader, plain).peek(1):
                    raise EOFError("empty, which no compressed file is")
                with gzip.open(plain) as unpacked:
                    yield cast(BinaryIO, unpacked)
            else:
                yield plain
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RunProblem(f"{name}: {error}") from error
    except OSError as error:
        if error.filename is None or str(error.filename) not in (name, str(Path(name))):
            raise
        if error.errno == errno.ENOENT:
            raise UsageProblem(f"{name}: no such file") from error
        raise RunProblem(f"{name}: {error.strerror}") from error


def first_bytes(name: str) -> bytes:
    """The first PEEK bytes of an input, which can still be read as a whole, a pipe too."""
    with ExitStack() as stack:
        stream = stack.enter_context(open_input(name))
        start = stream.read(PEEK)
        if is_pipe(name):
            rest = iter(partial(cast(io.BufferedReader, stream).read1, _BUFFER), b"")
            _begun[name] = stack.pop_all(), stream_of(chain([start], rest))
    return start


@contextmanager
def copy_of_pipe(name: str) -> Iterator[str]:
    """The name of what holds an input to read it twice: of a pipe a copy on the disk, else itself.

    The copy is there for a block.
    """
    if not is_pipe(name):
        yield name
        return
    with NamedTemporaryFile() as copy:
        with open_input(name) as stream:
            shutil.copyfileobj(stream, copy, _BUFFER)
        copy.flush()
        yield copy.name


class TarHeader(tarfile.TarInfo):
    """A member's header; ReadError for one that is damaged, which tarfile takes for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "TarHeader":
        """The header that comes next."""
        try:
            header = super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:  # it would lead back to a member that was read
            raise tarfile.ReadError(f"a member of {header.size} bytes")
        return header


def named_or_stdin(inputs: Sequence[str], expected: str) -> tuple[str, ...]:
    """The named inputs, or `-`; UsageProblem when nothing was named and nothing is piped in."""
    if not inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageProblem(f"nothing to read: name {expected}, or pipe them in (see --help)")
    return tuple(inputs) or (STDIN,)


def read_inputs(inputs: Sequence[str], root: str | None, stage: str) -> Iterator[Item]:
    """The records of JSONL inputs one after the other."""
    return (make() for make in unread_inputs(inputs, root, stage))


def unread_inputs(inputs: Sequence[str], root: str | None, stage: str) -> Iterator[partial[Item]]:
    """As `read_inputs`, with lines that are not parsed yet."""
    for name in inputs:
        with open_input(name) as stream:
            yield from unread_records(stream, shown_name(name), photo_base(name, root), stage)


def require_files(inputs: Sequence[str]) -> None:
    """UsageProblem for an input that is missing or packed otherwise, or a pipe named twice."""
    for name in inputs:
        require_known_packing(name)
        if name != STDIN and not (exists(name) if is_url(name) else mode_of(name)):
            raise UsageProblem(f"{name}: no such file")
    require_each_once(inputs)


class RootCheck:
    """Ends a run that finds none of its relative photo names: most likely `--root` is missing."""

    def __init__(self) -> None:
        self._missing = 0
        self._decided = False

    def notice(self, record: Record, outcome: Seen) -> Seen:
        """Count the photo of a record from a list by what became of it, which is handed on."""
        try:
            name = image_name(record.fields)
        except RecordProblem:
            return outcome
        missing = isinstance(outcome, RecordProblem) and outcome.code == "missing_image"
        if record.line is not None:
            self.count(name, exists=not missing)
        return outcome

    def count(self, name: str, *, exists: bool) -> None:
        """Count one photo name; RunProblem at the hundredth relative one if none exists."""
        if self._decided or Path(name).is_absolute():
            return
        self._decided = exists
        self._missing += 1
        if not exists and self._missing >= ROOT_CHECK_RECORDS:
            none = f"none of the first {self._missing} photos exists (such as {name!r})"
            raise RunProblem(f"{none}; name the folder they are relative to with --root")
