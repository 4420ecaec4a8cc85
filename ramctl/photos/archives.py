"""Photos in tar archives (webdataset shards) and Parquet files, by member name.

When an archive is opened a second time, because many others were read in between, the positions of
all members stay in memory, 40 bytes each, so that it is never scanned again.
"""

import hashlib
import os
import re
import stat
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, cast

import numpy as np

from ramctl.errors import RecordProblem
from ramctl.photos.parquet_photos import ParquetPhotos
from ramctl.records.inputs import TarHeader
from ramctl.records.parquet import SUFFIX
from ramctl.records.pipes import is_file

# A tar's URL may have a query.
_MEMBER = re.compile(r"(.*?\.(?:tar(?:\?[^#]*)?|parquet))#(.*)", re.DOTALL)
_MAX_OPEN = 16  # archives
_MAX_HEADER = 1 << 20  # bytes of one header: long names and their like
_DAMAGE = (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError)
Place = tuple[int, int, float]  # first byte, bytes, time

_HASH, _PLACE = np.dtype("S16"), np.dtype("u8,u8,f8")


def split_member(name: str) -> tuple[str, str] | None:
    """Archive and member of `shard.tar#member` or `x.parquet#row`; None for other names."""
    match = _MEMBER.fullmatch(name) if "#" in name else None
    return (match[1], match[2]) if match else None


def member_of(name: str, base: Path) -> tuple[str, str] | None:
    """`split_member`, but None where `base` holds a file of the whole name."""
    inside = split_member(name)
    return None if inside and is_file(base / name) else inside


def facts_of_file(path: Path, what: str = "file") -> os.stat_result:
    """The status of a photo's file, or of an archive; RecordProblem unless it is a regular file.

    A pipe may never end, and a device may do anything.
    """
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordProblem(f"no such {what}", code="missing_image") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordProblem(reason.lower(), code="unreadable_image") from error
    if not stat.S_ISREG(facts.st_mode):
        reason = "is a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise RecordProblem(reason, code="unreadable_image")
    return facts


def check_bytes(size: int, max_bytes: int) -> None:
    """Raise RecordProblem if a photo's file is larger than the limit."""
    if size > max_bytes:
        raise RecordProblem(f"{size} bytes, more than the limit of {max_bytes}", code="too_large")


class _Headers:
    """An archive as a stream for tarfile that refuses headers of any size they claim.

    It keeps the position itself: forked processes share that of the open file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = os.pread(self._stream.fileno(), size, self._position)
        self._position += len(data)
        return data


class TarIndex:
    """The positions of the regular files in an archive, read as far as needed.

    When it is opened a second time, all positions are kept for later. Threads may share it. Of two
    members of one name the first counts.
    """

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._places: dict[str, Place] = {}
        self._names: list[str] = []
        self._stream = path.open("rb")
        facts = os.fstat(self._stream.fileno())
        self._size = facts.st_size
        self._tar: tarfile.TarFile | None = None
        self._problem = ""  # the damage that ended the index
        key = (path, facts.st_size, facts.st_mtime_ns)
        if key in _members and _members[key] is None:
            with suppress(RecordProblem, OverflowError):  # nothing is kept of a damaged archive
                while self._read_on(len(self._names)):
                    pass
                _members[key] = _Members(self._places)
        self._kept = _members.setdefault(key, None)

    def members(self) -> Iterator[str]:
        """The names in archive order; RecordProblem where the archive is damaged."""
        position = 0
        while position < len(self._names) or self._read_on(position):
            yield self._names[position]
            position += 1

    def read(self, member: str, max_bytes: int) -> bytes:
        """The bytes of a member; RecordProblem if it is missing, cut off or too large."""
        start, size, _ = self._find(member)
        data = b""
        if start + size <= self._size:  # else the header claims more than there is
            check_bytes(size, max_bytes)
            data = os.pread(self._stream.fileno(), size, start)
        if len(data) < size:
            raise RecordProblem("the archive ends inside this member", code="unreadable_image")
        return data

    def touch(self) -> None:
        """Update the access time of the archive."""
        descriptor = self._stream.fileno()
        with suppress(OSError):
            os.utime(descriptor, ns=(time.time_ns(), os.fstat(descriptor).st_mtime_ns))

    def stamp(self, member: str) -> str:
        """Size and time of a member, which change with it."""
        _, size, mtime = self._find(member)
        return f"{size}-{mtime}"

    def _find(self, member: str) -> Place:
        if self._kept is not None:
            place = self._kept.find(member)
        else:
            n_known = len(self._names)
            while (place := self._places.get(member)) is None and self._read_on(n_known):
                n_known = len(self._names)
        if place is None:
            raise RecordProblem("no such member in the archive", code="missing_image")
        return place

    def _read_on(self, n_known: int) -> bool:
        """Index one more file than `n_known`; False at the end of the archive."""
        with self._lock:
            if len(self._names) > n_known:  # another thread has read on
                return True
            if self._problem:
                raise RecordProblem(self._problem, code="unreadable_image")
            try:
                if self._tar is None:
                    headers = cast(BinaryIO, _Headers(self._stream))
                    self._tar = tarfile.open(fileobj=headers, mode="r:", tarinfo=TarHeader)  # noqa: SIM115
                while (header := self._tar.next()) is not None:
                    # tarfile would keep every header: gigabytes for a large shard.
                    self._tar.members = []  # type: ignore[attr-defined]
                    # A sparse file's bytes are in pieces.
                    is_whole = header.isfile() and not header.issparse()
                    if is_whole and header.name not in self._places:
                        place = (header.offset_data, header.size, float(header.mtime))
                        self._places[header.name] = place
                        self._names.append(header.name)
                        return True
            except _DAMAGE as error:
                self._problem = f"not a readable tar archive: {error}"
                raise RecordProblem(self._problem, code="unreadable_image") from error
        return False


# Size and time are in the key, so that a changed file is opened anew.
@lru_cache(_MAX_OPEN)
def _index(path: Path, size: int, mtime_ns: int) -> TarIndex | ParquetPhotos:
    return ParquetPhotos(path) if path.suffix == SUFFIX else TarIndex(path)


def open_archive(path: Path) -> TarIndex | ParquetPhotos:
    """The index of an archive, kept while the file is unchanged."""
    facts = facts_of_file(path, "archive")
    try:
        return _index(path, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise RecordProblem(str(error.strerror), code="unreadable_image") from error


class _Members:
    """The places of an archive's members, sorted by hashes of their names."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        keys = np.array([_hash(name) for name in places], _HASH)
        order = np.argsort(keys)
        self._keys, self._places = keys[order], np.array([*places.values()], _PLACE)[order]

    def find(self, member: str) -> Place | None:
        key = np.array(_hash(member), _HASH)
        row = int(np.searchsorted(self._keys, key))
        is_there = row < len(self._keys) and self._keys[row] == key
        return cast(Place, self._places[row].item()) if is_there else None


# By path, size and time, the archives that were opened; None: once.
_members: dict[tuple[Path, int, int], _Members | None] = {}


def _hash(member: str) -> bytes:
    return hashlib.blake2b(member.encode("utf-8", "surrogatepass"), digest_size=16).digest()
