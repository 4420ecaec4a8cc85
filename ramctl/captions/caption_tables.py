"""Read tables of captions: CC3M and CC12M, CSV and TSV with a header, Flickr token files."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from ramctl.captions.source import TAG_FIELDS, Source, split_tags, with_usual_names
from ramctl.errors import RunProblem
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject, Reject

#: Flickr8k.token.txt: name.jpg#0 TAB caption.
TOKEN_LINE = re.compile(r"(.+)#(\d+)\t(.*)")
IS_URL = re.compile(r"https?://")
csv.field_size_limit(1 << 24)


def read_cc(source: Source) -> Iterator[Item]:
    """One record per line of CC3M (caption, address) or CC12M (address, caption), no header."""
    for number, row in read_rows(source, "\t", quoting=csv.QUOTE_NONE):
        if bad := not_utf8(source, number, "\t".join(row)):
            yield bad
            continue
        if len(row) != 2:
            yield source.reject(number, "bad_field", f"{len(row)} columns, not 2", "\t".join(row))
            continue
        image, caption = row if IS_URL.match(row[0]) else (row[1], row[0])
        yield source.record({"image": image, "captions": [caption]}, number)


def read_lines(source: Source) -> Iterator[Item]:
    """One record per line of text: a caption without a photo."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            text = line.decode("utf-8-sig", "surrogateescape").strip()
            if bad := not_utf8(source, number, text):
                yield bad
            elif text:
                yield source.record({"captions": [text]}, number)


def read_token(source: Source) -> Iterator[Item]:
    """One record per line of a Flickr token file; --group joins the five of a photo."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            match = TOKEN_LINE.fullmatch(text)
            if bad := not_utf8(source, number, text):
                yield bad
            elif match:
                yield source.record({"image": match[1], "captions": [match[3]]}, number)
            elif text.strip():
                yield source.reject(number, "bad_field", "no name#number TAB caption", text)


def read_csv(source: Source) -> Iterator[Item]:
    """One record per row of a table with a header: open_clip's (filepath, title), Flickr's, tags.

    The delimiter is whichever of tab, `|`, `;` and comma the header holds most often.
    Columns named `tags`, `labels` or `keywords` are tags, split at `,`, `;` or `|`.
    """
    names: list[str] = []
    for number, row in read_rows(source):
        cells = [cell.strip() for cell in row]
        bad = not_utf8(source, number, ",".join(row))
        if not names:
            if bad:
                raise RunProblem(f"{source.name}:{number}: {bad.message}")
            names = [cell.strip('" ') for cell in cells]
            while names and not names[-1]:  # a line may end with a delimiter
                names.pop()
            source.columns.check(source.name, names)
            continue
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if bad:
            yield bad
        elif len(cells) != len(names):
            message = f"{len(cells)} columns, not {len(names)}"
            yield source.reject(number, "bad_field", message, ",".join(row))
        else:
            yield source.record(_fields(names, cells, source), number)


def delimiter_of(header: str) -> str:
    """Whichever of comma, tab, `|` and `;` a line holds most often."""
    return max("\t|;,", key=header.count)


def not_utf8(source: Source, number: int, text: str, file: str = "") -> Reject | None:
    """The reject of a text with bytes that "surrogateescape" kept, as they are not UTF-8.

    `file` is the one in a folder or archive that has the text.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        message = f"{file}: invalid UTF-8" if file else "invalid UTF-8"
        return source.reject(number, "bad_utf8", message, shown)
    return None


def read_rows(
    source: Source, delimiter: str | None = None, **options: Any
) -> Iterator[tuple[int, list[str]]]:
    """The number of the last line and the cells of each row; `not_utf8` is left to the caller.

    Without `delimiter` the first line shows it. RunProblem for a quote that is not closed, as the
    rows after it would belong to its cell.
    """
    line = ""

    def lines(header: str) -> Iterator[str]:
        nonlocal line
        for line in chain([header], text):
            line = line.replace("\0", "")  # no part of a table; csv before Python 3.13 fails on it
            yield line

    with open_input(source.name) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        try:
            header = text.readline()
            options["delimiter"] = delimiter or delimiter_of(header)
            reader = csv.reader(lines(header), strict=True, **options)
            row: list[str] | None = []
            while row is not None:
                before = reader.line_num
                try:
                    row = next(reader, None)
                except csv.Error:
                    if reader.line_num > before + 1:
                        raise
                    row = next(csv.reader([line], **options))  # such quotes hide no other row
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            where = f"{source.name}:{before + 1}"
            raise RunProblem(f"{where}: {error}; is a quote not closed?") from error
        finally:
            text.detach()


def _fields(names: list[str], cells: list[str], source: Source) -> JsonObject:
    row: JsonObject = dict(zip(names, cells, strict=False))
    columns = (name for name in names if name.casefold() in TAG_FIELDS)
    tags = next((row.pop(name) for name in columns), None)
    fields = with_usual_names(row, source.columns)
    if tags is not None:
        fields["tags"] = split_tags(tags)
    return fields
