"""Output formats of `tag`: JSONL, a table for people, lines of text, CSV."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from ramctl.errors import escaped
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, listed, numbers_in
from ramctl.records.stream import Format

Column = Callable[[JsonObject], str]


def line_format(name: str, *, caption: bool) -> Format:
    """The format of that name, one of FORMATS; csv may have a column of captions."""
    if name == "parquet":
        from ramctl.records.parquet import ParquetWriter  # few write it

        writer = ParquetWriter()
        return Format(b"", writer.encode, writer.footer)
    if name == "csv":
        columns = {
            "image": lambda row: escaped(name_of(row)),
            "tags": lambda row: escaped(join_tags(row["tags"])),
            "scores": lambda record: ", ".join(
                f"{s:.4f}" for s in numbers_in(record, "scores").values()
            ),
        }
        if caption:
            columns["caption"] = lambda row: escaped(" ".join(listed(row, "generated_captions")))
        return table(columns)
    return Format(b"", {"jsonl": dumps, "table": table_lines, "text": text_line}[name])


def table(columns: Mapping[str, Column]) -> Format:
    """A table with a row for each record."""
    cells = columns.values()
    return Format(table_row(columns), lambda record: table_row(cell(record) for cell in cells))


def table_row(cells: Iterable[str], delimiter: str = ",") -> bytes:
    """One row, quoted where need be; a name that is not UTF-8 is the bytes that it is on disk."""
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return os.fsencode(line.getvalue())


def table_lines(record: JsonObject) -> bytes:
    """For people: the path, a caption, and under it the tags, each after its score."""
    scores = numbers_in(record, "scores")
    rows = [name_of(record)]
    rows += [f"  {caption}" for caption in listed(record, "generated_captions")]
    for tag in record["tags"]:
        score = f"{scores[tag]:.2f}" if tag in scores else ""
        rows.append(f"  {score:4}  {tag}")
    rows += [] if record["tags"] else ["  no tags"]
    return os.fsencode("".join(f"{_exactly(row)}\n" for row in rows))


def text_line(record: JsonObject) -> bytes:
    """Path, tab, tags joined by `, `; control characters as `\\n`, a comma in a tag as `\\,`."""
    name = _exactly(name_of(record))
    return (f"{name}\t{escaped(join_tags(record['tags']))}\n").encode()


def join_tags(tags: Sequence[str]) -> str:
    """The tags joined by `, `; a comma inside a tag is `\\,`, as image trainers expect."""
    return ", ".join(tag.replace(",", "\\,") for tag in tags)


def _exactly(text: str) -> str:
    """The text `escaped`, with `\\\\` for a backslash, so that it can be undone."""
    return escaped(text.replace("\\", "\\\\"))


def name_of(record: JsonObject) -> str:
    """The photo's name as it was given."""
    return str(record["image"])
