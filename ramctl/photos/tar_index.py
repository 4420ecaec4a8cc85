"""Where the members of a tar archive lie, kept in a file: found without a scan, hardly in memory.

The file stands beside the archive, or in the user's cache folder where nothing can be written
there. It holds the size and time of the archive that it is of, hashes of the names, sorted, and in
their order what `PLACE` says.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.records.files import replacing, user_cache

Place = tuple[int, int, float]  # first byte, bytes, time

_HEAD = struct.Struct("<8sQqQ")  # what it is, size and time of the archive, number of members
_MAGIC = b"ramtar1\n"
_HASH = np.dtype("<u8")
PLACE = np.dtype([
    ("hash", "<u8"), ("start", "<u8"), ("size", "<u8"), ("time", "<f8"), ("is_whole", "u1"),
])  # fmt: skip


class TarPlaces:
    """The places in an index file."""

    def __init__(self, stream: BinaryIO, n_members: int) -> None:
        end = _HEAD.size + n_members * _HASH.itemsize
        self._hashes: NDArray[Any] = np.memmap(stream, _HASH, "r", _HEAD.size, n_members)
        self._places: NDArray[Any] = np.memmap(stream, PLACE, "r", end, n_members)

    @classmethod
    def load(cls, archive: Path, facts: os.stat_result) -> "TarPlaces | None":
        """The index of an archive as it is now; None where there is none."""
        for path in _paths(archive):
            with suppress(OSError, ValueError, struct.error), path.open("rb") as stream:
                magic, size, time, n = _HEAD.unpack(stream.read(_HEAD.size))
                n_bytes = _HEAD.size + n * (_HASH.itemsize + PLACE.itemsize)
                is_whole = os.fstat(stream.fileno()).st_size == n_bytes
                if is_whole and (magic, size, time) == (_MAGIC, facts.st_size, facts.st_mtime_ns):
                    return cls(stream, n)
        return None

    def find(self, member: str) -> Place | None:
        """The place of a member."""
        first, second = _hashes_of(member)
        row = int(np.searchsorted(self._hashes, np.uint64(first)))
        while row < len(self._hashes) and self._hashes[row] == first:
            found, start, size, time, is_whole = self._places[row].tolist()
            if found == second:
                return start, size, int(time) if is_whole else time
            row += 1
        return None


def save_places(archive: Path, facts: os.stat_result, places: Mapping[str, Place]) -> None:
    """Write the index of an archive, where that is possible; an empty one has none."""
    rows = np.zeros(len(places), PLACE)
    hashes = np.zeros(len(places), _HASH)
    try:
        for row, (name, (start, size, time)) in enumerate(places.items()):
            hashes[row], second = _hashes_of(name)
            rows[row] = second, start, size, time, isinstance(time, int)
            if rows[row]["time"] != time:  # a stamp must not depend on the index
                return
    except OverflowError:  # no real archive
        return
    order = np.argsort(hashes, kind="stable")
    head = _HEAD.pack(_MAGIC, facts.st_size, facts.st_mtime_ns, len(places))
    for path in _paths(archive) if len(places) else ():
        with suppress(OSError, RunProblem):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as stream:
                stream.write(head + hashes[order].tobytes() + rows[order].tobytes())
            return


def _paths(archive: Path) -> Iterator[Path]:
    """Where the index of an archive may be, the best place first."""
    yield archive.with_name(archive.name + ".index")
    name = hashlib.blake2b(os.fsencode(archive.resolve()), digest_size=16).hexdigest()
    yield user_cache("archives") / f"{name}.index"


def _hashes_of(member: str) -> tuple[int, int]:
    digest = hashlib.blake2b(member.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
