"""The review: a page on which a person accepts or refuses tags, and downloads the decisions.

The page can hold thousands of tags: photos are text until they are shown, a few at a time.
"""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from ramctl.errors import RecordProblem, attempt
from ramctl.pages import Thumbnail, render_pieces, thumbnail
from ramctl.pages.gallery import Adder
from ramctl.records.fields import scored_boxes
from ramctl.records.files import naming, output_lock, replacing
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import ordered_map, usable_cores
from ramctl.records.record import JsonObject, Record, captions_of, image_name, listed, object_in
from ramctl.records.verdicts import Verdicts

THUMBNAIL_PX = 240  # the longer side
QUALITY = 60
GIVEN, ADDED, REMOVED, KEPT = STATES = ("given", "added", "removed", "kept")
MAX_JUDGED = 20_000  # tags; of more, the most doubtful
UNKNOWN = 0.5  # the probability that a tag without a score is right
_OPTIONAL = ("reason", "box", "score", "distance", "probability", "verdict")


@dataclass(frozen=True, slots=True)
class Pictured:
    """A record as the page shows it; `photo` needs no field but `image`."""

    photo: Record
    captions: Sequence[str] = ()
    generated: Sequence[str] = ()  # captions that a model wrote

    @classmethod
    def of(cls, record: Record, generated: Sequence[str] = ()) -> "Pictured":
        """A record with its captions."""
        photo = Record({"image": record.fields["image"]}, base=record.base)
        return cls(photo, captions_of(record.fields), generated)

    @property
    def file(self) -> tuple[Path, str]:
        """The photo's folder and name, equal for all records of one photo."""
        return self.photo.base, image_name(self.photo.fields)


@dataclass(frozen=True, slots=True)
class Judged:
    """A tag of a record, what was done with it, and why."""

    tag: str
    kind: str
    state: str  # one of STATES
    doubt: float
    record: Pictured
    sources: Sequence[str] = ()
    reason: str | None = None
    box: Sequence[float] | None = None  # [x0, y0, x1, y1], fractions of width and height
    score: float | None = None
    distance: float | None = None
    probability: float | None = None  # that the tag is right
    verdict: str | None = None  # an earlier decision: keep, remove or add


Totals = Mapping[str, Mapping[str, int]]


@contextmanager
def open_review(path: Path, verdicts: Verdicts) -> Iterator[Adder]:
    """A function that adds a record's tags to the page, which replaces `path` at the block's end.

    The page holds the MAX_JUDGED tags with the lowest scores, and earlier `verdicts`. After an
    error `path` is unchanged.
    """
    doubtful: list[tuple[float, int, Judged]] = []  # a heap
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    numbers = count()
    stamp = hashlib.blake2b(digest_size=8)

    def add(record: Record, fields: JsonObject) -> None:
        decisions, boxes = verdicts.of(fields), scored_boxes(fields)
        tags = list(dict.fromkeys([*listed(fields, "tags"), *decisions]))
        kinds, scores = object_in(fields, "kinds"), object_in(fields, "scores")
        pictured = Pictured.of(record)
        stamp.update(dumps([{"image": fields["image"], "tags": tags}]))
        for tag in tags:
            doubt = 1 - scores.get(tag, UNKNOWN)
            judged = Judged(
                tag, kinds.get(tag, ""), GIVEN, doubt, pictured, score=scores.get(tag),
                box=boxes.get(tag, [None])[0], verdict=decisions.get(tag),
            )  # fmt: skip
            totals[tag][GIVEN] += 1
            keep = heapq.heappush if len(doubtful) < MAX_JUDGED else heapq.heappushpop
            keep(doubtful, (doubt, next(numbers), judged))

    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(path):
        yield add
        shown = [judged for _, _, judged in doubtful]
        with replacing(path) as stream:
            for piece in review_page(shown, totals, stamp.hexdigest(), jobs=usable_cores()):
                stream.write(piece.encode("utf-8"))


def review_page(
    judged: Sequence[Judged],
    totals: Totals,
    name: str,
    *,
    jobs: int = 1,
    tick: Callable[[int], object] = lambda n: None,
) -> Iterator[str]:
    """The page in pieces: the most doubtful tags first, and of each tag the most doubtful photos.

    `totals` counts the states of each tag, including entries that are not shown. The browser keeps
    decisions under `name`, which must change when the records do. `jobs` threads read the photos,
    and `tick(1)` follows each; a photo that can no longer be read is shown as missing.
    """
    records = list({id(entry.record): entry.record for entry in judged}.values())
    photos = {record.file: record.photo for record in records}
    return render_pieces(
        "review.html",
        states={state: sum(counts.get(state, 0) for counts in totals.values()) for state in STATES},
        n_shown=len(judged),
        photos=_thumbnails(list(photos.values()), jobs, tick),
        data={"name": name} | _data(judged, totals, records, list(photos)),
    )


def _thumbnails(
    photos: Sequence[Record], jobs: int, tick: Callable[[int], object]
) -> Iterator[Thumbnail | None]:
    read = partial(thumbnail, longer_side_px=THUMBNAIL_PX, quality=QUALITY)
    for picture in ordered_map(partial(attempt, read), photos, jobs):
        yield None if isinstance(picture, RecordProblem) else picture
        tick(1)


def _data(
    judged: Sequence[Judged],
    totals: Totals,
    records: Sequence[Pictured],
    files: Sequence[tuple[Path, str]],
) -> JsonObject:
    """The data of review.js: entries refer to tags and records by number, records to photos."""
    by_doubt = sorted(judged, key=lambda entry: (-entry.doubt, entry.tag))
    kinds = {entry.tag: entry.kind for entry in by_doubt}  # most doubtful first
    tag_numbers = {tag: number for number, tag in enumerate(kinds)}
    photo_numbers = {file: number for number, file in enumerate(files)}
    record_numbers = {id(record): number for number, record in enumerate(records)}
    return {
        "tags": [{"tag": tag, "kind": kind, **totals[tag]} for tag, kind in kinds.items()],
        "records": [
            {
                "image": record.photo.fields["image"],
                "photo": photo_numbers[record.file],
                "captions": list(record.captions),
                "generated": list(record.generated),
            }
            for record in records
        ],
        "entries": [
            {
                "tag": tag_numbers[entry.tag],
                "record": record_numbers[id(entry.record)],
                "state": entry.state,
                "sources": list(entry.sources),
                **{field: x for field in _OPTIONAL if (x := getattr(entry, field)) is not None},
            }
            for entry in sorted(by_doubt, key=lambda entry: tag_numbers[entry.tag])
        ],
    }
