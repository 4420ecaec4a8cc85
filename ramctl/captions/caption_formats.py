"""The formats of captions: READERS lists them, `recognise` finds that of an input."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ramctl.captions import caption_readers, tag_tables
from ramctl.captions.source import USUAL, USUAL_FIELDS, Columns, Source, with_usual_names
from ramctl.errors import attempt
from ramctl.records.files import is_file, is_folder, is_url, unpacked_name
from ramctl.records.inputs import first_bytes, photo_base, read_inputs
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.parquet import opened
from ramctl.records.record import STDIN, Item, JsonObject, Record, Reject, captions_of, listed

#: The reader of each format but JSONL and Parquet.
READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    "coco": caption_readers.read_coco,
    "vg": caption_readers.read_visual_genome,
    "sbu": caption_readers.read_sbu,
    "json": caption_readers.read_objects,
    "cc": partial(caption_readers.read_lines, forms=caption_readers.CONCEPTUAL),
    "csv": caption_readers.read_csv,
    "lines": partial(caption_readers.read_lines, forms=caption_readers.PLAIN),
    "token": partial(caption_readers.read_lines, forms=caption_readers.TOKEN),
    "tar": caption_readers.read_tar,
    "txt": caption_readers.read_captions,
    "tags": caption_readers.read_tags,
    "ram": caption_readers.read_ram,
}
_TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
_SUFFIX_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar", ".parquet": "parquet"}


def read_captions_of(
    inputs: Sequence[str],
    root: str | None,
    stage: str,
    *,
    form: str | None = None,
    labels: Sequence[str] = (),
    columns: Columns = USUAL,
) -> Iterator[Item]:
    """The records of inputs, in order.

    With `form` None the format of each input is recognised. `labels` are those of the ids in the
    RAM authors' JSON, `columns` the options of the user.
    """
    for name in inputs:
        kind = form or recognise(name)
        if kind == "parquet":
            columns.check(name, opened(name).schema_arrow.names)
        if kind in ("jsonl", "parquet"):
            for item in read_inputs([name], root, stage):
                if isinstance(item, Record):
                    item.fields = _renamed(item.fields, columns, is_table=kind == "parquet")
                elif name == STDIN and not form and not str(item.raw).lstrip().startswith("{"):
                    hint = "another format on stdin needs --from"
                    item = replace(item, message=f"{item.message}; {hint}")
                yield item
            continue
        # Photos in a folder of sidecars have names with the folder.
        base = Path() if not root and is_folder(name) else photo_base(name, root)
        yield from READERS[kind](Source(name, base, stage, labels, columns))


def _renamed(fields: JsonObject, columns: Columns, *, is_table: bool) -> JsonObject:
    """Give fields their usual names where they lack ours, or the user named columns.

    Ours is `captions` for a list, which other projects call `caption` too.
    """
    is_list = isinstance(fields.get("caption"), list)
    is_text = any(fields.get(name) is not None for name in ("captions", "caption", "tags"))
    has_ours = is_text and not is_list and ("image" in fields or not is_table)
    return with_usual_names(fields, columns) if columns != USUAL or not has_ours else fields


def group_by_image(items: Iterator[Item], stage: str) -> Iterator[Item]:
    """One record per photo, in the place of its first, with the captions and tags of all in order.

    Other fields are those of the first record. Rejects pass at once; records without an image stay
    alone. All records are in memory.
    """
    photos: dict[Any, Record] = {}
    for number, item in enumerate(items):
        if isinstance(item, Reject):
            yield item
            continue
        image = item.fields.get("image")
        first = photos.setdefault(image if isinstance(image, str) else number, item)
        if first is not item:
            problem = attempt(_join, first.fields, item.fields)
            if problem is not None:
                yield Reject.of(item, problem, stage)
    for record in photos.values():
        record.stamp = content_stamp(dumps(record.fields))
        yield record


def _join(first: JsonObject, other: JsonObject) -> None:
    captions = [*captions_of(first), *captions_of(other)]
    if captions:
        first.pop("caption", None)
        first["captions"] = captions
    tags = [*listed(first, "tags"), *listed(other, "tags")]
    if tags:
        first["tags"] = list(dict.fromkeys(tags))


def read_predictions(name: str, stage: str) -> Iterator[Item]:
    """A tagger's records: a table in a .txt, .csv or .tsv, else JSONL; `-` is standard input."""
    if Path(unpacked_name(name)).suffix in _TABLE_SUFFIXES:
        yield from tag_tables.read_tags(Source(name, photo_base(name, None), stage))
    else:
        yield from read_inputs([name], None, stage)


def recognise(name: str) -> str:
    """Recognise the format of a file by its name, then its first bytes; a pipe is `jsonl`."""
    if is_folder(name):
        return "txt"
    if not (is_file(name) or is_url(name)):
        return "jsonl"
    suffix = Path(unpacked_name(name)).suffix
    if suffix in _SUFFIX_FORMATS:
        return _SUFFIX_FORMATS[suffix]
    start = first_bytes(name).lstrip(BOM_UTF8 + b" \t\r\n")
    if start[:1] in (b"{", b"["):
        return _recognise_json(start)
    first = start.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    if caption_readers.TOKEN[0].fullmatch(first):
        return "token"
    if re.fullmatch(r"(https?://[^\t]*\t[^\t]*)|([^\t]*\thttps?://[^\t]*)", first):
        return "cc"
    cells = {cell.strip('" ').casefold() for cell in re.split("[\t|;,]", first)}
    if suffix == ".txt" and not cells & USUAL_FIELDS:
        return "lines"
    return "csv" if suffix in (".csv", ".tsv", ".txt") else "jsonl"


def _recognise_json(start: bytes) -> str:
    keys = set(re.findall(rb'"(\w+)"\s*:', start))
    if start[:1] == b"[":
        if b"regions" in keys:
            return "vg"
        has_ids = not keys.isdisjoint({b"union_label_id", b"parse_label_id"})
        return "ram" if has_ids and b"image_path" in keys else "json"
    if b"image_urls" in keys:
        return "sbu"
    if re.match(rb'\{\s*"(info|images|licenses|annotations|type)"\s*:\s*[\[{"]', start):
        return "coco"
    return "jsonl"
