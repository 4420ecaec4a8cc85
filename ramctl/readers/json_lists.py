"""Long JSON files: COCO captions, Visual Genome regions, SBU, lists of objects, RAM's own.

Read item by item, so that a file of any size takes constant memory.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import orjson

from ramctl.errors import RunProblem
from ramctl.readers.source import Source, with_usual_names
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject

CHUNK = 1 << 18
#: One item must fit: far beyond any caption record.
MAX_ITEM = 1 << 26
#: What ends or nests a value; strings are skipped whole.
_MARK = re.compile(rb'["{}\[\],:]')
_NESTED_MARK = re.compile(rb'[{}\[\]]|"(?:[^"\\]|\\.)*"?', re.DOTALL)
_CONTENT = re.compile(b"[^ \t\r\n," + BOM_UTF8 + b"]")


def read_coco(source: Source) -> Iterator[Item]:
    """One record per annotation of a COCO captions file; the photos' names are in memory."""
    names = {
        str(row["id"]): row["file_name"]
        for row in _items(source, "images")
        if isinstance(row, dict) and "id" in row and isinstance(row.get("file_name"), str)
    }
    for number, row in enumerate(_items(source, "annotations"), 1):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            yield source.reject(number, "missing_field", "annotation without caption", row)
            continue
        image_id = str(row.get("image_id"))
        image = names.get(image_id, image_id)
        yield source.record({"image": image, "captions": [row["caption"]]}, number)


def read_visual_genome(source: Source) -> Iterator[Item]:
    """One record per photo of Visual Genome's region_descriptions.json, phrases as captions."""
    for number, row in enumerate(_items(source, None), 1):
        regions = row.get("regions") if isinstance(row, dict) else None
        if not isinstance(regions, list) or not all(isinstance(r, dict) for r in regions):
            yield source.reject(number, "missing_field", "no regions", row)
            continue
        phrases = [region["phrase"] for region in regions if isinstance(region.get("phrase"), str)]
        image = row.get("id", regions[0].get("image_id") if regions else None)
        yield source.record({"image": f"{image}.jpg", "captions": phrases}, number)


def read_sbu(source: Source) -> Iterator[Item]:
    """One record per photo of SBU's parallel lists `image_urls` and `captions`."""
    pairs = zip(_items(source, "image_urls"), _items(source, "captions"), strict=False)
    for number, (url, caption) in enumerate(pairs, 1):
        yield source.record({"image": url, "captions": [caption]}, number)


def read_objects(source: Source) -> Iterator[Item]:
    """One record per object of a JSON list; photo and caption go by their usual names."""
    for number, row in enumerate(_items(source, None), 1):
        if not isinstance(row, dict):
            yield source.reject(number, "bad_json", "not a JSON object", row)
            continue
        yield source.record(with_usual_names(row), number)


def read_ram(source: Source, labels: Sequence[str]) -> Iterator[Item]:
    """One record per object of the authors' training JSON, ids turned into `labels`' tags.

    RAM++ leaves `parse_label_id` out, Tag2Text `union_label_id`.
    """
    if not labels:
        raise RunProblem("--from ram needs --labels: the tag list that the ids refer to")
    for number, row in enumerate(_items(source, None), 1):
        try:
            caption = row["caption"]
            captions = caption if isinstance(caption, list) else [caption]
            fields: JsonObject = {"image": row["image_path"], "captions": captions}
            union = _tags(row.get("union_label_id"), labels)
            parsed = [_tags(ids, labels) for ids in row.get("parse_label_id") or []]
        except (KeyError, TypeError, IndexError) as error:
            yield source.reject(number, "bad_field", f"not a RAM record: {error!r}", row)
            continue
        fields["tags"] = union or list(dict.fromkeys(tag for tags in parsed for tag in tags))
        if parsed:
            fields["caption_tags"] = parsed
        yield source.record(fields, number)


def _tags(ids: list[int] | None, labels: Sequence[str]) -> list[str]:
    if ids and min(ids) < 0:
        raise IndexError("a negative id")
    return [labels[i] for i in ids or []]


