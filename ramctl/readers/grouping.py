"""Joins the records of each photo, wherever they stand, in bounded memory."""

import hashlib
import heapq
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import orjson

from ramctl.errors import RecordProblem
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.record import Item, JsonObject, Record, Reject, captions_of

#: Spool files: each is small enough to be grouped in memory.
PARTS = 64


def group_by_image(items: Iterator[Item]) -> Iterator[Item]:
    """One record per photo, where its first one stood, with the captions of all in order.

    Other fields are those of the first. Rejects pass through at once, records without an image
    stay alone. Text is spooled to temporary files by a hash of the photo's name; a 64th of it is
    in memory at a time.
    """
    with tempfile.TemporaryDirectory(prefix="ramctl-group-") as folder, ExitStack() as stack:
        names = [Path(folder) / f"{part}.jsonl" for part in range(PARTS)]
        parts = [stack.enter_context(name.open("w+b")) for name in names]
        yield from _spool(items, parts)
        grouped = [
            stack.enter_context(_group(part, name)) for part, name in zip(parts, names, strict=True)
        ]
        for _, line in heapq.merge(*map(_lines, grouped), key=lambda pair: pair[0]):
            row = orjson.loads(line)
            fields = row["fields"]
            stamp = content_stamp(dumps(fields))
            yield Record(fields, row["source"], row["line"], Path(row["base"]), stamp=stamp)


def _spool(items: Iterator[Item], parts: Sequence[BinaryIO]) -> Iterator[Item]:
    for number, item in enumerate(items):
        if isinstance(item, Reject):
            yield item
            continue
        try:
            captions_of(item.fields)
        except RecordProblem:
            yield item  # rejected where captions are read, with its own message
            continue
        image = item.fields.get("image")
        key = orjson.dumps(image if image is not None else ["no image", number])
        row = {
            "number": number, "key": key.decode(), "source": item.source, "line": item.line,
            "base": str(item.base), "fields": item.fields,
        }  # fmt: skip
        digest = hashlib.blake2b(key, digest_size=2).digest()
        parts[int.from_bytes(digest) % len(parts)].write(dumps(row))


def _group(part: BinaryIO, name: Path) -> BinaryIO:
    """The part's rows joined by photo, in a new file, in the order of first places."""
    rows: dict[str, JsonObject] = {}
    part.seek(0)
    for line in part:
        row = orjson.loads(line)
        first = rows.setdefault(row["key"], row)
        if first is not row:
            _join(first["fields"], row["fields"])
    part.close()
    joined = name.with_suffix(".grouped").open("w+b")
    for row in rows.values():
        joined.write(dumps(row))
    joined.seek(0)
    return joined


def _join(first: JsonObject, other: JsonObject) -> None:
    captions = [*captions_of(first), *captions_of(other)]
    if captions:
        first.pop("caption", None)
        first["captions"] = captions
    tags = [*(first.get("tags") or []), *(other.get("tags") or [])]
    if tags:
        first["tags"] = list(dict.fromkeys(tags))


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for line in stream:
        yield orjson.loads(line)["number"], line
