"""Open the inputs of a command: files, URLs and standard input."""

import errno
import gzip
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.records import parquet
from ramctl.records.files import exists, is_folder, is_gzip, is_url, require_known_packing
from ramctl.records.jsonl import read_lines
from ramctl.records.record import STDIN, Item, Record, image_name, shown_name
from ramctl.records.remote import open_url, photo_base

Result = TypeVar("Result")
ROOT_CHECK_RECORDS = 100
PEEK = 1 << 16  # bytes that are read to recognise a format
_BUFFER = 1 << 17  # bytes: several lines of `tag --dense`


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Open a file, a URL or, for `-`, standard input for reading bytes; `.gz` is unpacked."""
    if name == STDIN:
        yield sys.stdin.buffer
        return
    try:
        with open_url(name) if is_url(name) else Path(name).open("rb", _BUFFER) as plain:
            if is_gzip(name):
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


@contextmanager
def open_lines(name: str) -> Iterator[Iterator[bytes]]:
    """The lines of an input; the rows of a Parquet file as JSON lines."""
    if name.endswith(parquet.SUFFIX) and not is_url(name):
        yield parquet.json_lines(name)
        return
    with open_input(name) as stream:
        yield stream


def first_bytes(name: str) -> bytes:
    """The first PEEK bytes of a file."""
    with open_input(name) as stream:
        return stream.read(PEEK)


class TarHeader(tarfile.TarInfo):
    """A header that is damaged raises ReadError; tarfile would take it for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "TarHeader":
        """Read the next header."""
        try:
            header = super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:  # it would lead back to a member that was read
            raise tarfile.ReadError(f"a member of {header.size} bytes")
        return header


def inputs_or_stdin(inputs: Sequence[str], expected: str) -> tuple[str, ...]:
    """The inputs, or `-` where there are none; UsageProblem if nothing is piped in."""
    if not inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageProblem(f"nothing to read: name {expected}, or pipe them in (see --help)")
    return tuple(inputs) or (STDIN,)


def read_inputs(inputs: Sequence[str], root: str | None, stage: str) -> Iterator[Item]:
    """The records of JSONL and Parquet inputs, in order."""
    for name in inputs:
        with open_lines(name) as lines:
            yield from read_lines(lines, shown_name(name), photo_base(name, root), stage)


def require_files(inputs: Sequence[str]) -> None:
    """Raise UsageProblem for an input that is missing or a folder."""
    for name in inputs:
        require_known_packing(name)
        if name != STDIN and not (is_url(name) or exists(name)):
            raise UsageProblem(f"{name}: no such file")
        if is_folder(name):
            raise UsageProblem(f"{name} is a folder, not a file")


class RootCheck:
    """End a run that finds none of its photos: most likely `--root` is missing."""

    def __init__(self) -> None:
        self._missing = 0
        self._decided = False

    def notice(self, record: Record, outcome: Result) -> Result:
        """Count the photo of a record from a list, by the outcome, which is returned."""
        try:
            name = image_name(record.fields)
        except RecordProblem:
            return outcome
        is_missing = isinstance(outcome, RecordProblem) and outcome.code == "missing_image"
        if record.line is not None:
            self.count(name, exists=not is_missing)
        return outcome

    def count(self, name: str, *, exists: bool) -> None:
        """Count a photo; RunProblem where none of the first hundred relative ones exists."""
        if self._decided or Path(name).is_absolute():
            return
        self._decided = exists
        self._missing += 1
        if not exists and self._missing >= ROOT_CHECK_RECORDS:
            none = f"none of the first {self._missing} photos exists (such as {name!r})"
            raise RunProblem(f"{none}; name the folder they are relative to with --root")
