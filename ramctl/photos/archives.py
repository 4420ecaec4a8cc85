"""Photos in tar archives (webdataset shards), by member name, and in Parquet files, by row."""

import os
import re
import stat
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, cast

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.files import is_file
from ramctl.records.inputs import TarHeader
from ramctl.records.parquet import DAMAGE, SUFFIX, opened, photo_column

_MEMBER = re.compile(r"(.*?\.(?:tar|parquet))#(.*)", re.DOTALL)


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
        raise unreadable(error) from error
    if not stat.S_ISREG(facts.st_mode):
        reason = "is a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
        raise RecordProblem(reason, code="unreadable_image")
    return facts


def unreadable(error: Exception) -> RecordProblem:
    """The problem of a file that the system cannot read."""
    reason = getattr(error, "strerror", None) or str(error)
    return RecordProblem(reason.lower(), code="unreadable_image")


class TarIndex:
    """The places of the regular files in an archive, read once. Threads may share it.

    Of two members of one name the first counts.
    """

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._places: dict[str, tuple[int, int, float]] = {}  # first byte, bytes, time
        self._problem = ""  # the damage at which the members end
        try:
            with tarfile.open(fileobj=self._stream, mode="r:", tarinfo=TarHeader) as archive:
                for header in archive:
                    if header.isfile():
                        place = header.offset_data, header.size, float(header.mtime)
                        self._places.setdefault(header.name, place)
        except Exception as error:  # headers that lie end in errors of all kinds
            self._problem = f"not a readable tar archive: {error}"

    def members(self) -> Iterator[str]:
        """The names in archive order; RecordProblem where the archive is damaged."""
        yield from self._places
        if self._problem:
            raise RecordProblem(self._problem, code="unreadable_image")

    def read(self, member: str) -> bytes:
        """The bytes of a member; RecordProblem if it is missing or cut off."""
        start, size, _ = self._find(member)
        if start + size > os.fstat(self._stream.fileno()).st_size:
            raise RecordProblem("the archive ends inside this member", code="unreadable_image")
        return os.pread(self._stream.fileno(), size, start)

    def stamp(self, member: str) -> str:
        """Size and time of a member, which change with it."""
        _, size, mtime = self._find(member)
        return f"{size}-{mtime}"

    def _find(self, member: str) -> tuple[int, int, float]:
        if member in self._places:
            return self._places[member]
        if self._problem:
            raise RecordProblem(self._problem, code="unreadable_image")
        raise RecordProblem("no such member in the archive", code="missing_image")


class ParquetPhotos:
    """The photos in a Parquet file by row number (from 0); two row groups are in memory.

    `datasets` and img2dataset write such files.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = opened(str(path))
        except RunProblem as problem:
            raise RecordProblem(problem.message, code="unreadable_image") from problem
        self._column = photo_column(self._file)
        groups = range(self._file.num_row_groups)
        n_rows = (self._file.metadata.row_group(index).num_rows for index in groups)
        self._starts = [0, *accumulate(n_rows)]  # of each group, and the end
        self._lock = Lock()
        self._group = lru_cache(2)(self._read_group)  # threads read around the end of one

    def members(self) -> Iterator[str]:
        """The names of all photos."""
        return map(str, range(self._starts[-1] if self._column else 0))

    def stamp(self, member: str) -> str:
        """A constant for an existing photo; RecordProblem for others."""
        if not (self._column and member.isdecimal() and int(member) < self._starts[-1]):
            raise RecordProblem("no such photo in the file", code="missing_image")
        return member

    def read(self, member: str) -> bytes:
        """The bytes of a row's photo; RecordProblem if it is missing."""
        row = int(self.stamp(member))
        group = bisect_right(self._starts, row) - 1
        try:
            with self._lock:
                photo = self._group(group)[row - self._starts[group]].as_py()
        except DAMAGE as error:
            raise RecordProblem(str(error).splitlines()[0], code="unreadable_image") from error
        content = photo.get("bytes") if isinstance(photo, dict) else photo
        if content is None:
            raise RecordProblem("the row has no photo", code="missing_image")
        return cast(bytes, content)

    def _read_group(self, group: int) -> Any:
        return self._file.read_row_group(group, columns=[self._column]).column(0)


# Size and time are in the key, so that a changed file is opened anew.
@lru_cache(32)
def _index(path: Path, size: int, mtime_ns: int) -> TarIndex | ParquetPhotos:
    return ParquetPhotos(path) if path.suffix == SUFFIX else TarIndex(path)


_opening = Lock()  # so that two threads do not read the same directory


def open_archive(path: Path) -> TarIndex | ParquetPhotos:
    """The index of an archive, kept while the file is unchanged."""
    facts = facts_of_file(path, "archive")
    try:
        with _opening:
            return _index(path, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise RecordProblem(str(error.strerror), code="unreadable_image") from error
