"""The input of a reader: its records and rejects, its lines and rows, the usual names of fields."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.record import Item, JsonObject, Record, Reject, listed_names, shown_name

#: Names, in any case, of photo, caption and tags in other projects (BLIP, img2dataset, LAION,
#: kohya, datasets, Flickr30k).
IMAGE_FIELDS = (
    "image", "image_path", "file_name", "filename", "filepath", "image_name", "url", "image_url",
    "path",
)  # fmt: skip
CAPTION_FIELDS = ("captions", "caption", "title", "text", "alt", "alt_text", "comment")
TAG_FIELDS = ("tags", "labels", "keywords")
USUAL_FIELDS = {*IMAGE_FIELDS, *CAPTION_FIELDS, *TAG_FIELDS}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of photos and captions that the user named; None: one of the usual names."""

    image: str | None = None
    caption: str | None = None

    def check(self, source: str, names: Iterable[str]) -> None:
        """Raise UsageProblem for a table without these columns, or without any that is known."""
        known = {name.casefold() for name in names}
        chosen = filter(None, (self.image, self.caption))
        missing = [repr(name) for name in chosen if name.casefold() not in known]
        if not (self.caption or known & {*CAPTION_FIELDS, *TAG_FIELDS}):
            missing.append("of captions or tags")
        if missing:
            fact = f"{source}: no column {missing[0]}; it has {listed_names(names)}"
            raise UsageProblem(f"{fact} (--caption-column, --image-column)")


USUAL = Columns()


@dataclass(frozen=True, slots=True)
class Source:
    """An input of a reader."""

    name: str  # a path, a URL or `-`
    base: Path  # the folder that its photos are relative to
    stage: str  # the command
    labels: Sequence[str] = ()  # of the ids in it
    columns: Columns = USUAL

    def record(self, fields: JsonObject, line: int) -> Item:
        """The record of a row, or its reject if its text is not UTF-8; `line` counts from 1."""
        try:
            stamp = content_stamp(dumps(fields))
        except TypeError:
            return self.reject(line, "bad_utf8", "invalid UTF-8", [*fields.values()])
        return Record(fields, shown_name(self.name), line, self.base, stamp=stamp)

    def reject(self, line: int, code: str, message: str, raw: object) -> Reject:
        """The reject of a row without a record."""
        shown = shown_name(str(raw))[:2000]
        return Reject(shown_name(self.name), line, self.stage, code, message, raw=shown)


def text_lines(source: Source) -> Iterator[str]:
    """The lines of a text; bytes that are not UTF-8 stay, as `surrogateescape` keeps them."""
    with open_input(source.name) as stream:
        for line in stream:
            yield line.decode("utf-8-sig", "surrogateescape")


def delimiter_of(header: str) -> str:
    """Whichever of comma, tab, `|` and `;` a line holds most often."""
    return max("\t|;,", key=header.count)


def read_rows(source: Source) -> Iterator[tuple[int, dict[str, str] | Reject]]:
    """The number of the last line and the cells by column of each row, or its reject.

    RunProblem for a quote that is not closed, as the rows after it would belong to its cell.
    """
    lines = text_lines(source)
    header = next(lines, "")
    form: Any = {"delimiter": delimiter_of(header), "skipinitialspace": True}
    names = [name.strip() for name in next(csv.reader(header.splitlines()[:1], **form), [])]
    while names and not names[-1]:  # a line may end with a delimiter
        names.pop()
    reader = csv.reader(lines, strict=True, **form)
    while True:
        number = reader.line_num + 2  # the header is the first line
        try:
            row = next(reader, None)
        except csv.Error as error:
            if reader.line_num + 1 > number:
                where = f"{source.name}:{number}"
                raise RunProblem(f"{where}: {error}; is a quote not closed?") from error
            yield number, source.reject(number, "bad_field", str(error), "")
            continue
        if row is None:
            return
        number, cells = reader.line_num + 1, [cell.strip() for cell in row]
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        elif cells:
            message = f"{len(cells)} columns, not {len(names)}"
            yield number, source.reject(number, "bad_field", message, cells)


def with_usual_names(row: JsonObject, columns: Columns) -> JsonObject:
    """The row with the fields `image` and `captions` first, in place of the columns of these."""
    written = {name.casefold(): name for name in reversed(row)}

    def column(name: str | None, usual: Sequence[str], *types: type) -> str | None:
        names = [written.get(key.casefold()) for key in ((name,) if name else usual)]
        return next((name for name in names if name and isinstance(row[name], types)), None)

    image = column(columns.image, IMAGE_FIELDS, str)
    caption = column(columns.caption, CAPTION_FIELDS, str, list)
    fields: JsonObject = {}
    if image is not None:
        fields["image"] = row[image]
    if caption is not None:
        text = row[caption]
        fields["captions"] = text if isinstance(text, list) else [text]
    used = {"image", "captions", "caption", image, caption}
    return fields | {name: value for name, value in row.items() if name not in used}


def split_tags(text: str) -> list[str]:
    """The tags of "a, b; c | d", each once, in order."""
    return list(dict.fromkeys(tag.strip() for tag in re.split(r"[,;|]", text) if tag.strip()))
