"""The formats of captions: READERS lists them, `recognise` finds that of an input."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ramctl.captions import caption_tables, captions_beside_photos, json_lists, tag_tables
from ramctl.captions.source import USUAL, USUAL_FIELDS, Columns, Source, with_usual_names
from ramctl.errors import UsageProblem
from ramctl.records.files import is_file, is_folder, is_url, unpacked_name
from ramctl.records.inputs import first_bytes, read_inputs
from ramctl.records.parquet import opened
from ramctl.records.record import STDIN, Item, JsonObject, Record
from ramctl.records.remote import photo_base

#: The reader of each format but JSONL and Parquet.
READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    "coco": json_lists.read_coco,
    "vg": json_lists.read_visual_genome,
    "sbu": json_lists.read_sbu,
    "json": json_lists.read_objects,
    "cc": caption_tables.read_cc,
    "csv": caption_tables.read_csv,
    "lines": caption_tables.read_lines,
    "token": caption_tables.read_token,
    "tar": captions_beside_photos.read_tar,
    "txt": captions_beside_photos.read_captions,
    "tags": captions_beside_photos.read_tags,
    "ram": json_lists.read_ram,
}
_NEED_FILE = frozenset({"parquet", "txt", "tags", "coco", "sbu"})
FORMATS = ("jsonl", "parquet", *READERS)
_TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
_OUR_FIELDS = {"captions", "caption", "tags"}
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
        if kind in _NEED_FILE and not (is_file(name) or is_folder(name) or is_url(name)):
            raise UsageProblem(f"--from {kind} needs a named file: it is read more than once")
        if kind == "parquet":
            columns.check(name, opened(name).schema_arrow.names)
        if kind in ("jsonl", "parquet"):  # which is read as that
            rename = partial(_renamed, columns=columns, is_table=kind == "parquet")
            for item in read_inputs([name], root, stage):
                yield _item_renamed(item, rename, is_sure=bool(form) or name != STDIN)
            continue
        # Photos in a folder of sidecars have names with the folder.
        base = Path() if not root and is_folder(name) else photo_base(name, root)
        yield from READERS[kind](Source(name, base, stage, labels, columns))


def require_readable(
    inputs: Sequence[str], read: Callable[[Sequence[str]], Iterator[Item]]
) -> None:
    """Raise what reading the first row of a file raises, for before outputs are opened."""
    for name in filter(is_file, inputs):
        next(read([name]), None)


def _item_renamed(item: Item, rename: Callable[[JsonObject], JsonObject], *, is_sure: bool) -> Item:
    if isinstance(item, Record):
        item.fields = rename(item.fields)
    elif not (is_sure or (item.raw or "").lstrip().startswith("{")):
        item = replace(item, message=f"{item.message}; another format on stdin needs --from")
    return item


def _renamed(fields: JsonObject, columns: Columns, *, is_table: bool) -> JsonObject:
    """Give fields their usual names where they lack ours, or the user named columns.

    Ours is `captions` for a list, which other projects call `caption` too.
    """
    present = {name for name in _OUR_FIELDS & fields.keys() if fields[name] is not None}
    is_list = isinstance(fields.get("caption"), list)
    has_ours = present and not is_list and ("image" in fields or not is_table)
    return with_usual_names(fields, columns) if columns.names or not has_ours else fields


def read_predictions(name: str, stage: str) -> Iterator[Item]:
    """A tagger's records: a table in a .txt, .csv or .tsv, else JSONL; `-` is standard input."""
    if Path(unpacked_name(name)).suffix in _TABLE_SUFFIXES:
        is_headed = tag_tables.is_headed(name)
        read_tags = tag_tables.read_table if is_headed else tag_tables.read_list
        yield from read_tags(Source(name, photo_base(name, None), stage))
        return
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
    if caption_tables.TOKEN_LINE.fullmatch(first):
        return "token"
    columns = first.split("\t")
    if len(columns) == 2 and any(caption_tables.IS_URL.match(column) for column in columns):
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
    if {b"image_urls"} & keys:
        return "sbu"
    if re.match(rb'\{\s*"(info|images|licenses|annotations|type)"\s*:\s*[\[{"]', start):
        return "coco"
    return "jsonl"
