"""The page on which a person decides whether to trust a cleaning: removed and kept regions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramctl.errors import RecordProblem
from ramctl.pages.render import Thumbnail, render, thumbnail
from ramctl.records.record import Record

THUMBNAIL_PX = 132  # the longer side; style.css knows it as a figure's width
QUALITY = 70


@dataclass(frozen=True, slots=True)
class Region:
    """Where a tag was looked for in a photo, and what was decided about it."""

    record: Record
    box: tuple[float, float, float, float]  # corners as shares of the photo's sides
    score: float  # the tag's probability on the region
    distance: float  # from the centre of the region's cluster
    reason: str  # why the tag is removed; empty where it is kept


@dataclass(frozen=True, slots=True)
class CleanedLabel:
    """One label's regions: how many there are, and those to be shown."""

    id: int
    tag: str
    kind: str
    n_regions: int
    reasons: Mapping[str, int]  # removed regions by reason, every reason named
    cluster_sizes: Sequence[int]
    removed: Sequence[Region]
    kept: Sequence[Region]

    @property
    def n_removed(self) -> int:
        """How many of the regions lose the tag."""
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class CleaningReport:
    """What the page shows: counts over all labels, and the labels that lost most."""

    n_labels: int
    n_regions: int
    n_removed: int
    reasons: Sequence[str]
    labels: Sequence[CleanedLabel]


def cleaning_page(report: CleaningReport) -> str:
    """A self-contained HTML page.

    The photos are read again; one that no longer can be is left out.
    """
    return render("cleaning.html", report=report, thumbnail=_thumbnail)


def _thumbnail(record: Record) -> Thumbnail | None:
    try:
        return thumbnail(record, THUMBNAIL_PX, QUALITY)
    except RecordProblem:
        return None
