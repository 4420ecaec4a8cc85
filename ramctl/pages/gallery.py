"""The gallery: one page of thumbnails with their tags, to search, sort and look through.

The page holds a line of JSON for each photo, of which its script makes what is looked at.
"""

import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import orjson

from ramctl.errors import RunProblem
from ramctl.pages.render import render, thumbnail
from ramctl.photos.archives import split_member
from ramctl.photos.finding import IGNORE_FILE
from ramctl.records.files import is_device, naming, output_lock, replacing
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record, decode_name, image_name, object_in
from ramctl.records.remote import base_url

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
MOST_INSIDE = 2000  # thumbnails; of more photos all are files in a folder beside the page
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
_START = b'{"image":'
_INSIDE = "data:image/jpeg;base64,"
_FILE_NAME = re.compile(r"[0-9a-f]{32}\.jpg")
Adder = Callable[[Record, JsonObject], None]


@contextmanager
def open_gallery(
    path: Path,
    *,
    add: bool = False,
    keep: bool = False,
    is_shown: Callable[[str], bool] = lambda name: True,
) -> Iterator[Adder]:
    """A function that adds a photo to the page, which replaces `path` at the end of the block.

    It raises RecordProblem for a photo that cannot be read. With `add` the photos of the page at
    `path` come first, without those that are shown anew, or not at all (`is_shown`, by their
    names). After an error `path` is as it was; with `keep`, a later call with `add` then shows the
    photos of this one too. RunProblem when another run writes the page, it cannot be written, or
    what is to be added to is no gallery.
    """
    head, tail = (part.encode() for part in render("gallery.html").split(_PLACE_OF_PHOTOS))
    # Photos are on file before their records: memory must not grow with their number, and a killed
    # run has recorded as done what the next one will not show.
    new = path.with_name(path.name + ".figures")
    with output_lock(path):
        older = path if add and path.exists() and not is_device(path) else None
        if older is not None:
            _require_gallery(older, head)
        try:
            with _lines_added(new, keep=add) as lines:

                def show(record: Record, fields: JsonObject) -> None:
                    line = _line(record, fields, path)
                    with naming(new):
                        lines.write(line)
                        lines.flush()

                yield show
            number = sum(1 for _ in _photos(older, new, is_shown))
            thumbnails = _Thumbnails(path, outside=number > MOST_INSIDE and not is_device(path))
            with replacing(path) as stream:
                stream.write(head)
                for photo, line in _photos(older, new, is_shown):
                    stream.write(thumbnails.place(photo, line))
                stream.write(tail)
            thumbnails.clear()
        except BaseException:
            if not keep:
                new.unlink(missing_ok=True)
            raise
        new.unlink()


def _require_gallery(page: Path, head: bytes) -> None:
    """RunProblem for a page that does not hold photos as lines."""
    mark = head.splitlines()[-1]
    with naming(page), open_input(str(page)) as stream:
        if not any(line.rstrip(b"\n") == mark for line in stream):
            raise RunProblem(
                f"{page}: no gallery that photos can be added to; "
                "ramctl tag --from-tags FILE --gallery writes one of the records in FILE"
            )


@contextmanager
def _lines_added(path: Path, *, keep: bool) -> Iterator[BinaryIO]:
    """A file to which lines are added; with `keep` after those that it has."""
    with naming(path):
        stream = path.open("ab" if keep else "wb")
    try:
        if stream.tell() and not path.read_bytes().endswith(b"\n"):
            stream.write(b"\n")  # after a line that a killed run has left unfinished
        yield stream
    finally:
        with naming(path):  # it writes what could not be written before
            stream.close()


def _photos(
    page: Path | None, new: Path, is_shown: Callable[[str], bool]
) -> Iterator[tuple[JsonObject, bytes]]:
    """The photos of an older page and the new ones with their lines; of each the last line."""
    last = {dumps(photo["image"]): number for number, (photo, _) in enumerate(_lines_of(new))}
    if page is not None:
        for photo, line in _lines_of(page):
            if dumps(photo["image"]) not in last and is_shown(decode_name(photo["image"])):
                yield photo, line
    for number, (photo, line) in enumerate(_lines_of(new)):
        if last[dumps(photo["image"])] == number:
            yield photo, line


def _lines_of(path: Path) -> Iterator[tuple[JsonObject, bytes]]:
    """The photos in a page, or in a file of such lines."""
    with open_input(str(path)) as stream:
        for line in stream:
            if line.startswith(_START) and line.endswith(b"}\n"):
                with suppress(orjson.JSONDecodeError):  # a killed run has left it unfinished
                    photo = orjson.loads(line)
                    yield photo, line


class _Thumbnails:
    """The folder of thumbnails beside a page, named by their content."""

    def __init__(self, page: Path, *, outside: bool) -> None:
        self._folder = page.with_name(page.name + ".thumbnails")
        self._outside = outside
        self._used: set[str] = set()
        if outside:
            with naming(self._folder):
                self._folder.mkdir(exist_ok=True)
                if not (ignore := self._folder / IGNORE_FILE).exists():
                    ignore.write_text("*\n")  # no photos for `tag -R`

    def place(self, photo: JsonObject, line: bytes) -> bytes:
        """The photo's line with its thumbnail where it belongs; one outside stays there."""
        where = photo["thumbnail"]
        if not where.startswith(_INSIDE):
            self._used.add(where.rpartition("/")[2])
            return line
        if not self._outside:
            return line
        content = b64decode(where.removeprefix(_INSIDE))
        name = blake2b(content, digest_size=16).hexdigest() + ".jpg"
        file = self._folder / name
        with naming(file):
            if not (file.exists() and file.stat().st_size == len(content)):
                file.write_bytes(content)
        self._used.add(name)
        return _html_safe(photo | {"thumbnail": f"{quote(self._folder.name)}/{name}"})

    def clear(self) -> None:
        """Delete the thumbnails that no photo of the page has, as far as that can be done."""
        with suppress(OSError):
            for file in self._folder.iterdir():
                if _FILE_NAME.fullmatch(file.name) and file.name not in self._used:
                    file.unlink()
            if {file.name for file in self._folder.iterdir()} == {IGNORE_FILE}:
                (self._folder / IGNORE_FILE).unlink()
                self._folder.rmdir()


def _line(record: Record, fields: JsonObject, page: Path) -> bytes:
    """What the page holds of a photo, in one line that a later run can copy to a new page."""
    picture = thumbnail(record, THUMBNAIL_PX, QUALITY)
    scores = object_in(fields, "scores")
    return _html_safe(
        {
            "image": fields["image"],
            "link": _link(record, page),
            "thumbnail": picture.source,
            "size": [picture.width, picture.height],
            "tags": {tag: scores.get(tag) for tag in fields["tags"]},
            "boxes": object_in(fields, "boxes"),
            "captions": fields.get("generated_captions") or [],
        }
    )


def _html_safe(photo: JsonObject) -> bytes:
    """JSON that cannot end the element of the page in which it stands."""
    return dumps(photo).replace(b"<", b"\\u003c")


def _link(record: Record, page: Path) -> str | None:
    """The way from the page to the photo, for a browser; None for one in an archive or at a URL."""
    name = image_name(record.fields)
    photo = record.base / name
    if base_url(record.base) or (split_member(name) and not photo.exists()):
        return None
    return quote(os.fsencode(os.path.relpath(photo, page.parent)))
