"""The report: one self-contained page of how systems do on the same photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ramctl.errors import RecordProblem
from ramctl.pages.render import Thumbnail, render, thumbnail
from ramctl.records.record import JsonObject, Record

THUMBNAIL_PX = 200  # the longer side
QUALITY = 60
Curve = Sequence[tuple[float, float]]  # (recall, precision)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A class that is wrongly given, or missed, and the photo's true ones."""

    name: str
    score: float
    true: Sequence[str]
    photo: Record


@dataclass(frozen=True, slots=True)
class SystemOfReport:
    """What one system did; numbers by class are in the order of the page's classes."""

    name: str
    decided_by: str
    figures: dict[str, float]
    precisions: Sequence[float | None]  # average precision
    pooled: Curve
    curves: Sequence[Curve]
    false: Sequence[Mistake]
    missed: Sequence[Mistake]
    confusions: Sequence[tuple[str, str, int]]  # (missed, given, photos)


@dataclass(frozen=True, slots=True)
class ReportPage:
    """All that the page shows; `intervals` are those of the first system's figures."""

    classes: Sequence[str]
    positives: Sequence[int]
    n_photos: int
    intervals: dict[str, Sequence[float] | None]
    systems: Sequence[SystemOfReport]


def report_page(page: ReportPage) -> str:
    """The page; a photo that cannot be read is shown by its name alone."""
    pictures: dict[Any, Thumbnail | None] = {}
    for system in page.systems:
        for mistake in [*system.false, *system.missed]:
            key = (mistake.photo.base, mistake.photo.fields["image"])
            if key not in pictures:
                pictures[key] = _picture(mistake.photo)
    data: JsonObject = {
        "classes": list(page.classes),
        "positives": list(page.positives),
        "systems": [
            {
                "name": own.name,
                "precisions": list(own.precisions),
                "pooled": own.pooled,
                "curves": list(own.curves),
            }
            for own in page.systems
        ],
    }
    return render("report.html", page=page, data=data, picture=pictures)


def _picture(photo: Record) -> Thumbnail | None:
    try:
        return thumbnail(photo, THUMBNAIL_PX, QUALITY)
    except RecordProblem:
        return None
