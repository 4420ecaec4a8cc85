"""The formats of captions: READERS lists them, `recognise` finds that of an input."""

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ramctl.errors import UsageProblem
from ramctl.parts import load_plugin, plugins
from ramctl.readers import caption_tables, captions_beside_photos, json_lists, tag_tables
from ramctl.readers.source import USUAL, USUAL_FIELDS, Columns, Source, with_usual_names
from ramctl.records.fields import FOR_CAPTIONS, FOR_PREDICTIONS, Form
from ramctl.records.files import is_url, unpacked_name
from ramctl.records.inputs import copy_of_pipe, first_bytes, unread_inputs
from ramctl.records.jsonl import loads
from ramctl.records.parquet import opened
from ramctl.records.pipes import STDIN, is_folder, is_pipe
from ramctl.records.record import Item, JsonObject, Unread
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
_NEED_FILE = frozenset({"parquet", "txt", "tags"})
_READ_TWICE = frozenset({"coco", "sbu"})
FORMATS = ("jsonl", "parquet", *READERS)
GROUP = "ramctl.readers"  # of plug-ins
PREDICTION_FORMS = ("jsonl", "list", "csv")
_TABLE_SUFFIXES = (".txt", ".csv", ".tsv")
_OUR_FIELDS = {"captions", "caption", "tags"}
_SUFFIX_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar", ".parquet": "parquet"}


def unread_any(
    inputs: Sequence[str],
    root: str | None,
    stage: str,
    *,
    form: str | None = None,
    labels: Sequence[str] = (),
    columns: Columns = USUAL,
) -> Iterator[Unread]:
    """Functions that make the records of inputs, in order.

    With `form` None the format of each input is recognised. `labels` are those of the ids in the
    RAM authors' JSON, `columns` the options of the user.
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
                unread = partial(unread, rename=rename, forms=FOR_CAPTIONS)
                yield unread if form or name != STDIN else partial(unread, read=_loads_or_advise)
            continue
        # Photos in a folder of sidecars have names with the folder.
        base = Path() if not root and is_folder(name) else photo_base(name, root)
        with copy_of_pipe(name) if kind in _READ_TWICE else nullcontext("") as copy:
            read = READERS.get(kind) or load_plugin(plugins(GROUP)[kind], f"--from {kind}")
            for item in read(Source(name, base, stage, labels, columns, copy)):
                yield partial(lambda made: made, item)


def require_readable(
    inputs: Sequence[str], read: Callable[[Sequence[str]], Iterator[Unread]]
) -> None:
    """Raise what reading the first row of a file raises, for before outputs are opened."""
    for name in inputs:
        if not (is_pipe(name) or is_folder(name) or is_url(name)):
            next(read([name]), None)


def _loads_or_advise(line: bytes) -> JsonObject:
    if not line.lstrip().startswith(b"{"):
        raise ValueError("no object; another format on stdin needs --from")
    return loads(line)


def _renamed(fields: JsonObject, columns: Columns, *, is_table: bool) -> JsonObject:
    """Give fields their usual names where they lack ours, or the user named columns.

    Ours is `captions` for a list, which other projects call `caption` too.
    """
    present = {name for name in _OUR_FIELDS & fields.keys() if fields[name] is not None}
    is_list = isinstance(fields.get("caption"), list)
    has_ours = present and not is_list and ("image" in fields or not is_table)
    return with_usual_names(fields, columns) if columns.names or not has_ours else fields


def read_predictions(
    name: str, stage: str, form: str | None = None, read: Callable[[bytes], JsonObject] = loads,
    *, forms: Mapping[str, Form] = FOR_PREDICTIONS,
) -> Iterator[Item]:  # fmt: skip
    """A tagger's records in a file or, for `-`, on standard input; `read` parses a line.

    `form` None: a table for .txt, .csv and .tsv, else JSONL.
    """
    if form is None and Path(unpacked_name(name)).suffix in _TABLE_SUFFIXES:
        form = "csv" if tag_tables.is_headed(name) else "list"
    if form in ("csv", "list"):
        read_tags = tag_tables.read_table if form == "csv" else tag_tables.read_list
        yield from read_tags(Source(name, photo_base(name, None), stage))
        return
    for make in unread_inputs([name], None, stage):
        yield make(stamped=False, read=read, forms=forms)


def recognise(name: str) -> str:
    """Recognise the format of an input by its name, then its first bytes; stdin is `jsonl`."""
    if name == STDIN:
        return "jsonl"
    if is_folder(name):
        return "txt"
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
