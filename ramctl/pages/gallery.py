"""The gallery: one self-contained page of thumbnails with their tags, to look through."""

import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

from ramctl.pages.render import render, thumbnail
from ramctl.records.files import output_lock, replacing
from ramctl.records.record import JsonObject, Record

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
Adder = Callable[[Record, JsonObject], None]
_NAME = re.compile(r"<figcaption><b>([^<]*)</b>")


@contextmanager
def open_gallery(path: Path, *, add: bool = False) -> Iterator[Adder]:
    """A function that adds a photo to the page, which replaces `path` at the end of the block.

    It raises RecordProblem for a photo that cannot be read. With `add` the photos of the page at
    `path` come first, without those that are shown anew. After an error `path` is as it was.
    """
    head, tail = render("gallery.html").split(_PLACE_OF_PHOTOS)
    # New figures wait in a file: only at the end is it known which old ones they replace, and
    # memory must not grow with the number of photos.
    with (
        output_lock(path),
        replacing(path) as stream,
        tempfile.TemporaryFile(dir=path.parent) as new,
    ):
        shown: set[str] = set()

        def show(record: Record, fields: JsonObject) -> None:
            new.write(_figure(record, fields).encode())
            shown.add(_name(fields["image"]))

        yield show
        stream.write(head.encode())
        if add and path.exists():
            stream.writelines(_older_figures(path, shown))
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
