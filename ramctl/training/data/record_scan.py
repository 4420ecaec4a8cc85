"""One pass over all records: which are valid, which tags they name, which are held out."""

import hashlib
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.files import exists
from ramctl.records.inputs import ROOT_CHECK_RECORDS, RootCheck
from ramctl.records.jsonl import parse_line
from ramctl.records.record import Reject, shown_name
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.targets import TagCounts, read_annotation

# Thresholds are chosen on photos that are never trained on: one part of them, or as many parts as
# give a sufficient number.
PARTS = 50  # of the photos, by a hash of their names
MAX_PARTS = 5  # that are held out
SLOTS = 1000  # of a part, by which a large part is cut down
MAX_HELD_OUT = 5000
SUFFICIENT_HELD_OUT = 100
MIN_HELD_OUT = 50  # with fewer photos, thresholds would be guesses: nothing is held out
NO_SLOT = 65535  # of photos that are never held out


@dataclass(slots=True)
class ScannedRecords:
    """The valid records of a run, and their counts."""

    records: RecordFile
    counts: TagCounts
    sha256: str  # of the content of all lines, valid or not
    n_lines: int
    training_ids: NDArray[np.int64]  # the records that are trained on
    held_out_ids: NDArray[np.int64]  # those that are only validated on


def scan_records(
    sources: Sequence[Source], on_reject: Callable[[Reject], None], stage: str, *,
    hold_out: bool, takes_untagged: bool = False,
) -> ScannedRecords:  # fmt: skip
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records without tags are trained on too.
    """
    records, counts = RecordFile(sources), TagCounts()
    root_check, digest = RootCheck(), hashlib.sha256()
    slots, n_lines = array("H"), 0
    for number, source in enumerate(sources):
        for line, offset, content in _lines(source.path):
            if not content.strip():
                continue
            n_lines += 1
            digest.update(content)
            record = parse_line(
                content, shown_name(source.name), line, source.base, stage, stamped=False
            )
            if isinstance(record, Reject):
                on_reject(record)
                continue
            try:
                annotation = read_annotation(record)
                if not takes_untagged:
                    annotation.require_tags()
            except RecordProblem as problem:
                on_reject(Reject.of(record, problem, stage))
                continue
            if len(records) < ROOT_CHECK_RECORDS:
                exists = _exists(annotation.image, annotation.base)
                root_check.count(annotation.image, exists=exists)
            records.add(number, offset, len(content), line)
            counts.add(record, annotation)
            slots.append(_slot(annotation.image) if annotation.is_tagged else NO_SLOT)
    if not len(records):
        names = [shown_name(source.name) for source in sources[:3]]
        raise RunProblem(f"no usable records in {', '.join(names)}")
    mask = _held_out(np.frombuffer(slots, np.uint16)) if hold_out else np.zeros(len(records), bool)
    ids = np.flatnonzero(~mask), np.flatnonzero(mask)
    return ScannedRecords(records, counts, digest.hexdigest(), n_lines, *ids)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, offset, line) of all lines of a file."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            content = line.removeprefix(BOM_UTF8) if number == 1 else line
            yield number, stream.tell() - len(content), content


def _exists(image: str, base: Path) -> bool:
    archive = (split_member(image) or [image])[0]
    return any(exists(base / name) for name in {image, archive})


def _held_out(slots: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which records (N,) are held out: those of the first few parts of the photos."""
    parts = np.minimum(slots // SLOTS, MAX_PARTS)
    so_far = np.bincount(parts, minlength=MAX_PARTS)[:MAX_PARTS].cumsum()
    n_parts = min(int((so_far < SUFFICIENT_HELD_OUT).sum()) + 1, MAX_PARTS)
    limit = 0 if so_far[n_parts - 1] < MIN_HELD_OUT else n_parts * SLOTS
    below = slots[slots < limit]
    if len(below) > MAX_HELD_OUT:
        limit = int(np.partition(below, MAX_HELD_OUT)[MAX_HELD_OUT])
    return slots < limit


def _slot(image: str) -> int:
    """The slot of a photo by its name, counted through the parts; NO_SLOT in the other parts."""
    # By a hash of the name, so that a photo stays on its side when records are added.
    digest = hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    slot, part = divmod(int.from_bytes(digest, "little"), PARTS)
    return part * SLOTS + slot % SLOTS if part < MAX_PARTS else NO_SLOT
