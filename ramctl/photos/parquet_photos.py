"""Photos whose bytes are in a Parquet file, as `datasets` and img2dataset write them.

They are named by their rows, `FILE.parquet#17` (from 0), as those in archives are by their members.
"""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, cast

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.parquet import DAMAGE, opened, photo_column


class ParquetPhotos:
    """The photos in a Parquet file by row number; two row groups are in memory."""

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
