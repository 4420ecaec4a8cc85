"""Read and write JSON lines."""

import hashlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from ramctl.records.record import Item, JsonObject, Record, Reject


def dumps(fields: JsonObject | list[JsonObject]) -> bytes:
    """The object, or list, as one UTF-8 line, keys in their order, newline included."""
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def loads(line: bytes) -> JsonObject:
    """The object of one line; ValueError for anything else."""
    fields = orjson.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return fields


def read_lines(lines: Iterable[bytes], source: str, base: Path, stage: str) -> Iterator[Item]:
    """The record, or the reject, of each line that is not blank, in order."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        if not line.isspace():
            yield parse_line(line, source, number, base, stage)


def parse_line(line: bytes, source: str, number: int, base: Path, stage: str) -> Item:
    """The record of a line, or its reject."""
    try:
        fields = loads(line)
    except ValueError as error:
        code, message = "bad_json", f"bad JSON: {str(error).split(': line 1', 1)[0]}"
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            code, message = "bad_utf8", f"invalid UTF-8 at byte {bad.start}"
        shown = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        return Reject(source, number, stage, code, message, raw=shown)
    return Record(fields, source, number, base, stamp=content_stamp(line.strip()))


def content_stamp(content: bytes) -> str:
    """A short hash by which `--resume` detects a changed input."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
