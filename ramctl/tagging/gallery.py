"""One self-contained page of thumbnails with their tags: what a person looks at."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.errors import RecordProblem
from ramctl.io.files import replacing
from ramctl.io.images import record_photo
from ramctl.io.records import Record
from ramctl.io.stream import Outcome

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
_MARK = "<!-- photos -->\n"


class Gallery:
    """Adds tagged photos to a page as they come; the page holds everything it shows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __call__(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome, once its photo is on the page."""
        if not isinstance(outcome, RecordProblem):
            try:
                self._stream.write(_figure(record, outcome).encode())
            except RecordProblem as problem:
                return problem
        return outcome


@contextmanager
def open_gallery(path: Path) -> Iterator[Gallery]:
    """A page that takes the place of `path` when the block ends without an error."""
    template = (resources.files("ramctl.tagging") / "gallery.html").read_text("utf-8")
    head, tail = template.split(_MARK)
    with replacing(path) as stream:
        stream.write(head.encode())
        yield Gallery(stream)
        stream.write(tail.encode())


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
    return image if isinstance(image, str) else "(a name that is not UTF-8)"


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
