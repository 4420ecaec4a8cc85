"""Templates and thumbnails of all pages.

A page is one file that needs no network: it loads no fonts, scripts or photos from elsewhere.
"""

import base64
import io
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ramctl.photos.decoding import record_photo
from ramctl.records.record import Record

if TYPE_CHECKING:
    from jinja2 import Environment


DATA_URI = "data:image/jpeg;base64,"


class Thumbnail(NamedTuple):
    """A small photo, as a JPEG."""

    content: bytes
    width: int
    height: int

    @property
    def source(self) -> str:
        """The JPEG as a `data:` URI."""
        return f"{DATA_URI}{base64.b64encode(self.content).decode('ascii')}"


def render(template: str, **values: Any) -> str:
    """A template of `templates/` filled with these values, which are escaped for HTML."""
    return _environment().get_template(template).render(values)


def render_pieces(template: str, **values: Any) -> Iterator[str]:
    """As `render`, in pieces: iterators among the values are consumed as the page is written."""
    return _environment().get_template(template).generate(values)


@cache
def _environment() -> "Environment":
    # Not at the top: `tag` imports the gallery, and most of its runs write none.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("ramctl.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def thumbnail(record: Record, longer_side_px: int, quality: int) -> Thumbnail:
    """The record's photo as a JPEG of at most that size; RecordProblem when it cannot be read."""
    photo = record_photo(record, target=longer_side_px)
    photo.thumbnail((longer_side_px, longer_side_px))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=quality)
    return Thumbnail(content.getvalue(), photo.width, photo.height)
