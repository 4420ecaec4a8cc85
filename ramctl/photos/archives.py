"""Photos in tar archives (webdataset shards) and Parquet files, by member name."""

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock

from ramctl.errors import RecordProblem
from ramctl.photos.parquet_photos import ParquetPhotos
from ramctl.records.files import is_file
from ramctl.records.inputs import TarHeader
from ramctl.records.parquet import SUFFIX

_MEMBER = re.compile(r"(.*?\.(?:tar|parquet))#(.*)", re.DOTALL)
_MAX_OPEN = 32  # archives
_DAMAGE = (tarfile.TarError, OSError, ValueError, ArithmeticError, MemoryError, RecursionError)


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
        except _DAMAGE as error:
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


# Size and time are in the key, so that a changed file is opened anew.
@lru_cache(_MAX_OPEN)
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
