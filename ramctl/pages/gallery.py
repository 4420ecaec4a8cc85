"""The gallery: one self-contained page of thumbnails with their tags, to look through."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.pages.render import render, thumbnail
from ramctl.records.files import naming, output_lock, replacing
from ramctl.records.record import JsonObject, Record

THUMBNAIL_PX = 240  # the longer side
QUALITY = 72
_NO_NAME = "(a name that is not UTF-8)"
_PLACE_OF_PHOTOS = "<!-- photos -->\n"
Adder = Callable[[Record, JsonObject], None]
_NAME = re.compile(r"<figcaption><b>([^<]*)</b>")


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
    photos of this one too. RunProblem when another run writes the page, or it cannot be written.
    """
    head, tail = render("gallery.html").split(_PLACE_OF_PHOTOS)
    # Figures are on file before their records: memory must not grow with the number of photos, and
    # a killed run has recorded as done what the next one will not show.
    figures = path.with_name(path.name + ".figures")
    with output_lock(path):
        try:
            with _lines_added(figures, keep=add) as new:

                def show(record: Record, fields: JsonObject) -> None:
                    line = _figure(record, fields).encode()
                    with naming(figures):
                        new.write(line)
                        new.flush()

                yield show
            with replacing(path) as stream:
                stream.write(head.encode())
                older = path if add and path.exists() else None
                stream.writelines(_all_figures(older, figures, is_shown))
                stream.write(tail.encode())
        except BaseException:
            if not keep:
                figures.unlink(missing_ok=True)
            raise
        figures.unlink()


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


def _all_figures(
    page: Path | None, figures: Path, is_shown: Callable[[str], bool]
) -> Iterator[bytes]:
    """The figures of an older page and the new ones; of those with one name only the last."""

    def is_kept(name: str) -> bool:
        is_exact = name != _NO_NAME and "\\n" not in name
        return name not in last and (not is_exact or is_shown(name))

    last = {name: number for number, (name, _) in enumerate(_named_figures(figures))}
    if page is not None:
        yield from (line for name, line in _named_figures(page) if is_kept(name))
    for number, (name, line) in enumerate(_named_figures(figures)):
        if last[name] == number or name == _NO_NAME:
            yield line


def _named_figures(path: Path) -> Iterator[tuple[str, bytes]]:
    """The photos' names and figures in a page, or a file of figures, one a line."""
    with path.open("rb") as stream:
        for line in stream:
            if line.startswith(b"<figure>") and line.endswith(b"</figure>\n"):
                found = _NAME.search(line.decode())
                if found:
                    yield unescape(found[1]), line


def _figure(record: Record, fields: JsonObject) -> str:
    """One line, so that a later run can copy it to a new page without parsing HTML."""
    figure = render(
        "gallery_figure.html",
        thumbnail=thumbnail(record, THUMBNAIL_PX, QUALITY),
        boxes=fields.get("boxes", {}),
        name=_name(fields["image"]),
        captions=fields.get("generated_captions", []),
        scores=fields.get("scores") or dict.fromkeys(fields["tags"], 1.0),
    )
    return "".join(line.strip() for line in figure.split("\n")) + "\n"


def _name(image: Any) -> str:
    if not isinstance(image, str):
        return _NO_NAME
    return image.replace("\n", "\\n")
