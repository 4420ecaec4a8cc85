"""Members of tar archives (webdataset shards) by name, without a scan for each photo."""

import os
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock

from ramctl.errors import RecordProblem

MARK = ".tar#"
_OPEN_ARCHIVES = 16


def split_member(name: str) -> tuple[str, str] | None:
    """Archive and member of `shard.tar#member`; None for the name of a plain file."""
    archive, mark, member = name.partition(MARK)
    return (f"{archive}.tar", member) if mark else None


class TarIndex:
    """Where the regular files of an archive lie; read only as far as the names asked for so far.

    Safe to share between threads. If two members have one name, the first counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._places: dict[str, tuple[int, int, float]] = {}
        self._names: list[str] = []
        self._stream = path.open("rb")
        self._tar: tarfile.TarFile | None = None

    def members(self) -> Iterator[str]:
        """The names in archive order; RecordProblem where the archive is damaged."""
        position = 0
        while position < len(self._names) or self._read_on():
            yield self._names[position]
            position += 1

    def read(self, member: str) -> bytes:
        """The bytes of a member; RecordProblem when it is missing or cut short."""
        start, size, _ = self._find(member)
        data = os.pread(self._stream.fileno(), size, start)
        if len(data) < size:
            raise RecordProblem("the archive ends inside this member", code="unreadable_image")
        return data

    def stamp(self, member: str) -> str:
        """Size and time of a member; they change when it does."""
        _, size, mtime = self._find(member)
        return f"{size}-{mtime}"

    def _find(self, member: str) -> tuple[int, int, float]:
        while member not in self._places:
            if not self._read_on():
                raise RecordProblem("no such member in the archive", code="missing_image")
        return self._places[member]

    def _read_on(self) -> bool:
        """Index one more file; False at the archive's end."""
        with self._lock:
            try:
                if self._tar is None:
                    self._tar = tarfile.open(fileobj=self._path.open("rb"), mode="r:")  # noqa: SIM115
                while (found := self._tar.next()) is not None:
                    # tarfile would keep every header: gigabytes for a large shard.
                    self._tar.members = []  # type: ignore[attr-defined]
                    if found.isfile():
                        if found.name not in self._places:
                            place = (found.offset_data, found.size, found.mtime)
                            self._places[found.name] = place
                            self._names.append(found.name)
                        return True
            except (tarfile.TarError, OSError) as error:
                message = f"not a readable tar archive: {error}"
                raise RecordProblem(message, code="unreadable_image") from error
        return False


@lru_cache(_OPEN_ARCHIVES)
def _index(path: Path, size: int, mtime_ns: int) -> TarIndex:
    return TarIndex(path)


def open_archive(path: Path) -> TarIndex:
    """The index of an archive, kept while the file is unchanged.

    Raises RecordProblem when there is no such file or it cannot be opened.
    """
    try:
        facts = path.stat()
        return _index(path, facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError as error:
        raise RecordProblem("no such archive", code="missing_image") from error
    except OSError as error:
        raise RecordProblem(str(error.strerror), code="unreadable_image") from error
