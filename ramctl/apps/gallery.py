"""The gallery: a page of thumbnails with their tags, to search and sort.

The page holds a line of JSON for each photo, from which its script builds what is shown.
"""

import base64
import io
import os
from collections.abc import Callable
from heapq import heappush, heappushpop
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ramctl.errors import RecordProblem, attempt
from ramctl.photos.archives import facts_of_file, member_of
from ramctl.photos.decoding import record_photo
from ramctl.records.files import naming, write_atomic
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import ordered_map, usable_cores
from ramctl.records.record import (
    JsonObject,
    Record,
    captions_of,
    image_name,
    listed,
    numbers_in,
    scored_boxes,
)

THUMBNAIL_PX, QUALITY = 240, 72  # the longer side, and of a JPEG
MAX_PHOTOS = 2000
_SHOWN = ("image", "tags", "scores", "boxes", "captions", "caption", "generated_captions")
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
Adder = Callable[[Record, JsonObject], None]


class Gallery:
    """Collects the newest MAX_PHOTOS photos, by the dates of their files, for a page."""

    def __init__(self) -> None:
        self._newest: list[tuple[int, int, Record]] = []  # a heap, by time and number
        self._numbers = count()

    def add(self, record: Record, fields: JsonObject) -> None:
        """Add a photo with the fields to show; RecordProblem for one that is missing."""
        shown = Record({name: fields[name] for name in _SHOWN if name in fields}, base=record.base)
        entry = (_modified(record), next(self._numbers), shown)
        keep = heappush if len(self._newest) < MAX_PHOTOS else heappushpop
        keep(self._newest, entry)

    def write(
        self, page: Path, complete: Callable[[Record, JsonObject], JsonObject],
        notify: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Write the page, photos in the order in which they were added.

        `complete` gives the fields of a photo as they are shown. `notify` is told of photos that
        cannot be read, which are left out.
        """

        def line(record: Record) -> bytes | RecordProblem:
            return attempt(_line, record, complete(record, record.fields), page)

        photos = [record for *_, record in sorted(self._newest, key=itemgetter(1))]
        lines = [*ordered_map(line, photos, usable_cores())]
        shown = [line for line in lines if not isinstance(line, RecordProblem)]
        if missing := len(lines) - len(shown):
            notify(f"{page}: {missing} photos cannot be read and are not shown")
        head, tail = (part.encode() for part in render("gallery.html").split(_PLACE_OF_PHOTOS))
        with naming(page):
            page.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(page, b"".join([head, *shown, tail]))


def render(template: str, **values: Any) -> str:
    """A template of `templates/` filled with these values, which are escaped for HTML.

    A page is one file that needs no network: it loads no fonts, scripts or photos from elsewhere.
    """
    from jinja2 import Environment, PackageLoader  # most runs of `export` write no page

    pages = Environment(loader=PackageLoader("ramctl.apps"), autoescape=True)
    return pages.get_template(template).render(values)


def _modified(record: Record) -> int:
    """When the file of a photo, or of its archive, was last changed."""
    name = image_name(record.fields)
    inside = member_of(name, record.base)
    return facts_of_file(record.base / (inside[0] if inside else name)).st_mtime_ns


def _line(record: Record, fields: JsonObject, page: Path) -> bytes:
    small, content = record_photo(record, target=THUMBNAIL_PX), io.BytesIO()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    small.save(content, "JPEG", quality=QUALITY)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    scores = numbers_in(fields, "scores")
    photo = {
        "image": fields["image"],
        "tags": {tag: scores.get(tag) for tag in fields["tags"]},
        "boxes": scored_boxes(fields),
        "captions": [*listed(fields, "generated_captions"), *captions_of(fields)[:1]],
        "thumbnail": f"data:image/jpeg;base64,{encoded}",
        "link": _link_to(record, page),
        "size": small.size,
    }
    # Without `<`, the JSON cannot end the element of the page that it is in.
    return dumps(photo).replace(b"<", b"\\u003c")


def _link_to(record: Record, page: Path) -> str | None:
    """The relative URL from the page to the photo; None for one in an archive."""
    name = image_name(record.fields)
    if member_of(name, record.base):
        return None
    return quote(os.fsencode(os.path.relpath(record.base / name, page.parent)))
