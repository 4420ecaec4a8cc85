"""Which format an input has, and its records."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ramctl.errors import UsageProblem
from ramctl.readers import archives, json_lists, tables
from ramctl.readers.source import USUAL, USUAL_FIELDS, Columns, Source, with_usual_names
from ramctl.records.fields import FOR_CAPTIONS, FOR_PREDICTIONS, Form
from ramctl.records.files import unpacked_name
from ramctl.records.inputs import copy_of_pipe, first_bytes, unread_inputs
from ramctl.records.jsonl import loads
from ramctl.records.parquet import opened
from ramctl.records.pipes import STDIN, is_folder, is_pipe
from ramctl.records.record import Item, JsonObject, Unread
from ramctl.records.remote import photo_base

#: All but JSONL and Parquet, whose lines are not parsed here.
READERS: dict[str, Callable[[Source], Iterator[Item]]] = {
    "coco": json_lists.read_coco,
    "vg": json_lists.read_visual_genome,
    "sbu": json_lists.read_sbu,
    "json": json_lists.read_objects,
    "cc": tables.read_cc,
    "csv": tables.read_csv,
    "lines": tables.read_lines,
    "token": tables.read_token,
    "tar": archives.read_tar,
    "txt": archives.read_captions,
    "tags": archives.read_tags,
    "ram": json_lists.read_ram,
}
_NEED_FILE = frozenset({"parquet", "txt", "tags"})
_TWICE = frozenset({"coco", "sbu"})  # gone over more than once
FORMATS = ("jsonl", "parquet", *READERS)
PREDICTION_FORMS = ("jsonl", "list")
_OURS = {"captions", "caption", "tags"}
_OF_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar", ".parquet": "parquet"}


def unread_any(
    inputs: Sequence[str],
    root: str | None,
    stage: str,
    *,
    form: str | None = None,
    labels: Sequence[str] = (),
    columns: Columns = USUAL,
) -> Iterator[Unread]:
    """The records of inputs one after the other, each made when it is called.

    `form` None means that each input is recognised; to `labels` the ids of the RAM authors' JSON
    refer. `columns` are what the user named.
    """
    for name in inputs:
        kind = form or recognise(name)
        if kind in _NEED_FILE and is_pipe(name):
            raise UsageProblem(f"--from {kind} needs a named file: it is read more than once")
        if kind == "parquet":
            columns.check(name, opened(name).schema_arrow.names)
        if kind in ("jsonl", "parquet"):  # which is read as that
            rename = partial(_renamed, columns=columns, is_table=kind == "parquet")
            for unread in unread_inputs([name], root, stage):
                yield partial(unread, rename=rename, forms=FOR_CAPTIONS)
            continue
        # The photos of a folder of sidecars are named with the folder.
        base = Path() if not root and is_folder(name) else photo_base(name, root)
        with copy_of_pipe(name) if kind in _TWICE else nullcontext("") as copy:
            for item in READERS[kind](Source(name, base, stage, labels, columns, copy)):
                yield partial(lambda made: made, item)


def _renamed(fields: JsonObject, columns: Columns, *, is_table: bool) -> JsonObject:
    """The fields with the usual names where they lack ours, or other ones were named."""
    ours = {name for name in _OURS & fields.keys() if fields[name] is not None}
    has_ours = ours and ("image" in fields or not is_table)
    return with_usual_names(fields, columns) if columns.named or not has_ours else fields


def read_predictions(
    name: str, stage: str, form: str | None = None, read: Callable[[bytes], JsonObject] = loads,
    *, forms: Mapping[str, Form] = FOR_PREDICTIONS,
) -> Iterator[Item]:  # fmt: skip
    """A tagger's records in a file or, for `-`, on standard input; `read` makes them of lines.

    `form` None: a list of tags by the name .txt or .csv, else JSONL.
    """
    if form == "list" or (form is None and Path(unpacked_name(name)).suffix in (".txt", ".csv")):
        yield from tables.read_list(Source(name, photo_base(name, None), stage))
    else:
        for make in unread_inputs([name], None, stage):
            yield make(stamped=False, read=read, forms=forms)


def recognise(name: str) -> str:
    """The format of an input by its name, then by its first bytes; `jsonl` for standard input."""
    if name == STDIN:
        return "jsonl"
    if is_folder(name):
        return "txt"
    suffix = Path(unpacked_name(name)).suffix
    if suffix in _OF_SUFFIX:
        return _OF_SUFFIX[suffix]
    start = first_bytes(name).lstrip(BOM_UTF8 + b" \t\r\n")
    if start[:1] in (b"{", b"["):
        return _recognise_json(start)
    first = start.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    if tables.TOKEN_LINE.fullmatch(first):
        return "token"
    columns = first.split("\t")
    if len(columns) == 2 and any(tables.IS_URL.match(column) for column in columns):
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
