"""Photos whose bytes are in a Parquet file, as `datasets` and img2dataset write them.

They are named by their rows, `FILE.parquet#17` (from 0), as those in archives are by their members.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, cast

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.parquet import DAMAGE, opened, photo_column

_MAX_RECENT = 8  # photos in memory


class ParquetPhotos:
    """The photos in a Parquet file by row number, read one after the other where possible."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = opened(str(path))
        except RunProblem as problem:
            raise RecordProblem(problem.message, code="unreadable_image") from problem
        self._column = photo_column(self._file)
        groups = range(self._file.num_row_groups)
        n_rows = (self._file.metadata.row_group(index).num_rows for index in groups)
        self._starts = [0, *accumulate(n_rows)]
        self._lock = Lock()
        self._next = self._starts[-1]  # row
        self._rows: Iterator[Any] = iter(())  # the rest of its group
        self._recent: dict[int, Any] = {}  # the last photos: threads need them out of order

    def members(self) -> Iterator[str]:
        """The names of all photos."""
        return map(str, range(self._starts[-1] if self._column else 0))

    def stamp(self, member: str) -> str:
        """A constant for an existing photo; RecordProblem for others."""
        if not (self._column and member.isdecimal() and int(member) < self._starts[-1]):
            raise RecordProblem("no such photo in the file", code="missing_image")
        return member

    def read(self, member: str, max_bytes: int) -> bytes:
        """The bytes of a row's photo; RecordProblem if it is missing or too large."""
        row = int(self.stamp(member))
        with self._lock:
            try:
                while row not in self._recent:
                    self._read_on(row, max_bytes)
            except DAMAGE as error:
                raise RecordProblem(str(error).splitlines()[0], code="unreadable_image") from error
            photo = self._recent[row]
        content = photo.get("bytes") if isinstance(photo, dict) else photo
        if content is None:
            raise RecordProblem("the row has no photo", code="missing_image")
        return cast(bytes, content)

    def _read_on(self, row: int, max_bytes: int) -> None:
        group = bisect_right(self._starts, row) - 1
        start = self._starts[group]
        if not start < self._next <= row:
            if (size := self._file.metadata.row_group(group).total_byte_size) > max_bytes:
                message = f"its row group has {size} bytes, more than the limit of {max_bytes}"
                raise RecordProblem(message, code="too_large")
            self._rows = self._file.iter_batches(1, row_groups=[group], columns=[self._column])
            self._next = start
        if (batch := next(self._rows, None)) is None:
            raise ValueError("fewer rows than the file states")
        self._recent[self._next] = batch.column(0)[0].as_py()
        self._next += 1
        for oldest in list(self._recent)[:-_MAX_RECENT]:
            del self._recent[oldest]
