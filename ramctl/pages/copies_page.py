"""The page of near-duplicates: groups side by side, and which photo of each to keep."""

from collections.abc import Sequence
from pathlib import Path

from ramctl.errors import RecordProblem, attempt
from ramctl.pages import render, thumbnail
from ramctl.pages.gallery import QUALITY, THUMBNAIL_PX, link_to
from ramctl.photos.decoding import photo_size
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject, Record, encode_name, shown_name


def write_copies_page(page: Path, groups: Sequence[Sequence[str]], base: Path) -> None:
    """Write a page of groups of photos, the one to keep first in each."""

    def shown(name: str) -> JsonObject:
        record = Record({"image": encode_name(name)}, base=base)
        picture = attempt(thumbnail, record, THUMBNAIL_PX, QUALITY)
        size = attempt(photo_size, name, base)
        return {
            "name": shown_name(name),
            "link": link_to(record, page),
            "thumbnail": None if isinstance(picture, RecordProblem) else picture.source,
            "size": "" if isinstance(size, RecordProblem) else "{} x {}".format(*size),
        }

    page.parent.mkdir(parents=True, exist_ok=True)
    photos = [[*map(shown, names)] for names in groups]
    write_atomic(page, render("copies.html", groups=photos).encode())
