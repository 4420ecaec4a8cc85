"""The gallery: one self-contained page of thumbnails with their tags, to look through."""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.errors import RecordProblem
from ramctl.pages.render import render, thumbnail
from ramctl.records.files import replacing
from ramctl.records.record import JsonObject, Record
from ramctl.records.stream import Outcome

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
_NAME = re.compile(r"<figcaption><b>([^<]*)</b>")


class Gallery:
    """Adds tagged photos to a page as they come."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.shown: set[str] = set()

    def __call__(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome once its photo is on the page, or why the photo cannot be shown."""
        if not isinstance(outcome, RecordProblem):
            try:
                self._stream.write(_figure(record, outcome).encode())
                self.shown.add(_name(outcome["image"]))
            except RecordProblem as problem:
                return problem
        return outcome


@contextmanager
def open_gallery(path: Path, *, add: bool = False) -> Iterator[Gallery]:
    """A page that replaces `path` when the block ends without an error.

    With `add` the photos of the page at `path` come first, without those that are shown anew.
    """
    head, tail = render("gallery.html").split(_PLACE_OF_PHOTOS)
    # New figures wait in a file: only at the end is it known which old ones they replace, and
    # memory must not grow with the number of photos.
    with replacing(path) as stream, tempfile.TemporaryFile(dir=path.parent) as new:
        gallery = Gallery(new)
        yield gallery
        stream.write(head.encode())
        if add and path.exists():
            stream.writelines(_older_figures(path, gallery.shown))
        new.seek(0)
        shutil.copyfileobj(new, stream)
        stream.write(tail.encode())


def _older_figures(path: Path, shown_anew: Collection[str]) -> Iterator[bytes]:
    """The figures of a page, one a line, but for those of photos that are shown anew."""
    with path.open("rb") as stream:
        for line in stream:
            found = _NAME.search(line.decode()) if line.startswith(b"<figure>") else None
            if found and unescape(found[1]) not in shown_anew:
                yield line


def _figure(record: Record, fields: JsonObject) -> str:
    """One line, so that a later run can copy it to a new page without parsing HTML."""
    figure = render(
        "gallery_figure.html",
        thumbnail=thumbnail(record, THUMBNAIL_PX, QUALITY),
        boxes=fields.get("boxes", {}),
        name=_name(fields["image"]),
        captions=fields.get("generated_captions", []),
        scores=fields["scores"],
    )
    return "".join(line.strip() for line in figure.split("\n")) + "\n"


def _name(image: Any) -> str:
    if not isinstance(image, str):
        return "(a name that is not UTF-8)"
    return image.replace("\n", "\\n")
