"""Records on disk, addressed by number: offsets into their files instead of objects.

A record costs 18 bytes of memory however long its line is, so that 14 million of them fit.
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
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.files import replacing
from ramctl.records.inputs import ROOT_CHECK_RECORDS, STDIN, RootCheck, open_input
from ramctl.records.jsonl import MAX_LINE, bounded_lines, parse_line
from ramctl.records.record import Record, Reject
from ramctl.records.remote import COPY_BYTES, base_url, exists_below, photo_base
from ramctl.training.data.annotations import Annotation, read_annotation, require_tags
from ramctl.training.data.targets import TagCounts

# Photos that are never trained on choose the thresholds and tell what scores are worth: 2 %, or as
# many times 2 % as give enough of them. Of 1,000 photos, 10 % cost 0.001 mAP on flickr8k-dev, and
# tags chosen for precision 0.8 had 0.79 there; by out-of-fold scores of two more models 0.78, of
# five 0.77, by the training photos themselves 0.38. Other 100 photos gave 0.79 +- 0.04, 50 photos
# 0.77 +- 0.06.
PARTS = 50  # of the photos, by a hash of their names
MOST_PARTS = 5
SHARES = 1000  # of a part, by which more than enough photos are cut
MOST_HELD_OUT = 5000
ENOUGH_HELD_OUT = 100
FEWEST_HELD_OUT = 50  # with fewer photos, thresholds would be guesses: nothing is held out
NO_SHARE = 65535  # of photos without tags, which tell nothing
OPEN_SOURCES = 32  # files that are open at a time in each process


@dataclass(frozen=True, slots=True)
class Source:
    """A JSONL file: `name` as the user gave it, `base` of its relative photo names."""

    path: Path
    name: str
    base: Path

    @classmethod
    def of(cls, name: str, root: str | None, path: Path | None = None) -> "Source":
        """The source that the user named; `path` is of its copy, if it had to be copied."""
        return cls(path or Path(name), name, photo_base(name, root))


class _Descriptor:
    """A file that is open to be read by offset for as long as someone refers to it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):  # it could be opened
            os.close(self.number)


class RecordFile:
    """The records of some files by number; reading one parses its line again.

    Of however many files, those that were read last are open.

    Safe in forked worker processes: lines are read by offset, not from a shared position.
    """

    def __init__(
        self, sources: Sequence[Source], columns: Sequence[NDArray[Any]] | None = None
    ) -> None:
        self.sources = list(sources)
        # Of each record: the number of its source, offset, length in bytes, line number.
        self.columns = tuple(array(code) for code in "HqII")
        for own, given in zip(self.columns, columns or (), strict=False):
            own.frombytes(given.tobytes())
        self._open: dict[int, _Descriptor] = {}  # by source, the last used last

    def __len__(self) -> int:
        return len(self.columns[0])

    def add(self, source: int, offset: int, length: int, line: int) -> None:
        """Append the record at `offset` of a source."""
        for column, value in zip(self.columns, (source, offset, length, line), strict=True):
            column.append(value)

    def __getitem__(self, index: int) -> Record:
        number, offset, length, line = (column[index] for column in self.columns)
        source = self.sources[number]
        content = os.pread(self._opened(number).number, length, offset)
        record = parse_line(content, source.name, line, source.base, "train", length)
        if isinstance(record, Reject):
            raise RunProblem(f"{source.name} changed while it was being read")
        return record

    def _opened(self, number: int) -> _Descriptor:
        source = self._open.pop(number, None)
        if source is None:
            source = _Descriptor(self.sources[number].path)
        self._open[number] = source
        for oldest in list(self._open)[:-OPEN_SOURCES]:
            self._open.pop(oldest, None)
        return source

    def __getstate__(self) -> dict[str, Any]:
        # A descriptor means nothing in a spawned worker process: each opens its own.
        return self.__dict__ | {"_open": {}}


def spool(name: str, folder: Path) -> Path | None:
    """A plain copy in `folder` of what cannot be read twice or by offset.

    That is stdin, `.gz`, a pipe, or what is at a URL; None for a file.
    """
    if name != STDIN and not name.endswith(".gz") and Path(name).is_file():
        return None
    target = folder / ("records.jsonl" if name == STDIN else Path(name).stem)
    number = 1
    while target.exists():
        number += 1
        target = target.with_name(f"{target.stem}-{number}.jsonl")
    with open_input(name) as stream, replacing(target) as copy:
        shutil.copyfileobj(stream, copy, COPY_BYTES)
    return target


