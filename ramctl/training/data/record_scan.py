"""One pass over all records: which are valid, which tags they name, which are held out.

Several processes read the files in pieces; the result does not depend on their number.
"""

import gc
import hashlib
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.inputs import ROOT_CHECK_RECORDS, RootCheck
from ramctl.records.jsonl import bounded_lines, parse_line
from ramctl.records.parallel import ordered_workers
from ramctl.records.pipes import mode_of
from ramctl.records.record import Reject, shown_name
from ramctl.records.remote import base_url, exists_below
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.targets import TagCounts, read_annotation

PIECE_BYTES = 1 << 24  # of a file: a second's work
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
    # The archive of each record's photo, or else its source; None unless requested.
    shards: NDArray[np.uint32] | None


def scan_records(
    sources: Sequence[Source], on_reject: Callable[[Reject], None], stage: str, *,
    hold_out: bool, takes_untagged: bool = False,
    with_shards: bool = False, jobs: int = 1,
) -> ScannedRecords:  # fmt: skip
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records without tags are trained on too.
    """
    records, counts = RecordFile(sources), TagCounts()
    root_check, digest = RootCheck(), hashlib.sha256()
    slots, shards, numbers = array("H"), array("I"), dict[str, int]()
    n_lines, source_before, lines_before = 0, -1, 0
    sizes = [source.path.stat().st_size for source in sources]
    scan = partial(_scan_piece, takes_untagged=takes_untagged)
    pieces = (
        (number, (source, start, start + PIECE_BYTES))
        for number, source in enumerate(sources)
        for start in range(0, sizes[number], PIECE_BYTES)
    )
    with ExitStack() as stack:
        # Many processes for a few small files would take longer.
        jobs = min(jobs, -(-sum(sizes) // PIECE_BYTES))
        scanned_pieces: Iterator[tuple[int, _ScannedPiece]]
        scanned_pieces = ((number, scan(piece)) for number, piece in pieces)
        if jobs > 1:
            scanned_pieces = stack.enter_context(ordered_workers(jobs, gc.freeze))(scan, pieces)
        for number, scanned in scanned_pieces:
            if number != source_before:
                source_before, lines_before = number, 0
            for name, base in scanned.first[: max(0, ROOT_CHECK_RECORDS - len(records))]:
                root_check.count(name, exists=_exists(name, base))
            records.extend(scanned.records, number, lines_before)
            bad = RecordFile(sources)
            bad.extend(scanned.bad_lines, number, lines_before)
            for index, problem in enumerate(scanned.problems):
                # Read again: not every number in a line survives the way between processes.
                item = bad.item(index, stage)
                if problem is not None and not isinstance(item, Reject):
                    item = Reject.of(item, RecordProblem(problem[0], code=problem[1]), stage)
                if isinstance(item, Reject):
                    on_reject(item)
            counts.merge(scanned.counts)
            digest.update(scanned.digest)
            n_lines += scanned.n_lines
            lines_before += scanned.n_with_blank
            slots.extend(scanned.slots)
            if with_shards:
                shards.extend(numbers.setdefault(s, len(numbers)) for s in scanned.shards)
    if not len(records):
        names = [shown_name(source.name) for source in sources[:3]]
        raise RunProblem(f"no usable records in {', '.join(names)}")
    mask = _held_out(np.frombuffer(slots, np.uint16)) if hold_out else np.zeros(len(records), bool)
    ids = np.flatnonzero(~mask), np.flatnonzero(mask)
    shard_ids = np.frombuffer(shards, np.uint32) if with_shards else None
    return ScannedRecords(records, counts, digest.hexdigest(), n_lines, *ids, shard_ids)


def content_sha256(sources: Sequence[Source]) -> str:
    """The hash that `scan_records` gives of the same records, without a look at them."""
    digest = hashlib.sha256()
    for source in sources:
        for start in range(0, source.path.stat().st_size, PIECE_BYTES):
            piece = hashlib.sha256()
            for _, _, content in _lines(source.path, start, start + PIECE_BYTES):
                if content.strip():
                    piece.update(content)
            digest.update(piece.digest())
    return digest.hexdigest()


@dataclass(slots=True)
class _ScannedPiece:
    """The result of one pass over a piece; its lines are counted from 1."""

    records: RecordFile
    bad_lines: RecordFile
    problems: list[tuple[str, str] | None]  # message and code; None: the line is no record
    counts: TagCounts
    first: list[tuple[str, Path]]  # photos and their folders, for the check of --root
    slots: "array[int]"
    shards: list[str]
    digest: bytes = b""
    n_lines: int = 0  # that are not blank
    n_with_blank: int = 0


def _scan_piece(piece: tuple[Source, int, int], *, takes_untagged: bool) -> _ScannedPiece:
    source, start, stop = piece
    good, bad = RecordFile([source]), RecordFile([source])
    scanned = _ScannedPiece(good, bad, [], TagCounts(), [], array("H"), [])
    digest = hashlib.sha256()
    for line, offset, content in _lines(source.path, start, stop):
        scanned.n_with_blank = line
        if not content.strip():
            continue
        scanned.n_lines += 1
        digest.update(content)
        place = 0, offset, len(content), line
        record = parse_line(content, shown_name(source.name), line, source.base, "", stamped=False)
        if isinstance(record, Reject):
            scanned.bad_lines.add(*place)
            scanned.problems.append(None)
            continue
        try:
            annotation = read_annotation(record)
            if not takes_untagged:
                annotation.require_tags()
        except RecordProblem as problem:
            scanned.bad_lines.add(*place)
            scanned.problems.append((problem.message, problem.code))
            continue
        if len(scanned.first) < ROOT_CHECK_RECORDS:
            scanned.first.append((annotation.image, annotation.base))
        scanned.records.add(*place)
        scanned.counts.add(record, annotation)
        scanned.slots.append(_slot(annotation.image) if annotation.is_tagged else NO_SLOT)
        inside = split_member(annotation.image)
        scanned.shards.append(str(annotation.base / inside[0]) if inside else source.name)
    scanned.digest = digest.digest()
    return scanned


def _lines(path: Path, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
    """(line number in the piece, offset, line) of all lines that begin in a piece."""
    with path.open("rb") as stream:
        lines = bounded_lines(stream)
        if start:
            stream.seek(start - 1)
            next(lines, None)  # the end of a line of the piece before
        for number, line in enumerate(lines, 1):
            offset = stream.tell() - len(line)
            if offset >= stop:
                return
            content = line.removeprefix(BOM_UTF8) if offset == 0 else line
            yield number, offset + len(line) - len(content), content


def _exists(image: str, base: Path) -> bool:
    archive = (split_member(image) or [image])[0]
    if base_url(base) is not None:
        return exists_below(base, archive)
    return any(mode_of(base / name) for name in {image, archive})


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
