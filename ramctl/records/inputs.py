"""Read records: files, URLs and standard input, as JSON lines or Parquet."""

import errno
import gzip
import hashlib
import io
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RamctlError, RunProblem, UsageProblem
from ramctl.records import parquet
from ramctl.records.extras import require
from ramctl.records.files import exists, is_folder, is_gzip, is_url
from ramctl.records.jsonl import read_lines
from ramctl.records.record import STDIN, Item, Record, shown_name

PEEK = 1 << 16  # bytes that are read to recognise a format
_BUFFER = 1 << 17  # bytes: several lines of `tag --dense`


def read_inputs(inputs: Sequence[str], root: str | None, stage: str) -> Iterator[Item]:
    """The records of JSONL and Parquet inputs, in order, or their rejects."""
    for name in inputs:
        with open_lines(name) as lines:
            yield from read_lines(lines, shown_name(name), photo_base(name, root), stage)


@contextmanager
def open_input(name: str) -> Iterator[BinaryIO]:
    """Open a file, a URL or, for `-`, standard input for reading bytes; `.gz` is unpacked."""
    if name == STDIN:
        yield sys.stdin.buffer
        return
    try:
        with _open_url(name) if is_url(name) else Path(name).open("rb", _BUFFER) as plain:
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
def _open_url(url: str) -> Iterator[BinaryIO]:
    """Open a file at a URL (https, s3, gs ...) to read it from its start."""
    require("remote", url)
    import fsspec

    try:
        with fsspec.open(url, "rb") as stream:
            yield io.BufferedReader(stream, _BUFFER)  # whose lines are read in blocks
    except RamctlError:
        raise
    except Exception as error:  # each file system raises its own
        # Over HTTP fsspec raises FileNotFoundError for any failure, whose cause is the real error.
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise RunProblem(f"{url}: {reason or type(error).__name__}") from error


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


def photo_base(name: str, root: str | None = None) -> Path:
    """The base of relative photo names: `root`, else the folder of an input."""
    # `<(...)` is /dev/fd/63, which is in no folder.
    return Path(root or ("." if is_url(name) or name.startswith("/dev/") else Path(name).parent))


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


@dataclass(frozen=True, slots=True)
class Shard:
    """The I-th of N parts of an input, counted from 1: every N-th input."""

    index: int = 1
    number: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"

    @property
    def is_all(self) -> bool:
        """Whether this is the whole input."""
        return self.number == 1

    def of(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items of this part."""
        return islice(items, self.index - 1, None, self.number)

    def by_photo(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items whose photo belongs to this part, by a hash of its name."""
        for item in items:
            image = item.fields.get("image") if isinstance(item, Record) else item.raw
            digest = hashlib.sha256(str(image).encode("utf-8", "replace")).digest()
            if int.from_bytes(digest) % self.number == self.index - 1:
                yield item


ALL = Shard()


def inputs_or_stdin(inputs: Sequence[str], expected: str) -> tuple[str, ...]:
    """The inputs, or `-` where there are none; UsageProblem if nothing is piped in."""
    if not inputs and sys.stdin.isatty():
        raise UsageProblem(f"nothing to read: name {expected}, or pipe them in (see --help)")
    return tuple(inputs) or (STDIN,)


def require_files(inputs: Sequence[str]) -> None:
    """Raise UsageProblem for an input that is missing or a folder."""
    for name in inputs:
        if name != STDIN and not (is_url(name) or exists(name)):
            raise UsageProblem(f"{name}: no such file")
        if is_folder(name):
            raise UsageProblem(f"{name} is a folder, not a file")
