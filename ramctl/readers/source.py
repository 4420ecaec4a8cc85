"""What readers share: the named input, its records and rejects, and the usual field names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ramctl.records.jsonl import content_stamp, dumps, require_writable
from ramctl.records.record import Item, JsonObject, Record, Reject, shown_name

#: Names that other projects give to photo, caption and tags (BLIP, img2dataset, kohya, datasets).
IMAGE_FIELDS = ("image", "image_path", "file_name", "filepath", "url", "path")
CAPTION_FIELDS = ("captions", "caption", "title", "text")
TAG_FIELDS = ("tags", "labels", "keywords")


@dataclass(frozen=True, slots=True)
class Source:
    """One named input."""

    name: str  # a path, a URL or `-`
    base: Path  # the folder that its photos are relative to
    stage: str  # the command
    labels: Sequence[str] = ()  # to which ids in it refer

    def record(self, fields: JsonObject, line: int) -> Item:
        """The record of one row, or a reject where it cannot be written; `line` counts from 1."""
        try:
            content = dumps(fields)
            require_writable(fields, content)
        except (TypeError, ValueError) as error:
            return self.reject(line, "bad_json", f"cannot be written again: {error}", fields)
        name, stamp = shown_name(self.name), content_stamp(content)
        return Record(fields, name, line, self.base, stamp=stamp)

    def reject(self, line: int, code: str, message: str, raw: object) -> Reject:
        """The reject of one row that holds no record."""
        try:
            shown = str(raw)[:2000]
        except RecursionError:
            shown = ""
        return Reject(shown_name(self.name), line, self.stage, code, message, raw=shown)


def with_usual_names(row: JsonObject) -> JsonObject:
    """The row with `image` and `captions` in front, whatever it calls them."""
    image = next((row[name] for name in IMAGE_FIELDS if isinstance(row.get(name), str)), None)
    caption = next((row[name] for name in CAPTION_FIELDS if row.get(name) is not None), None)
    fields: JsonObject = {}
    if image is not None:
        fields["image"] = image
    if caption is not None:
        fields["captions"] = caption if isinstance(caption, list) else [caption]
    used = {"image", "captions", "caption"}
    return fields | {name: value for name, value in row.items() if name not in used}


def split_tags(text: str) -> list[str]:
    """The tags of "a, b; c | d", each once, in order."""
    return list(dict.fromkeys(tag.strip() for tag in re.split(r"[,;|]", text) if tag.strip()))
