"""The gallery: a page of thumbnails with their tags, to search and sort.

The page holds a line of JSON for each photo, from which its script builds what is shown. The next
run takes the pictures of unchanged photos from the page that it replaces.
"""

import base64
import errno
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote

from ramctl.errors import UsageProblem
from ramctl.pages import DATA_URI, Thumbnail, render, thumbnail
from ramctl.photos.archives import member_of
from ramctl.photos.finding import THUMBNAILS, photo_stamp
from ramctl.records.fields import scored_boxes
from ramctl.records.files import create, is_device, is_plain, naming, output_lock, replacing
from ramctl.records.jsonl import MAX_LINE, bounded_lines, dumps
from ramctl.records.record import JsonObject, Record, captions_of, image_name, listed, object_in
from ramctl.records.remote import base_url
from ramctl.records.state import parsed

THUMBNAIL_PX, QUALITY = 240, 72  # the longer side, and of a JPEG
PREVIEW_PX, PREVIEW_QUALITY = 1600, 82  # of a photo in a page to publish
MAX_INSIDE = 2000  # thumbnails in the page; those of further photos are files in a folder beside it
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.jpg")
Adder = Callable[[Record, JsonObject], None]


@contextmanager
def open_gallery(path: Path, *, title: str = "", publish: bool = False) -> Iterator[Adder]:
    """A function that adds a photo to the page, which replaces `path` at the end of the block.

    With `publish` the page and the folder beside it hold all that is shown: previews without
    metadata instead of links to photos, and file names without folders. The function raises
    RecordProblem for a photo that cannot be read. After an error `path` is unchanged. RunProblem
    when another run writes the page, or it cannot be written.
    """
    if publish and is_device(path):
        raise UsageProblem(f"{path}: --self-contained needs a file, with a folder beside it")
    page = render("gallery.html", title=title)
    head, tail = (part.encode() for part in page.split(_PLACE_OF_PHOTOS))
    folder, used = path.with_name(path.name + THUMBNAILS), set[str]()
    n_photos = 0

    def show(record: Record, fields: JsonObject) -> None:
        nonlocal n_photos
        stamp = _stamp(record)
        kept = earlier.get(stamp, {})
        small = _kept_picture(kept, "thumbnail", folder)
        small = small or thumbnail(record, THUMBNAIL_PX, QUALITY)
        is_inside = n_photos < MAX_INSIDE or is_device(path)
        shown: JsonObject = {"thumbnail": small.source if is_inside else _save(small, folder, used)}
        shown["link"] = link_to(record, path)
        if publish:
            preview = _kept_picture(kept, "link", folder)
            preview = preview or thumbnail(record, PREVIEW_PX, PREVIEW_QUALITY)
            shown["link"] = _save(preview, folder, used)
            name = fields["image"]
            fields = fields | {"image": Path(name).name if isinstance(name, str) else {}}
        line = _line(fields, shown | {"size": [small.width, small.height], "stamp": stamp})
        with naming(path):
            stream.write(line)
        n_photos += 1

    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(path):
        earlier = {} if is_device(path) else _earlier_photos(path)
        with replacing(path) as stream:
            stream.write(head)
            yield show
            stream.write(tail)
        _clear(folder, used)


def _earlier_photos(page: Path) -> dict[str, JsonObject]:
    """The photos of a page by their stamp, as far as it can be read."""
    photos: dict[str, JsonObject] = {}
    unpacked = gzip.open if page.suffix.lower() == ".gz" else open
    with suppress(OSError, EOFError, zlib.error), unpacked(page, "rb") as lines:
        read = bounded_lines(cast(BinaryIO, lines))
        rows = (line for line in read if line.startswith(b'{"image":'))
        found = (parsed(line) for line in rows if len(line) <= MAX_LINE)
        photos |= {str(photo.get("stamp")): photo for photo in found if photo}
    photos.pop("", None)  # photos whose file cannot be examined
    return photos


def _stamp(record: Record) -> str:
    """A text that changes with a photo's file and the form of its pictures; else empty."""
    name = image_name(record.fields)
    if base_url(record.base) or not (stamp := photo_stamp(name, record.base)):
        return ""
    form = (THUMBNAIL_PX, QUALITY, PREVIEW_PX, PREVIEW_QUALITY)
    facts = f"{Path(record.base, name).absolute()} {stamp} {form}"
    return blake2b(os.fsencode(facts), digest_size=8).hexdigest()


def _kept_picture(photo: JsonObject, name: str, folder: Path) -> Thumbnail | None:
    """A picture of an earlier page, in a URI or a file; None where ramctl did not write it."""
    source, content = str(photo.get(name)), b""
    file = folder / source.rpartition("/")[2]
    with suppress(OSError, TypeError, ValueError):
        if source.startswith(DATA_URI):
            content = base64.b64decode(source.removeprefix(DATA_URI), validate=True)
        elif _FILE_NAME.fullmatch(file.name) and is_plain(file, MAX_LINE):
            content = file.read_bytes()
        if content.startswith(b"\xff\xd8\xff") and content.endswith(b"\xff\xd9"):  # not torn
            width, height = map(int, photo.get("size", ()))
            return Thumbnail(content, width, height)
    return None


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


def _line(fields: JsonObject, shown: JsonObject) -> bytes:
    scores = object_in(fields, "scores")
    photo = {
        "image": fields["image"],
        "tags": {tag: scores.get(tag) for tag in fields["tags"]},
        "boxes": scored_boxes(fields),
        "captions": [*listed(fields, "generated_captions"), *captions_of(fields)[:1]],
    }
    # Without `<`, the JSON cannot end the element of the page that it is in.
    return dumps(photo | shown).replace(b"<", b"\\u003c")


def link_to(record: Record, page: Path) -> str | None:
    """The relative URL from the page to the photo; None for one in an archive or at a URL."""
    name = image_name(record.fields)
    if base_url(record.base) or member_of(name, record.base):
        return None
    return quote(os.fsencode(os.path.relpath(record.base / name, page.parent)))
