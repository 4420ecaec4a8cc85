"""Records on disk, addressed by number.

A record costs 18 bytes of memory, its place in its file, so that 14 million of them fit.
"""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ramctl.errors import RunProblem
from ramctl.records.files import is_file, is_gzip, replacing
from ramctl.records.inputs import open_lines
from ramctl.records.jsonl import parse_line
from ramctl.records.parquet import SUFFIX
from ramctl.records.record import Record, Reject, shown_name
from ramctl.records.remote import photo_base

MAX_OPEN_SOURCES = 32  # files that are open at a time in each process


@dataclass(frozen=True, slots=True)
class Source:
    """A JSONL file: `name` as given by the user, `base` of its relative photo names."""

    path: Path
    name: str
    base: Path

    @classmethod
    def of(cls, name: str, root: str | None, path: Path | None = None) -> "Source":
        """The source of a name; `path` is that of its copy, if it had to be copied."""
        return cls(path or Path(name), name, photo_base(name, root))


class RecordFile:
    """The records of some files by number; reading one parses its line again.

    The files that were read last stay open. Safe in forked worker processes: lines are read by
    offset, not from a shared position.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        # The number of each record's source, its offset, length in bytes, and line number.
        self.columns = tuple(array(code) for code in "HqII")
        self._open: dict[int, FileIO] = {}  # by source, the last used last

    def __len__(self) -> int:
        return len(self.columns[0])

    def add(self, source: int, offset: int, length: int, line: int) -> None:
        """Append the record at `offset` of a source."""
        for column, value in zip(self.columns, (source, offset, length, line), strict=True):
            column.append(value)

    def __getitem__(self, index: int) -> Record:
        number, offset, length, line = (column[index] for column in self.columns)
        source = self.sources[number]
        content = os.pread(self._opened(number).fileno(), length, offset)
        record = parse_line(content, shown_name(source.name), line, source.base, "train")
        if isinstance(record, Reject):
            raise RunProblem(f"{record.source} changed while it was being read")
        return record

    def _opened(self, number: int) -> FileIO:
        source = self._open.pop(number, None) or FileIO(self.sources[number].path)
        self._open[number] = source
        for oldest in list(self._open)[:-MAX_OPEN_SOURCES]:
            self._open.pop(oldest, None)
        return source

    def __getstate__(self) -> dict[str, Any]:
        # A descriptor means nothing in a spawned worker process: each opens its own.
        return self.__dict__ | {"_open": {}}


def spool(name: str, target: Path) -> Path | None:
    """A copy of an input that cannot be read twice or by offset: stdin, `.gz`, Parquet, a pipe.

    None for a plain file. An existing copy is kept.
    """
    is_plain = not is_gzip(name) and not name.endswith(SUFFIX)
    if is_plain and is_file(name):
        return None
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with open_lines(name) as lines, replacing(target) as copy:
            copy.writelines(lines)
    return target
