"""Tagged records as lines for other programs: text, tables."""

import csv
import io
import os
import re
from collections.abc import Callable
from typing import Any

from ramctl.io.jsonl import dumps
from ramctl.io.records import decode_name

Encoder = Callable[[dict[str, Any]], bytes]
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_COLUMNS = ("image", "tags", "scores")


def encoder(name: str, *, caption: bool = False) -> tuple[bytes, Encoder]:
    """What comes before the first record, and what makes the bytes of each, for `--format`."""
    if name == "jsonl":
        return b"", dumps
    if name == "text":
        return b"", text_line
    columns = [*_COLUMNS, *(["caption"] if caption else [])]
    delimiter = {"csv": ",", "tsv": "\t"}[name]
    row = _row_writer(delimiter)
    return row(columns), lambda record: row(_cells(record, columns))


def text_line(record: dict[str, Any]) -> bytes:
    """Path, tab, tags joined by `, `; control characters as `\\n`, a tag's own comma as `\\,`."""
    name = _CONTROL.sub(_escape, decode_name(record["image"]))
    return os.fsencode(f"{name}\t{join_tags(record['tags'])}\n")


def join_tags(tags: list[str], separator: str = ", ") -> str:
    """The tags in one line; a comma inside a tag is `\\,`, as trainers of generators expect."""
    return separator.join(tag.replace(",", "\\,") for tag in tags)


def _escape(match: re.Match[str]) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
    return named.get(match[0]) or f"\\x{ord(match[0]):02x}"


def _cells(record: dict[str, Any], columns: list[str]) -> list[str]:
    cells = {
        "image": decode_name(record["image"]),
        "tags": join_tags(record["tags"]),
        "scores": ", ".join(f"{score:.4f}" for score in record["scores"].values()),
        "caption": " ".join(record.get("generated_captions", [])),
    }
    return [cells[column] for column in columns]


def _row_writer(delimiter: str) -> Callable[[list[str]], bytes]:
    def row(cells: list[str]) -> bytes:
        line = io.StringIO()
        csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
        return os.fsencode(line.getvalue())

    return row


def naming_labels_once(encode: Encoder, names: list[str]) -> Encoder:
    """The encoder, with the labels of the dense scores in the first record that it writes."""
    unwritten = [names]

    def encode_first(record: dict[str, Any]) -> bytes:
        return encode(record | {"label_names": unwritten.pop()} if unwritten else record)

    return encode_first
