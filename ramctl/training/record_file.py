"""Records on disk, by position: offsets into their files instead of objects.

A record of a file costs 18 bytes of memory however long it is, so that 14 million of them fit.
"""

import hashlib
import os
import shutil
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.inputs import STDIN, open_input
from ramctl.records.jsonl import parse_line
from ramctl.records.record import Record, Reject

OnReject = Callable[[Reject], None]


@dataclass(frozen=True, slots=True)
class Source:
    """A JSONL file: `name` as the user gave it, `base` of its relative photo names."""

    path: Path
    name: str
    base: Path


class RecordFile:
    """The records of some files by number; reading one parses its line again.

    Safe in forked worker processes: lines are read by offset, not by a shared position.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = list(sources)
        self._owner = array("H")
        self._offset = array("q")
        self._length = array("I")
        self._line = array("I")
        self._descriptors: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._offset)

    def add(self, source: int, offset: int, length: int, line: int) -> None:
        """Append the record at `offset` of a source."""
        self._owner.append(source)
        self._offset.append(offset)
        self._length.append(length)
        self._line.append(line)

    def __getitem__(self, index: int) -> Record:
        number = self._owner[index]
        if number not in self._descriptors:
            self._descriptors[number] = os.open(self.sources[number].path, os.O_RDONLY)
        line = os.pread(self._descriptors[number], self._length[index], self._offset[index])
        source = self.sources[number]
        record = parse_line(line, source.name, self._line[index], source.base, "train")
        if isinstance(record, Reject):
            raise RunProblem(f"{source.name} changed while it was read")
        return record

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_descriptors": {}}

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def spool(name: str, folder: Path) -> Path:
    """Keep what cannot be read twice or by offset (stdin, `.gz`) as a plain file in `folder`."""
    target = folder / ("records.jsonl" if name == STDIN else f"{Path(name).stem}")
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{target.stem}-{number}.jsonl")
    with open_input(name) as stream, target.open("wb") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
    return target


def needs_spool(name: str) -> bool:
    """Whether an input has to be kept before it can be read by offset."""
    return name == STDIN or name.endswith(".gz") or not Path(name).is_file()


@dataclass(frozen=True, slots=True)
class Scan:
    """One pass over the sources: the good records, and a hash of all their lines."""

    records: RecordFile
    sha256: str
    n_lines: int


def scan(
    sources: Sequence[Source], check: Callable[[Record], None], on_reject: OnReject, stage: str
) -> Scan:
    """Find every record and hand it to `check`, whose RecordProblem rejects it."""
    found = RecordFile(sources)
    digest, n_lines = hashlib.sha256(), 0
    for number, source in enumerate(sources):
        for line, offset, content in _lines(source.path):
            digest.update(content)
            n_lines += 1
            record = parse_line(content, source.name, line, source.base, stage)
            if isinstance(record, Reject):
                on_reject(record)
                continue
            try:
                check(record)
            except RecordProblem as problem:
                on_reject(Reject.of(record, problem, stage))
                continue
            found.add(number, offset, len(content), line)
    return Scan(found, digest.hexdigest(), n_lines)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset, line) of all lines but blank ones."""
    offset = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            content = line.removeprefix(BOM_UTF8) if number == 1 else line
            if content.strip():
                yield number, offset + len(line) - len(content), content
            offset += len(line)


def is_held_out(image: str, one_in: int) -> bool:
    """Whether a photo belongs to the split that is never trained on, by a hash of its name."""
    name = image.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(name, digest_size=8).digest()
    return int.from_bytes(digest, "little") % one_in == 0


def flags(bits: bytearray) -> np.ndarray:
    """Bytes that are 0 or 1 as an array of booleans."""
    return np.frombuffer(bytes(bits), np.uint8).astype(bool)
