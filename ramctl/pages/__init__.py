"""Templates and thumbnails of all pages.

A page is one file that needs no network: it loads no fonts, scripts or photos from elsewhere.
"""

import base64
import io
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from ramctl.photos.decoding import record_photo
from ramctl.records.record import Record

if TYPE_CHECKING:
    from jinja2 import Environment


class Thumbnail(NamedTuple):
    """A small photo, as the `data:` URI of a JPEG."""

    source: str
    width: int
    height: int


def render(template: str, **values: Any) -> str:
    """A template of `templates/` filled with these values, which are escaped for HTML."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> "Environment":
    # Not at the top: most runs of `export` write no page.
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
    source = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
    return Thumbnail(source, photo.width, photo.height)
