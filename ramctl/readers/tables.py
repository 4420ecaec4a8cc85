"""Tables of captions: CC3M and CC12M, CSV and TSV with a header, Flickr token files, parquet."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from ramctl.errors import RunProblem
from ramctl.readers.source import (
    CAPTION_FIELDS,
    IMAGE_FIELDS,
    TAG_FIELDS,
    Source,
    split_tags,
    with_usual_names,
)
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject

#: Flickr8k.token.txt: name.jpg#0 TAB caption.
TOKEN_LINE = re.compile(r"(.+)#(\d+)\t(.*)")
IS_URL = re.compile(r"https?://")
csv.field_size_limit(1 << 24)
PARQUET_ROWS = 64  # at a time; each may hold a photo


def read_cc(source: Source) -> Iterator[Item]:
    """One record per line of CC3M (caption, address) or CC12M (address, caption), no header."""
    for number, row in _rows(source, "\t", quoting=csv.QUOTE_NONE):
        if len(row) != 2:
            yield source.reject(number, "bad_field", f"{len(row)} columns, not 2", "\t".join(row))
            continue
        image, caption = row if IS_URL.match(row[0]) else (row[1], row[0])
        yield source.record({"image": image, "captions": [caption]}, number)


def read_token(source: Source) -> Iterator[Item]:
    """One record per line of a Flickr token file; --group joins the five of a photo."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            match = TOKEN_LINE.fullmatch(text)
            if match:
                yield source.record({"image": match[1], "captions": [match[3]]}, number)
            elif text.strip():
                yield source.reject(number, "bad_field", "no name#number TAB caption", text)


def read_csv(source: Source) -> Iterator[Item]:
    """One record per row of a table with a header: open_clip's (filepath, title), Flickr's, tags.

    The delimiter is whichever of tab, `|`, `;` and comma the header holds most often.
    Columns named `tags`, `labels` or `keywords` are tags, split at `,`, `;` or `|`.
    """
    with open_input(source.name) as stream:
        header = stream.readline().decode("utf-8-sig", "replace")
    delimiter = max("\t|;,", key=header.count)
    names: list[str] = []
    for number, row in _rows(source, delimiter):
        cells = [cell.strip() for cell in row]
        if not names:
            names = [_column(cell) for cell in cells]
            if not {*IMAGE_FIELDS, *CAPTION_FIELDS, *TAG_FIELDS} & set(names):
                raise RunProblem(
                    f"{source.name}: no column is named {', '.join(IMAGE_FIELDS)}, "
                    f"{', '.join(CAPTION_FIELDS)} or {', '.join(TAG_FIELDS)}"
                )
        elif len(cells) < len(names):
            message = f"{len(cells)} columns, not {len(names)}"
            yield source.reject(number, "bad_field", message, delimiter.join(row))
        else:
            yield source.record(_fields(names, cells), number)


def read_parquet(source: Source) -> Iterator[Item]:
    """One record per row of a parquet file, as img2dataset writes them."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise RunProblem(f"{source.name}: reading parquet needs the package pyarrow") from error
    try:
        batches = parquet.ParquetFile(source.name).iter_batches(PARQUET_ROWS)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            plain = {k: v for k, v in row.items() if not isinstance(v, bytes)}
            yield source.record(with_usual_names(plain), number)
    except (ArrowInvalid, OSError) as error:
        raise RunProblem(f"{source.name}: {str(error).splitlines()[0]}") from error


def _rows(source: Source, delimiter: str, **options: Any) -> Iterator[tuple[int, list[str]]]:
    with open_input(source.name) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
        # A NUL is no part of any table; csv before Python 3.13 fails on it.
        lines = (line.replace("\0", "") for line in text)
        reader = csv.reader(lines, delimiter=delimiter, **options)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise RunProblem(f"{source.name}:{reader.line_num}: {error}") from error
        finally:
            text.detach()


def _column(name: str) -> str:
    """A header's name without quotes and spaces; Flickr30k's names become the usual ones."""
    name = name.strip().strip('"').strip()
    return {"image_name": "image", "comment": "caption", "filename": "file_name"}.get(name, name)


def _fields(names: list[str], cells: list[str]) -> JsonObject:
    row: JsonObject = dict(zip(names, cells, strict=False))
    tags = next((row.pop(name) for name in TAG_FIELDS if name in row), None)
    fields = with_usual_names(row)
    if tags is not None:
        fields["tags"] = split_tags(tags)
    return fields