def _items(source: Source, key: str | None) -> Iterator[Any]:
    with open_input(source.name) as stream:
        try:
            yield from JsonScanner(stream).items(key)
        except ValueError as error:
            raise RunProblem(f"{source.name}: not the expected JSON: {error}") from error


class JsonScanner:
    """Reads through a JSON text and knows at each mark how deep it is and under which key."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self._ended = False

    def items(self, key: str | None) -> Iterator[Any]:
        """The items of the top-level list, or of the list under `key` of the top-level object.

        Raises ValueError where the text is no such JSON; yields nothing if the key is absent.
        """
        if not self._enter(key):
            return
        while True:
            start = self._skip_space_and_commas()
            if start == b"]":
                return
            if not start:
                raise ValueError("the list has no end")
            yield orjson.loads(self._value())

    def _enter(self, key: str | None) -> bool:
        """Move past the `[` of the wanted list; whether there is one."""
        start = self._skip_space_and_commas()
        if key is None:
            if start != b"[":
                raise ValueError("not a JSON list")
            self._at += 1
            return True
        if start != b"{":
            raise ValueError("not a JSON object")
        self._at += 1
        while (start := self._skip_space_and_commas()) == b'"':
            name = orjson.loads(self._value())
            if self._skip_space_and_commas() != b":":
                raise ValueError("a key without a value")
            self._at += 1
            if self._skip_space_and_commas() == b"[" and name == key:
                self._at += 1
                return True
            self._skip_value()
        return False

    def _more(self) -> bool:
        """Read more, dropping what lies before the current place; False at the end."""
        if not self._ended:
            chunk = self._stream.read(CHUNK)
            self._ended = not chunk
            self._buffer = self._buffer[self._at :] + chunk
            self._at = 0
        return not self._ended

    def _skip_space_and_commas(self) -> bytes:
        """The next byte that is neither white space nor a comma; empty at the end."""
        while True:
            found = _CONTENT.search(self._buffer, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._buffer)
            if not self._more():
                return b""

    def _value(self) -> bytes:
        """The text of the value that starts here, moved past."""
        depth, length = 0, 0
        while True:
            pattern = _NESTED_MARK if depth else _MARK
            found = pattern.search(self._buffer, self._at + length)
            if found is None:
                length = len(self._buffer) - self._at
                if length > MAX_ITEM:
                    raise ValueError(f"an item of more than {MAX_ITEM} bytes")
                if not self._more():
                    return self._take(length)
                continue
            mark, length = found[0], found.end() - self._at
            if (
                depth
                and mark[:1] == b'"'
                and self._buffer[found.end() : found.end() + 1] not in (b"", b"\\")
            ):
                continue
            if mark[:1] == b'"':
                length = self._end_of_string(found.start() + 1 - self._at)
                if depth == 0:
                    return self._take(length)
            elif mark in b"{[":
                depth += 1
            elif mark in b"}]" and depth > 1:
                depth -= 1
            elif mark in b"}]":
                return self._take(length if depth else length - 1)
            elif depth == 0:
                return self._take(length - 1)

    def _skip_value(self) -> None:
        """Move past the value that starts here; a list of any length, item by item."""
        if self._skip_space_and_commas() != b"[":
            self._value()
            return
        self._at += 1
        while self._skip_space_and_commas() not in (b"]", b""):
            self._value()
        self._at += 1

    def _end_of_string(self, length: int) -> int:
        """How far the closing quote is of the string that starts before `length`."""
        while True:
            end = self._buffer.find(b'"', self._at + length)
            if end < 0:
                length = len(self._buffer) - self._at
                if length > MAX_ITEM or not self._more():
                    raise ValueError("a string has no end")
                continue
            length = end + 1 - self._at
            before = self._buffer[self._at : end]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
                return length

    def _take(self, length: int) -> bytes:
        value = self._buffer[self._at : self._at + length]
        self._at += length
        return value
