"""The gallery: one page of thumbnails with their tags, to search, sort and look through.

The page holds a line of JSON for each photo, of which its script makes what is looked at.
"""

import errno
import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote

import orjson

from ramctl.pages import render, thumbnail
from ramctl.photos.archives import member_of
from ramctl.photos.finding import THUMBNAILS
from ramctl.records.fields import scored_boxes
from ramctl.records.files import create, is_device, naming, output_lock, replacing
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record, image_name, listed, object_in
from ramctl.records.remote import base_url

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
MOST_INSIDE = 2000  # thumbnails; of more photos all are files in a folder beside the page
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
_INSIDE = "data:image/jpeg;base64,"
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.jpg")
Adder = Callable[[Record, JsonObject], None]


@contextmanager
def open_gallery(path: Path) -> Iterator[Adder]:
    """A function that adds a photo to the page, which replaces `path` at the end of the block.

    It raises RecordProblem for a photo that cannot be read. After an error `path` is as it was.
    RunProblem when another run writes the page, or it cannot be written.
    """
    head, tail = (part.encode() for part in render("gallery.html").split(_PLACE_OF_PHOTOS))
    with output_lock(path):
        with naming(path):
            # Memory must not grow with the number of photos: they wait in a file without a name.
            folder = None if is_device(path) else path.parent
            lines = TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
        n_photos = 0

        def show(record: Record, fields: JsonObject) -> None:
            nonlocal n_photos
            line = _line(record, fields, path)
            with naming(path):
                lines.write(line)
            n_photos += 1

        try:
            yield show
            thumbnails, used = path.with_name(path.name + THUMBNAILS), set[str]()
            with replacing(path) as stream:
                stream.write(head)
                lines.seek(0)
                is_outside = n_photos > MOST_INSIDE and not is_device(path)
                stream.writelines(_with_files(lines, thumbnails, used) if is_outside else lines)
                stream.write(tail)
            _clear(thumbnails, used)
        finally:
            with naming(path):  # it writes what could not be written before
                lines.close()


def _with_files(lines: Iterable[bytes], folder: Path, used: set[str]) -> Iterator[bytes]:
    """The photos' lines with thumbnails as files, whose names, by content, are added to `used`."""
    with naming(folder):
        if folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "a link, where thumbnails have a folder")
        folder.mkdir(exist_ok=True)
    for line in lines:
        photo = orjson.loads(line)
        content = b64decode(photo["thumbnail"].removeprefix(_INSIDE))
        name = blake2b(content, digest_size=16).hexdigest() + ".jpg"
        with naming(folder / name), create(folder / name) as file:
            file.write(content)
        used.add(name)
        yield _html_safe(photo | {"thumbnail": f"{quote(folder.name)}/{name}"})


def _clear(folder: Path, used: set[str]) -> None:
    """Delete the thumbnails that no photo of the page has, as far as that can be done."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for file in folder.iterdir():
            if _FILE_NAME.fullmatch(file.name) and file.name not in used:
                file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _line(record: Record, fields: JsonObject, page: Path) -> bytes:
    picture = thumbnail(record, THUMBNAIL_PX, QUALITY)
    scores = object_in(fields, "scores")
    return _html_safe(
        {
            "image": fields["image"],
            "link": _link(record, page),
            "thumbnail": picture.source,
            "size": [picture.width, picture.height],
            "tags": {tag: scores.get(tag) for tag in fields["tags"]},
            "boxes": scored_boxes(fields),
            "captions": listed(fields, "generated_captions"),
        }
    )


def _html_safe(photo: JsonObject) -> bytes:
    """JSON that cannot end the element of the page in which it stands."""
    return dumps(photo).replace(b"<", b"\\u003c")


def _link(record: Record, page: Path) -> str | None:
    """The way from the page to the photo, for a browser; None for one in an archive or at a URL."""
    name = image_name(record.fields)
    if base_url(record.base) or member_of(name, record.base):
        return None
    return quote(os.fsencode(os.path.relpath(record.base / name, page.parent)))
