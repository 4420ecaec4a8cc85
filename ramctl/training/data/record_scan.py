"""One pass over all lines of the records: which are good, what they name, which are held out.

Files are read in pieces, by several processes; what is found is put together in order, and is the
same for any number of them. It is kept in a file, the index: a resumed run and the other processes
of one that begins read that in seconds, however many records there are.
"""

import gc
import hashlib
import json
import zipfile
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.archives import split_member
from ramctl.records.files import replacing
from ramctl.records.inputs import ROOT_CHECK_RECORDS, RootCheck
from ramctl.records.jsonl import MAX_LINE, bounded_lines, parse_line
from ramctl.records.parallel import ordered_workers
from ramctl.records.record import JsonObject, Reject, shown_name
from ramctl.records.remote import base_url, exists_below
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.targets import TagCounts, read_annotation, require_tags

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

COLUMNS = ("source", "offset", "length", "line")  # of a RecordFile, in the index
BAD_COLUMNS = ("bad_source", "bad_offset", "bad_length", "bad_line")
Problem = tuple[str, str]  # message and code
OnReject = Callable[[Reject], None]


@dataclass(slots=True)
class BadLines:
    """The lines that are no records for a stage, by their places, and what is wrong with each.

    None where the line itself says it: it is no JSON object, say.
    """

    lines: RecordFile
    stage: str
    max_line: int
    problems: list[Problem | None] = field(default_factory=list)

    def rejects(self, first: int = 0) -> Iterator[Reject]:
        """The rejects from a number on, made of the lines again."""
        for number in range(first, len(self.lines)):
            item = self.lines.item(number, self.stage, self.max_line)
            problem = self.problems[number]
            if isinstance(item, Reject):
                yield item
            elif problem is not None:
                message, code = problem
                yield Reject.of(item, RecordProblem(message, code=code), self.stage)


@dataclass(slots=True)
class ScannedRecords:
    """The good records of a run, and what one pass over all lines tells."""

    records: RecordFile
    bad: BadLines
    counts: TagCounts
    sha256: str  # of what all lines hold, good and bad
    n_lines: int
    training_ids: NDArray[np.int64]  # the records that are trained on
    held_out_ids: NDArray[np.int64]  # those that are only validated on
    # Of each record the archive of its photo, or else its source; None where nobody asks.
    shards: NDArray[np.uint32] | None


