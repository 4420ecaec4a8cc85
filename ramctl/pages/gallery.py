"""One self-contained page of thumbnails with their tags: what a person looks at."""

import base64
import io
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import record_photo
from ramctl.records.files import replacing
from ramctl.records.record import Record
from ramctl.records.stream import Outcome

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
_MARK = "<!-- photos -->\n"
_NAME = re.compile(rb"<figcaption><b>[^<]*</b>")


class Gallery:
    """Adds tagged photos to a page as they come; the page holds everything it shows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.shown: set[str] = set()

    def __call__(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome, once its photo is on the page."""
        if not isinstance(outcome, RecordProblem):
            try:
                self._stream.write(_figure(record, outcome).encode())
                self.shown.add(_shown(outcome["image"]))
            except RecordProblem as problem:
                return problem
        return outcome


@contextmanager
def open_gallery(path: Path, *, add: bool = False) -> Iterator[Gallery]:
    """A page that takes the place of `path` when the block ends without an error.

    With `add` the older page's photos stay on it, first, but for those that were added anew.
    """
    template = (resources.files("ramctl.pages") / "gallery.html").read_text("utf-8")
    head, tail = template.split(_MARK)
    with replacing(path) as stream, tempfile.TemporaryFile(dir=path.parent) as new:
        gallery = Gallery(new)
        yield gallery
        stream.write(head.encode())
        if add and path.exists():
            stream.writelines(_kept(path, gallery.shown))
        new.seek(0)
        shutil.copyfileobj(new, stream)
        stream.write(tail.encode())


def _kept(path: Path, anew: Collection[str]) -> Iterator[bytes]:
    """The figures of a page, a line each, whose photos are not among those shown anew."""
    names = {f"<figcaption><b>{escape(name)}</b>".encode() for name in anew}
    with path.open("rb") as stream:
        for line in stream:
            name = _NAME.search(line) if line.startswith(b"<figure>") else None
            if name is not None and name[0] not in names:
                yield line


def _figure(record: Record, fields: dict[str, Any]) -> str:
    boxes = "".join(_box(tag, *found) for tag, found in fields.get("boxes", {}).items())
    tags = "".join(
        f'<button data-tag="{escape(tag)}">{escape(tag)}<small>{score:.2f}</small></button>'
        for tag, score in fields["scores"].items()
    )
    captions = "".join(f"<i>{escape(c)}</i>" for c in fields.get("generated_captions", []))
    return (
        f'<figure><div class="photo">{_thumbnail(record)}{boxes}</div>'
        f"<figcaption><b>{escape(_shown(fields['image']))}</b>{captions}{tags}"
        "</figcaption></figure>\n"
    )


def _shown(image: Any) -> str:
    if not isinstance(image, str):
        return "(a name that is not UTF-8)"
    return image.replace("\n", "\\n")  # a figure is one line


def _thumbnail(record: Record) -> str:
    photo = record_photo(record, target=THUMBNAIL_PX)
    photo.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=QUALITY)
    data = base64.b64encode(content.getvalue()).decode()
    size = f'width="{photo.width}" height="{photo.height}"'
    return f'<img {size} loading="lazy" alt="" src="data:image/jpeg;base64,{data}">'


def _box(tag: str, corners: list[float], score: float) -> str:
    left, top, right, bottom = (100 * corner for corner in corners)
    place = f"left:{left:.1f}%;top:{top:.1f}%;width:{right - left:.1f}%;height:{bottom - top:.1f}%"
    label = f"<span>{escape(tag)} {score:.2f}</span>"
    return f'<div class="box" data-tag="{escape(tag)}" style="{place}">{label}</div>'
