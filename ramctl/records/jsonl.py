"""Read and write JSON lines; fields that ramctl does not know stay unchanged."""

import hashlib
import json
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ramctl.errors import RecordProblem
from ramctl.records.fields import FORMS, Form, require_forms
from ramctl.records.record import Item, JsonObject, Record, Reject
from ramctl.records.remote import photo_base

# Numbers that a double or a 64-bit integer may not keep digit by digit.
_RISKY_NUMBER = re.compile(rb"[0-9][eE]|[0-9.]{16}|-0")
MAX_LINE = 64_000_000  # bytes; a longer line is a reject
_MAX_SHOWN = 1000  # bytes of a longer line in its reject
# orjson reads 1,024 levels of nesting and writes 254, some of them around the record.
_MAX_LEVELS = 200
_REJECT_FIELDS = frozenset({"source", "line", "stage", "code", "message"})
_KNOWN_FIELDS = frozenset({"image", *FORMS, "record", "raw"})


def dumps(fields: JsonObject | list[JsonObject]) -> bytes:
    """The object, or list, as one UTF-8 line, keys in their order, newline included."""
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)


def loads(line: bytes) -> JsonObject:
    """The object of one line; ValueError for anything else.

    Numbers in unknown fields keep their digits, whatever their precision.
    """
    fields = orjson.loads(line)
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    require_writable(fields, line)
    foreign = [value for key, value in fields.items() if key not in _KNOWN_FIELDS]
    if _may_be_inexact(foreign) and _RISKY_NUMBER.search(line):
        raw = json.loads(line, parse_float=_exact, parse_int=_exact)
        return {key: fields[key] if key in _KNOWN_FIELDS else raw[key] for key in fields}
    return dict(fields)


def _may_be_inexact(value: Any) -> bool:
    """Whether a value holds a number that may have been written otherwise: a float or -0."""
    if isinstance(value, dict):
        return any(map(_may_be_inexact, value.values()))
    if isinstance(value, list):
        return any(map(_may_be_inexact, value))
    return value == 0 if type(value) is int else isinstance(value, float)


def _exact(digits: str) -> Any:
    value = orjson.loads(digits)
    return value if orjson.dumps(value) == digits.encode() else orjson.Fragment(digits)


def require_writable(fields: JsonObject, content: bytes) -> None:
    """Raise ValueError for an object, with its JSON `content`, that is nested too deeply."""
    if len(content) > _MAX_LEVELS and max(map(content.count, (b"{", b"["))) > _MAX_LEVELS // 2:
        try:
            orjson.dumps([[[[fields]]]], option=orjson.OPT_SERIALIZE_NUMPY)
        except TypeError as error:
            raise ValueError("nested too deeply to be written again") from error


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream, each cut after MAX_LINE + 1 bytes."""
    while line := stream.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE + 1)


def unread_records(
    stream: BinaryIO, source: str, base: Path, stage: str
) -> Iterator[partial[Item]]:
    """Functions that make the record, or the reject, of each line that is not blank, in order."""
    for number, line in enumerate(bounded_lines(stream), 1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        if not line.isspace():
            yield partial(parse_line, line, source, number, base, stage)


def parse_line(
    line: bytes, source: str, number: int, base: Path, stage: str, *,
    stamped: bool = True, read: Callable[[bytes], JsonObject] = loads,
    rename: Callable[[JsonObject], JsonObject] | None = None, forms: Mapping[str, Form] = FORMS,
) -> Item:  # fmt: skip
    """The record of a line, or its reject; `stamped` for `--resume`.

    `read` parses the line, `rename` gives fields their usual names, and `forms` are checked.
    """
    if len(line) > MAX_LINE:
        message = f"a line of more than {MAX_LINE} bytes"
        shown = line[:_MAX_SHOWN].decode("utf-8", "backslashreplace")
        return Reject(source, number, stage, "too_large", message, raw=shown)
    try:
        fields, base = _unwrap(read(line), base)
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line 1", 1)[0] or "too deeply nested"
        code, message = "bad_json", f"bad JSON: {reason}"
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as bad:
            code, message = "bad_utf8", f"invalid UTF-8 at byte {bad.start}"
        shown = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        return Reject(source, number, stage, code, message, raw=shown)
    stamp = content_stamp(line.strip()) if stamped else ""
    fields = fields if rename is None else rename(fields)
    return checked(Record(fields, source, number, base, stamp=stamp), stage, forms)


def checked(record: Record, stage: str, forms: Mapping[str, Form] = FORMS) -> Item:
    """The record, or its reject where a field is of another type than in `forms`."""
    try:
        require_forms(record.fields, forms)
    except RecordProblem as problem:
        return Reject.of(record, problem, stage)
    return record


def content_stamp(content: bytes) -> str:
    """A short hash by which `--resume` detects a changed input."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _unwrap(fields: JsonObject, base: Path) -> tuple[JsonObject, Path]:
    """The record inside a reject, and the base of its photo; other records as they are."""
    if "stage" not in fields or not fields.keys() >= _REJECT_FIELDS:
        return fields, base
    source, line = fields["source"], fields["line"]
    if isinstance(source, str):
        base = Path() if source == "-" or line is None else photo_base(source)
    if isinstance(fields.get("record"), dict):
        return fields["record"], base
    if isinstance(fields.get("raw"), str):
        return loads(fields["raw"].encode("utf-8")), base
    return fields, base


def spool_line(item: Item) -> bytes:
    """An item as two lines, its place and its fields, for `unspool`."""
    if isinstance(item, Reject):
        reject = {key: value for key, value in item.to_json().items() if key != "record"}
        return dumps({"reject": reject | {"stamp": item.stamp}}) + dumps(item.record or {})
    place = {"source": item.source, "line": item.line, "base": os.fsencode(item.base).hex()}
    return dumps({"at": place, "stamp": item.stamp}) + dumps(item.fields)


def unspool(lines: Iterator[bytes]) -> Iterator[Item]:
    """The items that `spool_line` wrote, identical to the last digit."""
    for line in lines:
        row, fields = orjson.loads(line), loads(next(lines))
        if "reject" in row:
            yield Reject(**row["reject"], record=fields or None)
            continue
        at = row["at"]
        base = Path(os.fsdecode(bytes.fromhex(at["base"])))
        yield Record(fields, at["source"], at["line"], base, stamp=row["stamp"])
