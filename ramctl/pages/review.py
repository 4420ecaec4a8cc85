"""The review: one self-contained page on which a person judges tags, and which saves what was said.

Photos wait in the page as text until they are shown, and few are shown at a time, so that the page
holds thousands of tags.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ramctl.errors import RecordProblem, attempt
from ramctl.pages import Thumbnail, render_pieces, thumbnail
from ramctl.records.parallel import ordered_map
from ramctl.records.record import JsonObject, Record, captions_of, image_name

THUMBNAIL_PX = 240  # the longer side
QUALITY = 60
GIVEN, ADDED, REMOVED, KEPT = STATES = ("given", "added", "removed", "kept")
MOST_JUDGED = 20_000  # tags; of more, those in the greatest doubt
KNOWN = ("reason", "box", "score", "distance", "chance", "verdict")  # of some tags


@dataclass(frozen=True, slots=True)
class Pictured:
    """What the page tells of a record; `photo` needs no field but `image`."""

    photo: Record
    captions: Sequence[str] = ()
    generated: Sequence[str] = ()  # captions by a model

    @classmethod
    def of(cls, record: Record, generated: Sequence[str] = ()) -> "Pictured":
        """A record with its captions."""
        photo = Record({"image": record.fields["image"]}, base=record.base)
        return cls(photo, captions_of(record.fields), generated)

    @property
    def file(self) -> tuple[Path, str]:
        """What records of one photo have in common."""
        return self.photo.base, image_name(self.photo.fields)


@dataclass(frozen=True, slots=True)
class Judged:
    """One tag of one record: what was done with it, and on what grounds."""

    tag: str
    kind: str
    state: str  # one of STATES
    doubt: float
    record: Pictured
    sources: Sequence[str] = ()
    reason: str | None = None
    box: Sequence[float] | None = None  # [x0, y0, x1, y1] as shares of width and height
    score: float | None = None
    distance: float | None = None
    chance: float | None = None  # that the tag is right
    verdict: str | None = None  # keep or remove, where that was decided before


Totals = Mapping[str, Mapping[str, int]]


def review_page(
    judged: Sequence[Judged],
    totals: Totals,
    name: str,
    *,
    jobs: int = 1,
    tick: Callable[[int], object] = lambda n: None,
) -> Iterator[str]:
    """The page in pieces: the most doubtful tags first, and of each tag the most doubtful photos.

    `totals` counts the states of each tag, with what is not shown. The browser keeps decisions
    under `name`, which must change when the records do. `jobs` threads read the photos, `tick(1)`
    follows each; a photo that can no longer be read is shown as missing.
    """
    records = list({id(own.record): own.record for own in judged}.values())
    photos = {record.file: record.photo for record in records}
    return render_pieces(
        "review.html",
        states={state: sum(of_tag.get(state, 0) for of_tag in totals.values()) for state in STATES},
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
    """What review.js reads: entries name their tag and record, records their photo, by place."""
    falling = sorted(judged, key=lambda own: (-own.doubt, own.tag))
    kinds = {own.tag: own.kind for own in falling}  # by falling doubt of a tag's first entry
    place = {tag: number for number, tag in enumerate(kinds)}
    photo = {file: number for number, file in enumerate(files)}
    row = {id(record): number for number, record in enumerate(records)}
    return {
        "tags": [{"tag": tag, "kind": kind, **totals[tag]} for tag, kind in kinds.items()],
        "records": [
            {
                "image": record.photo.fields["image"],
                "photo": photo[record.file],
                "captions": list(record.captions),
                "generated": list(record.generated),
            }
            for record in records
        ],
        "entries": [
            {
                "tag": place[own.tag],
                "record": row[id(own.record)],
                "state": own.state,
                "sources": list(own.sources),
                **{name: value for name in KNOWN if (value := getattr(own, name)) is not None},
            }
            for own in sorted(falling, key=lambda own: place[own.tag])
        ],
    }
