"""The input of a reader, with its records and rejects, and the usual names of fields."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramctl.errors import RunProblem
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

    @property
    def names(self) -> list[str]:
        """The names that the user gave."""
        return [name for name in (self.image, self.caption) if name is not None]

    def check(self, source: str, names: Sequence[str]) -> None:
        """Raise RunProblem for a table without these columns, or without any usual one."""
        known = {name.casefold() for name in names}
        missing = [name for name in self.names if name.casefold() not in known]
        if missing or not (self.names or USUAL_FIELDS & known):
            what = f"no column {missing[0]!r}" if missing else "no column that can be captions"
            advice = "" if missing else "; name one with --caption-column"
            raise RunProblem(f"{source}: {what}; it has {listed_names(names)}{advice}")


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
        """The record of a row, or its reject if it cannot be JSON; `line` counts from 1."""
        try:
            stamp = content_stamp(dumps(fields))
        except TypeError as error:  # a name that is not UTF-8
            return self.reject(line, "bad_utf8", str(error), fields)
        return Record(fields, shown_name(self.name), line, self.base, stamp=stamp)

    def reject(self, line: int, code: str, message: str, raw: object) -> Reject:
        """The reject of a row without a record."""
        return Reject(shown_name(self.name), line, self.stage, code, message, raw=str(raw)[:2000])


def with_usual_names(row: JsonObject, columns: Columns) -> JsonObject:
    """The row with the fields `image` and `captions` first, in place of the columns of these."""
    written = {name.casefold(): name for name in reversed(row)}

    def first(name: str | None, usual: Sequence[str]) -> Iterator[str]:
        for candidate in usual if name is None else (name,):
            known = written.get(candidate.casefold())
            if known is not None and row[known] is not None:
                yield known

    image = next((x for x in first(columns.image, IMAGE_FIELDS) if isinstance(row[x], str)), None)
    caption = next(first(columns.caption, CAPTION_FIELDS), None)
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
