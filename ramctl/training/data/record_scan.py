"""One pass over all lines of the records: which are good, what they name, which are held out.

Files are read in pieces, by several processes; what they tell is put together in order, and is the
same for any number of them.
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


@dataclass(slots=True)
class ScannedRecords:
    """The good records of a run, and what one pass over all lines tells."""

    records: RecordFile
    counts: TagCounts
    sha256: str  # of what all lines hold, good and bad
    n_lines: int
    training_ids: NDArray[np.int64]  # the records that are trained on
    held_out_ids: NDArray[np.int64]  # those that are only validated on
    # Of each record the archive of its photo, or else its source; None where nobody asks.
    shards: NDArray[np.uint32] | None


def scan_records(
    sources: Sequence[Source], on_reject: Callable[[Reject], None], stage: str, *,
    hold_out: bool, takes_untagged: bool = False,
    with_shards: bool = False, jobs: int = 1,
) -> ScannedRecords:  # fmt: skip
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records that nobody tagged are trained on too.
    """
    records, counts = RecordFile(sources), TagCounts()
    root_check, digest = RootCheck(), hashlib.sha256()
    shares, shards, numbers = array("H"), array("I"), dict[str, int]()
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
                # Read again: what is exact in a line does not pass from process to process.
                item = bad.item(index, stage)
                if problem is not None and not isinstance(item, Reject):
                    item = Reject.of(item, RecordProblem(problem[0], code=problem[1]), stage)
                if isinstance(item, Reject):
                    on_reject(item)
            counts.merge(scanned.counts)
            digest.update(scanned.digest)
            n_lines += scanned.n_lines
            lines_before += scanned.n_with_blank
            shares.extend(scanned.shares)
            if with_shards:
                shards.extend(numbers.setdefault(s, len(numbers)) for s in scanned.shards)
    if not len(records):
        raise RunProblem("no records to train on")
    mask = _held_out(np.frombuffer(shares, np.uint16)) if hold_out else np.zeros(len(records), bool)
    ids = np.flatnonzero(~mask), np.flatnonzero(mask)
    shard_ids = np.frombuffer(shards, np.uint32) if with_shards else None
    return ScannedRecords(records, counts, digest.hexdigest(), n_lines, *ids, shard_ids)


@dataclass(slots=True)
class _ScannedPiece:
    """What one pass over a piece tells; its lines are counted from 1."""

    records: RecordFile
    bad_lines: RecordFile
    problems: list[tuple[str, str] | None]  # message and code; None: the line is no record
    counts: TagCounts
    first: list[tuple[str, Path]]  # photos and their folders, of as many as are looked for
    shares: "array[int]"
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
        scanned.shares.append(_share_of(annotation.image) if annotation.is_tagged else NO_SHARE)
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
    if base_url(base) is not None:
        inside = split_member(image)
        return exists_below(base, image if inside is None else inside[0])
    return any(mode_of(base / name) for name in {image, *(split_member(image) or [image])[:1]})


def _held_out(shares: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which records (N) are held out: those of the first few parts of the photos."""
    parts = np.minimum(shares // SHARES, MOST_PARTS)
    so_far = np.bincount(parts, minlength=MOST_PARTS)[:MOST_PARTS].cumsum()
    n_parts = min(int((so_far < ENOUGH_HELD_OUT).sum()) + 1, MOST_PARTS)
    limit = 0 if so_far[n_parts - 1] < FEWEST_HELD_OUT else n_parts * SHARES
    below = shares[shares < limit]
    if len(below) > MOST_HELD_OUT:
        limit = int(np.partition(below, MOST_HELD_OUT)[MOST_HELD_OUT])
    return shares < limit


def _share_of(image: str) -> int:
    """A photo's part and share of it; NO_SHARE in parts that are never held out."""
    # By a hash of the name, so that a photo stays on its side when records are added.
    digest = hashlib.blake2b(image.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    share, part = divmod(int.from_bytes(digest, "little"), PARTS)
    return part * SHARES + share % SHARES if part < MOST_PARTS else NO_SHARE
