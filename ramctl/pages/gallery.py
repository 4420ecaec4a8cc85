"""The gallery: a page of thumbnails with their tags, to search and sort.

The page holds a line of JSON for each photo, from which its script builds what is shown.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

from ramctl.pages import Thumbnail, render, thumbnail
from ramctl.photos.archives import member_of
from ramctl.photos.finding import THUMBNAILS
from ramctl.records.fields import scored_boxes
from ramctl.records.files import create, is_device, naming, output_lock, replacing
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record, image_name, listed, object_in
from ramctl.records.remote import base_url

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
MAX_INSIDE = 2000  # thumbnails in the page; those of further photos are files in a folder beside it
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.jpg")
Adder = Callable[[Record, JsonObject], None]


@contextmanager
def open_gallery(path: Path) -> Iterator[Adder]:
    """A function that adds a photo to the page, which replaces `path` at the end of the block.

    It raises RecordProblem for a photo that cannot be read. After an error `path` is unchanged.
    RunProblem when another run writes the page, or it cannot be written.
    """
    head, tail = (part.encode() for part in render("gallery.html").split(_PLACE_OF_PHOTOS))
    folder, used = path.with_name(path.name + THUMBNAILS), set[str]()
    n_photos = 0

    def show(record: Record, fields: JsonObject) -> None:
        nonlocal n_photos
        picture = thumbnail(record, THUMBNAIL_PX, QUALITY)
        is_inside = n_photos < MAX_INSIDE or is_device(path)
        source = picture.source if is_inside else _save(picture, folder, used)
        line = _line(record, fields, path, picture, source)
        with naming(path):
            stream.write(line)
        n_photos += 1

    with output_lock(path):
        with replacing(path) as stream:
            stream.write(head)
            yield show
            stream.write(tail)
        _clear(folder, used)


def _save(picture: Thumbnail, folder: Path, used: set[str]) -> str:
    """Write a thumbnail to a file, named by its content and added to `used`; its relative URL."""
    with naming(folder):
        if folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "a link, where thumbnails have a folder")
        folder.mkdir(exist_ok=True)
    name = blake2b(picture.content, digest_size=16).hexdigest() + ".jpg"
    with naming(folder / name), create(folder / name) as file:
        file.write(picture.content)
    used.add(name)
    return f"{quote(folder.name)}/{name}"


def _clear(folder: Path, used: set[str]) -> None:
    """Delete the thumbnails that are not `used` any more, as far as possible."""
    if folder.is_symlink():
        return
    with suppress(OSError):
        for file in folder.iterdir():
            if _FILE_NAME.fullmatch(file.name) and file.name not in used:
                file.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _line(record: Record, fields: JsonObject, page: Path, picture: Thumbnail, source: str) -> bytes:
    scores = object_in(fields, "scores")
    photo = {
        "image": fields["image"],
        "link": _link(record, page),
        "thumbnail": source,
        "size": [picture.width, picture.height],
        "tags": {tag: scores.get(tag) for tag in fields["tags"]},
        "boxes": scored_boxes(fields),
        "captions": listed(fields, "generated_captions"),
    }
    # Without `<`, the JSON cannot end the element of the page that it is in.
    return dumps(photo).replace(b"<", b"\\u003c")


def _link(record: Record, page: Path) -> str | None:
    """The relative URL from the page to the photo; None for one in an archive or at a URL."""
    name = image_name(record.fields)
    if base_url(record.base) or member_of(name, record.base):
        return None
    return quote(os.fsencode(os.path.relpath(record.base / name, page.parent)))
