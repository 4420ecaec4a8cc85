"""Output formats: tagged records as text, as tables, and as the JSON of other programs."""

import csv
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath

from ramctl.errors import UsageProblem
from ramctl.records.jsonl import dumps
from ramctl.records.record import (
    JsonObject,
    decode_name,
    encode_name,
    no_formula,
    shown_name,
)
from ramctl.records.shards import Shard
from ramctl.records.stream import Encoder
from ramctl.tagging.xmp import HIERARCHICAL, SUBJECT, Field, machine_items

FORMATS = ("jsonl", "text", "csv", "tsv", "kohya", "fiftyone", "label-studio", "exiftool-csv")
DOCUMENTS = ("fiftyone", "label-studio")  # one JSON document, whose end closes what its head opens
EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # that Lightroom reads
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class Format:
    """How records become bytes: what comes first, each record, what comes last."""

    header: bytes
    encode: Encoder
    footer: bytes = b""


def output_format(
    name: str,
    *,
    labels: Sequence[str] = (),
    prefix: str = "",
    flat_prefix: bool = False,
    caption: bool = False,
    spreadsheet: bool = False,
) -> Format:
    """The format of that name, one of FORMATS.

    `labels` are the names of all labels (fiftyone lists them), `prefix` that of machine tags,
    before plain words too with `flat_prefix` (exiftool-csv); `caption` asks for a column of
    captions (csv, tsv), `spreadsheet` for cells that are no formulas in one (csv, tsv).
    UsageProblem for `spreadsheet` with another format.
    """
    if spreadsheet and name not in ("csv", "tsv"):
        raise UsageProblem(f"--spreadsheet is for -f csv and -f tsv, not {name}")
    if encode := {"jsonl": dumps, "text": text_line, "kohya": _kohya_line}.get(name):
        return Format(b"", encode)
    if name == "fiftyone":
        head = dumps({"classes": list(labels)}).removesuffix(b"}\n")
        return Format(head + b',"labels":{\n', _separated(_fiftyone_entry), b"\n}}\n")
    if name == "label-studio":
        return Format(b"[\n", _separated(_label_studio_task), b"\n]\n")
    if name == "exiftool-csv":
        return _exiftool_table(prefix, flat_prefix)
    columns = {"image": _name, "tags": lambda record: join_tags(record["tags"]), "scores": _scores}
    if caption:
        columns["caption"] = lambda record: " ".join(record.get("generated_captions", []))
    return _table(columns, {"csv": ",", "tsv": "\t"}[name], no_formula if spreadsheet else str)


def require_lines(name: str, *, resume: bool, shard: Shard) -> None:
    """UsageProblem when a format that is one document is to be continued, or made in parts."""
    if name in DOCUMENTS and resume:
        raise UsageProblem(f"-f {name} is one document and cannot be continued; use jsonl")
    if name in DOCUMENTS and not shard.is_all:
        raise UsageProblem(f"-f {name} is one document and cannot be made in shards; use jsonl")


def naming_labels_once(encode: Encoder, names: list[str]) -> Encoder:
    """The encoder, with `label_names` added to the first record only, for `--dense`.

    The names, in the order of the scores, would be as long as these.
    """
    unwritten = [names]

    def encode_first(record: JsonObject) -> bytes:
        return encode(record | {"label_names": unwritten.pop()} if unwritten else record)

    return encode_first


def text_line(record: JsonObject) -> bytes:
    """Path, tab, tags joined by `, `; control characters as `\\n`, a tag's own comma as `\\,`."""
    name = _CONTROL.sub(_escape, _name(record))
    # A name that is not UTF-8 comes out as the bytes it is on disk.
    return os.fsencode(f"{name}\t{join_tags(record['tags'])}\n")


def join_tags(tags: Sequence[str]) -> str:
    """The tags joined by `, `; a comma inside a tag is `\\,`, as image trainers expect."""
    return ", ".join(tag.replace(",", "\\,") for tag in tags)


def _escape(match: re.Match[str]) -> str:
    named = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}
    return named.get(match[0]) or f"\\x{ord(match[0]):02x}"


def _name(record: JsonObject) -> str:
    return decode_name(record["image"])


def _scores(record: JsonObject) -> str:
    return ", ".join(f"{score:.4f}" for score in record["scores"].values())


def _table(
    columns: Mapping[str, Callable[[JsonObject], str]],
    delimiter: str,
    cell: Callable[[str], str] = str,
) -> Format:
    def row(cells: list[str]) -> bytes:
        line = io.StringIO()
        writer = csv.writer(line, delimiter=delimiter, lineterminator="\n")
        writer.writerow(map(cell, cells))
        return os.fsencode(line.getvalue())

    return Format(row(list(columns)), lambda record: row([c(record) for c in columns.values()]))


def _exiftool_table(prefix: str, flat_prefix: bool) -> Format:
    """What exiftool is to add to a photo's fields, the items of one joined by `;`."""

    def column(field: Field) -> Callable[[JsonObject], str]:
        def cell(record: JsonObject) -> str:
            tags = machine_items(record["tags"], prefix, flat_prefix=flat_prefix)[field]
            items = dict.fromkeys([*record["keywords"].get(field.name, ()), *tags])
            # Windows separates keywords by it, so that hardly any holds one.
            return ";".join(item.replace(";", ",") for item in items)

        return cell

    names = {"SourceFile": _name, **{field.name: column(field) for field in EXIFTOOL_FIELDS}}
    return _table(names, ",")


def _separated(entry: Encoder) -> Encoder:
    """Entries with a comma between them."""
    separators = iter([b""])

    def encode(record: JsonObject) -> bytes:
        return next(separators, b",\n") + entry(record)

    return encode


def _kohya_line(record: JsonObject) -> bytes:
    """A row of sd-scripts' metadata JSONL, with `image_size` where the record has it."""
    row = {"image_path": encode_name(_name(record)), "caption": join_tags(record["tags"])}
    size = {"image_size": record["image_size"]} if "image_size" in record else {}
    return dumps(row | size)


def _fiftyone_entry(record: JsonObject) -> bytes:
    """`"<stem>": [{"label", "confidence"}]` of FiftyOne's multilabel classification dataset."""
    # FiftyOne looks for `data/KEY.*` below the dataset's folder.
    path = PurePath(shown_name(_name(record)))
    key = path.stem if path.is_absolute() else str(path.with_suffix(""))
    targets = [{"label": tag, "confidence": score} for tag, score in record["scores"].items()]
    return dumps({key: targets})[1:-2]  # without the object's own braces and newline


def _label_studio_task(record: JsonObject) -> bytes:
    """A task with one prediction, scored by the mean: sorted by it, doubtful photos come first."""
    name, scores = shown_name(_name(record)), list(record["scores"].values())
    result = {
        "id": blake2b(name.encode(), digest_size=5).hexdigest(),
        "from_name": "tags",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": record["tags"]},
    }
    prediction = {
        "model_version": "ramctl",
        "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
        "result": [result],
    }
    return dumps({"data": {"image": name}, "predictions": [prediction]}).rstrip(b"\n")
