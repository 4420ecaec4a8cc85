"""The lines of a resume state, and what finds them by their keys in a few bytes of memory each."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from ramctl.records.record import JsonObject

_BLOCK = 1 << 20  # bytes that are parsed at a time
_SHORTEST = 32  # bytes of a line, at the least
_WRITTEN, _DROPPED, _TAKEN = 1, 2, 4


def parsed(line: bytes) -> JsonObject | None:
    """The object of a whole line; None for one that a crash has torn."""
    try:
        row = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> Iterator[tuple[bytes, JsonObject]]:
    """The lines of a state after its first, with their objects, up to one that is torn."""
    with path.open("rb") as stream:
        stream.readline()
        while lines := stream.readlines(_BLOCK):
            rows = _parsed_block(lines)
            yield from zip(lines, rows, strict=False)
            if len(rows) < len(lines):
                return


def _parsed_block(lines: list[bytes]) -> list[JsonObject]:
    """The objects of lines up to one that is torn; most often all, and parsed at once."""
    with suppress(ValueError):
        rows = orjson.loads(b"[" + b",".join(lines) + b"]") if lines[-1].endswith(b"\n") else []
        if len(rows) == len(lines) and {*map(type, rows)} == {dict}:
            return list(rows)
    rows = []
    for line in lines:
        if (row := parsed(line)) is None:
            break
        rows.append(row)
    return rows


class RowIndex:
    """Finds the rows of a state file by a field; they stay in the file, 21 bytes of each here.

    The hash of a key and the row share a number, hash first: sorted, they are sorted by key, and
    rows of one key keep their order. `n_bytes` are the file's, `start` those of its first line.
    """

    def __init__(self, n_bytes: int = 0, start: int = 0, field: str = "key") -> None:
        self._field = field
        self._row_mask = (1 << (n_bytes // _SHORTEST).bit_length()) - 1
        self._hash_mask = (1 << 64) - 1 - self._row_mask
        self._keys = array("Q")
        self._offsets = array("Q")
        self._flags = bytearray()
        self._n_gone = array("I")  # by the first place of a hash: rows there that are gone
        self._stream: BinaryIO | None = None
        self.n_bytes = start
        self.n_dropped = 0

    def __len__(self) -> int:
        return len(self._flags)

    def add(self, key: str, line: bytes, *, is_written: bool) -> None:
        """Add the next row; all come before the first `take`."""
        self._keys.append(hash(key) & self._hash_mask | len(self._flags))
        self._offsets.append(self.n_bytes)
        self._flags.append(_WRITTEN if is_written else 0)
        self.n_bytes += len(line)

    def open(self, path: Path) -> None:
        """Look rows up in this file from now on."""
        import numpy as np

        np.frombuffer(self._keys, np.uint64).sort()
        self._n_gone = array("I", [0]) * len(self)
        self._stream = path.open("rb")

    def close(self) -> None:
        """Look nothing up any more."""
        if self._stream is not None:
            self._stream.close()

    def take(self, key: str) -> tuple[int, JsonObject] | None:
        """The first row of this key, with its number, that is neither dropped nor taken before."""
        wanted = hash(key) & self._hash_mask
        first = bisect_left(self._keys, wanted)
        if first == len(self):
            return None
        place = first + self._n_gone[first]
        while place < len(self) and self._keys[place] & self._hash_mask == wanted:
            number = self._keys[place] & self._row_mask
            is_gone = not self.is_left(number)
            row = {} if is_gone else self._read(number)
            is_found = row.get(self._field) == key
            if (is_gone or is_found) and place == first + self._n_gone[first]:
                self._n_gone[first] += 1  # so that a key of many rows is not searched each time
            if is_found:
                self._flags[number] |= _TAKEN
                return number, row
            place += 1
        return None

    def _read(self, number: int) -> JsonObject:
        assert self._stream is not None
        self._stream.seek(self._offsets[number])
        return parsed(self._stream.readline()) or {}

    def is_written(self, number: int) -> bool:
        """Whether the file of its status has a line for a row."""
        return bool(self._flags[number] & _WRITTEN)

    def drop(self, number: int) -> None:
        """Have a row count no more."""
        self.n_dropped += not self.is_dropped(number)
        self._flags[number] |= _DROPPED

    def is_left(self, number: int) -> bool:
        """Whether a row was neither dropped nor taken."""
        return not self._flags[number] & (_DROPPED | _TAKEN)

    def is_dropped(self, number: int) -> bool:
        """Whether a row was dropped; one that came after the last `add` was not."""
        return number < len(self) and bool(self._flags[number] & _DROPPED)