@dataclass(slots=True)
class ScannedRecords:
    """The good records of a run, and what one pass over all lines tells."""

    records: RecordFile
    counts: TagCounts
    sha256: str  # of all lines, good and bad
    n_lines: int
    training_ids: NDArray[np.int64]  # the records that are trained on
    held_out_ids: NDArray[np.int64]  # those that are only validated on
    # Of each record the archive of its photo, or else its source; None where nobody asks.
    shards: NDArray[np.uint32] | None


def scan_records(
    sources: Sequence[Source], on_reject: Callable[[Reject], None], stage: str, *,
    hold_out: bool, takes_untagged: bool = False, max_line: int = MAX_LINE,
    with_shards: bool = False,
) -> ScannedRecords:  # fmt: skip
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records that nobody tagged are trained on too.
    Lines of more than `max_line` bytes are rejects, of which the first bytes are read.
    """
    records, counts, root_check = RecordFile(sources), TagCounts(), RootCheck()
    digest, n_lines, shares = hashlib.sha256(), 0, array("H")
    shards, numbers = array("I"), dict[str, int]()
    for number, source in enumerate(sources):
        for line, offset, content in _lines(source.path, max_line):
            digest.update(content)
            n_lines += 1
            record = parse_line(content, source.name, line, source.base, stage, max_line)
            if isinstance(record, Reject):
                on_reject(record)
                continue
            try:
                annotation = read_annotation(record)
                if not takes_untagged:
                    require_tags(annotation)
            except RecordProblem as problem:
                on_reject(Reject.of(record, problem, stage))
                continue
            if len(records) < ROOT_CHECK_RECORDS:
                root_check.count(annotation.image, exists=_exists(annotation))
            counts.add(record, annotation)
            tells = hold_out and annotation.is_tagged
            shares.append(_share_of(annotation.image) if tells else NO_SHARE)
            if with_shards:
                inside = split_member(annotation.image)
                place = str(annotation.base / inside[0]) if inside else source.name
                shards.append(numbers.setdefault(place, len(numbers)))
            records.add(number, offset, len(content), line)
    if not len(records):
        raise RunProblem("no records to train on")
    mask = _held_out(np.frombuffer(shares, np.uint16))
    ids = np.flatnonzero(~mask), np.flatnonzero(mask)
    own = np.frombuffer(shards, np.uint32) if with_shards else None
    return ScannedRecords(records, counts, digest.hexdigest(), n_lines, *ids, own)


def _lines(path: Path, max_line: int) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset, line) of all lines that are not blank, as `bounded_lines`."""
    with path.open("rb") as stream:
        for number, line in enumerate(bounded_lines(stream, max_line), 1):
            content = line.removeprefix(BOM_UTF8) if number == 1 else line
            if content.strip():
                yield number, stream.tell() - len(content), content


def _exists(photo: Annotation) -> bool:
    inside = split_member(photo.image)
    if base_url(photo.base) is not None:
        return exists_below(photo.base, photo.image if inside is None else inside[0])
    names = [photo.image] if inside is None else [photo.image, inside[0]]
    return any((photo.base / name).exists() for name in names)


def _held_out(shares: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which records (N) are held out: those of the first few parts of the photos."""
    parts = np.minimum(shares // SHARES, MOST_PARTS)
    so_far = np.bincount(parts, minlength=MOST_PARTS)[:MOST_PARTS].cumsum()
    n_parts = min(int((so_far < ENOUGH_HELD_OUT).sum()) + 1, MOST_PARTS)
    if so_far[n_parts - 1] < FEWEST_HELD_OUT:
        n_parts = 0
    limit = n_parts * SHARES
    found = shares[shares < limit]
    if len(found) > MOST_HELD_OUT:
        limit = int(np.partition(found, MOST_HELD_OUT)[MOST_HELD_OUT])
    return shares < limit


def _share_of(image: str) -> int:
    """A photo's part and share of it; NO_SHARE in parts that are never held out."""
    # By a hash of the name, so that a photo stays on its side when records are added.
    name = image.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(name, digest_size=8).digest()
    share, part = divmod(int.from_bytes(digest, "little"), PARTS)
    return part * SHARES + share % SHARES if part < MOST_PARTS else NO_SHARE