def scan_records(
    sources: Sequence[Source], on_reject: OnReject, stage: str, *,
    hold_out: bool, takes_untagged: bool = False, max_line: int = MAX_LINE,
    with_shards: bool = False, jobs: int = 1,
) -> ScannedRecords:  # fmt: skip
    """Read all records once; RunProblem when there is none, or none of the first photos exists.

    With `hold_out`, 2 to 10 % of the photos are set aside, 5,000 at most, unless these are too few
    to choose thresholds on. With `takes_untagged`, records that nobody tagged are trained on too.
    Lines of more than `max_line` bytes are rejects, of which the first bytes are read.
    """
    records, counts = RecordFile(sources), TagCounts()
    bad = BadLines(RecordFile(sources), stage, max_line)
    root_check, digest = RootCheck(), hashlib.sha256()
    shares, shards, numbers = array("H"), array("I"), dict[str, int]()
    n_lines, source_before, lines_before = 0, -1, 0
    pieces = (
        _Piece(number, source, start, start + PIECE_BYTES, takes_untagged, max_line, with_shards)
        for number, source in enumerate(sources)
        for start in range(0, source.path.stat().st_size, PIECE_BYTES)
    )
    # Many processes for a few small files would take longer.
    n_bytes = sum(source.path.stat().st_size for source in sources)
    for piece, scanned in _scan_pieces(pieces, min(jobs, -(-n_bytes // PIECE_BYTES))):
        if piece.number != source_before:
            source_before, lines_before = piece.number, 0
        for name, base in scanned.first[: max(0, ROOT_CHECK_RECORDS - len(records))]:
            root_check.count(name, exists=_exists(name, base))
        records.extend(scanned.records, piece.number, lines_before)
        bad.lines.extend(scanned.bad_lines, piece.number, lines_before)
        bad.problems += scanned.problems
        for reject in bad.rejects(first=len(bad.lines) - len(scanned.bad_lines)):
            on_reject(reject)
        counts.merge(scanned.counts)
        digest.update(scanned.digest)
        n_lines += scanned.n_lines
        lines_before += scanned.n_with_blank
        shares.extend(scanned.shares)
        if with_shards:
            places = array(
                "I", (numbers.setdefault(place, len(numbers)) for place in scanned.places)
            )
            shards.extend(places[shard] for shard in scanned.shards)
    if not len(records):
        raise RunProblem("no records to train on")
    mask = np.zeros(len(records), bool)
    if hold_out:
        mask = _held_out(np.frombuffer(shares, np.uint16))
    ids = np.flatnonzero(~mask), np.flatnonzero(mask)
    shard_ids = np.frombuffer(shards, np.uint32) if with_shards else None
    return ScannedRecords(records, bad, counts, digest.hexdigest(), n_lines, *ids, shard_ids)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The lines of a source that begin at an offset from `start` to before `stop`."""

    number: int  # of the source
    source: Source
    start: int
    stop: int
    takes_untagged: bool
    max_line: int
    with_shards: bool


@dataclass(slots=True)
class _ScannedPiece:
    """What one pass over a piece tells; its lines are counted from 1."""

    records: RecordFile
    bad_lines: RecordFile
    problems: list[Problem | None]
    counts: TagCounts
    first: list[tuple[str, Path]]  # photos and their folders, of as many as are looked for
    shares: "array[int]"
    shards: "array[int]"  # of `places`
    places: list[str]
    digest: bytes = b""
    n_lines: int = 0  # that are not blank
    n_with_blank: int = 0


def _scan_pieces(pieces: Iterator[_Piece], jobs: int) -> Iterator[tuple[_Piece, _ScannedPiece]]:
    if jobs < 2:
        yield from ((piece, _scan_piece(piece)) for piece in pieces)
        return
    with ordered_workers(jobs, gc.freeze) as run:
        yield from run(_scan_piece, ((piece, piece) for piece in pieces))


def _scan_piece(piece: _Piece) -> _ScannedPiece:
    source = piece.source
    scanned = _ScannedPiece(
        RecordFile([source]), RecordFile([source]), [], TagCounts(), [], array("H"), array("I"), []
    )
    digest, places = hashlib.sha256(), dict[str, int]()
    for line, offset, content in _lines(piece):
        scanned.n_with_blank = line
        if not content.strip():
            continue
        scanned.n_lines += 1
        digest.update(content)
        place = 0, offset, len(content), line
        record = parse_line(
            content, shown_name(source.name), line, source.base, "", piece.max_line, stamped=False
        )
        if isinstance(record, Reject):
            scanned.bad_lines.add(*place)
            scanned.problems.append(None)
            continue
        try:
            annotation = read_annotation(record)
            if not piece.takes_untagged:
                require_tags(annotation)
        except RecordProblem as problem:
            scanned.bad_lines.add(*place)
            scanned.problems.append((problem.message, problem.code))
            continue
        if len(scanned.first) < ROOT_CHECK_RECORDS:
            scanned.first.append((annotation.image, annotation.base))
        scanned.records.add(*place)
        scanned.counts.add(record, annotation)
        scanned.shares.append(_share_of(annotation.image) if annotation.is_tagged else NO_SHARE)
        if not piece.with_shards:
            continue
        inside = split_member(annotation.image)
        shard = str(annotation.base / inside[0]) if inside else source.name
        scanned.shards.append(places.setdefault(shard, len(places)))
    scanned.digest, scanned.places = digest.digest(), list(places)
    return scanned


def _lines(piece: _Piece) -> Iterator[tuple[int, int, bytes]]:
    """(line number in the piece, offset, line) of all lines, as `bounded_lines`."""
    with piece.source.path.open("rb") as stream:
        lines = bounded_lines(stream, piece.max_line)
        if piece.start:
            stream.seek(piece.start - 1)
            next(lines, None)  # the end of a line of the piece before
        for number, line in enumerate(lines, 1):
            offset = stream.tell() - len(line)
            if offset >= piece.stop:
                return
            content = line.removeprefix(BOM_UTF8) if offset == 0 else line
            yield number, offset + len(line) - len(content), content


def _exists(image: str, base: Path) -> bool:
    inside = split_member(image)
    if base_url(base) is not None:
        return exists_below(base, image if inside is None else inside[0])
    names = [image] if inside is None else [image, inside[0]]
    return any((base / name).exists() for name in names)


def _held_out(shares: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which records (N) are held out: those of the first few parts of the photos."""
    parts = np.minimum(shares // SHARES, MOST_PARTS)
    so_far = np.bincount(parts, minlength=MOST_PARTS)[:MOST_PARTS].cumsum()
    n_parts = min(int((so_far < ENOUGH_HELD_OUT).sum()) + 1, MOST_PARTS)
    if so_far[n_parts - 1] < FEWEST_HELD_OUT:
        n_parts = 0
    limit = n_parts * SHARES
    below = shares[shares < limit]
    if len(below) > MOST_HELD_OUT:
        limit = int(np.partition(below, MOST_HELD_OUT)[MOST_HELD_OUT])
    return shares < limit


def _share_of(image: str) -> int:
    """A photo's part and share of it; NO_SHARE in parts that are never held out."""
    # By a hash of the name, so that a photo stays on its side when records are added.
    name = image.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(name, digest_size=8).digest()
    share, part = divmod(int.from_bytes(digest, "little"), PARTS)
    return part * SHARES + share % SHARES if part < MOST_PARTS else NO_SHARE


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """The file, and what it is an index of: sources, and how they are read."""

    path: Path
    sources: Sequence[Source]
    options: JsonObject

    def scanned(
        self, scan: Callable[[OnReject], ScannedRecords], on_reject: OnReject, *, keep: bool
    ) -> ScannedRecords:
        """The scanned records: those of the file while the sources are unchanged, else by `scan`.

        With `keep`, what `scan` found is written. Rejects are told either way.
        """
        facts = self._facts()
        records = self._read(facts)
        if records is not None:
            for reject in records.bad.rejects():
                on_reject(reject)
            return records
        records = scan(on_reject)
        if keep and self._facts() == facts:  # else a source grew meanwhile
            self._write(facts, records)
        return records

    def _facts(self) -> JsonObject:
        stats = [source.path.stat() for source in self.sources]
        names = [[str(source.path), shown_name(source.name)] for source in self.sources]
        return self.options | {
            "sources": [
                [*name, stat.st_size, stat.st_mtime_ns]
                for name, stat in zip(names, stats, strict=True)
            ]
        }

    def _write(self, facts: JsonObject, scanned: ScannedRecords) -> None:
        counts, bad = scanned.counts, scanned.bad
        table = {
            "facts": facts,
            "bad": [bad.stage, bad.max_line, bad.problems],
            "sha256": scanned.sha256,
            "n_lines": scanned.n_lines,
            "n_records": counts.n_records,
            "n_captions": counts.n_captions,
            "tags": list(counts.tags.items()),
            "kinds": [[*pair, number] for pair, number in counts.kinds.items()],
        }
        arrays: dict[str, Any] = {
            "table": np.frombuffer(json.dumps(table).encode("ascii"), np.uint8),
            "training": scanned.training_ids,
            "held_out": scanned.held_out_ids,
        }
        for names, lines in ((COLUMNS, scanned.records), (BAD_COLUMNS, bad.lines)):
            arrays |= dict(zip(names, map(np.asarray, lines.columns), strict=True))
        if scanned.shards is not None:
            arrays["shards"] = scanned.shards
        with replacing(self.path) as stream:
            np.savez(stream, **arrays)

    def _read(self, facts: JsonObject) -> ScannedRecords | None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                table = json.loads(file["table"].tobytes())
                if table["facts"] != facts:
                    return None
                records, lines = (
                    RecordFile(self.sources, [file[name] for name in columns])
                    for columns in (COLUMNS, BAD_COLUMNS)
                )
                ids = file["training"], file["held_out"]
                shards = file.get("shards")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # not written yet, or damaged
        kinds = Counter({(tag, kind): number for tag, kind, number in table["kinds"]})
        counts = TagCounts(
            table["n_records"], Counter(dict(table["tags"])), kinds, table["n_captions"]
        )
        stage, max_line, problems = table["bad"]
        bad = BadLines(lines, stage, max_line, problems)
        return ScannedRecords(records, bad, counts, table["sha256"], table["n_lines"], *ids, shards)
