"""Output formats: tagged records as text, as tables, and as the JSON of other programs."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ramctl.errors import UsageProblem
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, decode_name, encode_name, no_formula
from ramctl.records.shards import Shard
from ramctl.records.stream import Encoder
from ramctl.tagging.exports import Coco, FiftyOne, WebDataset, label_studio_task
from ramctl.tagging.text_style import TextStyle, caption_of
from ramctl.tagging.xmp import HIERARCHICAL, SUBJECT, Field, machine_items

FORMATS = (
    "jsonl", "table", "text", "csv", "tsv", "kohya", "exiftool-csv", "open-images", "coco",
    "fiftyone", "label-studio", "webdataset",
)  # fmt: skip
# One document, whose end closes what its head opens.
DOCUMENTS = ("coco", "fiftyone", "label-studio", "webdataset")
PLACED = ("coco", "fiftyone", "label-studio")  # that say where a program finds a photo
EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # that Lightroom reads
_OPEN_IMAGES = ("ImageID", "Source", "LabelName", "Confidence")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class Format:
    """How records become bytes: what comes first, each record, what comes last."""

    header: bytes
    encode: Encoder
    footer: Callable[[], Iterable[bytes]] = tuple


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What the formats of other programs depend on besides the records."""

    labels: Sequence[str] = ()  # the names of all labels: coco and fiftyone list them
    prefix: str = ""  # of machine tags (exiftool-csv)
    flat_prefix: bool = False  # before plain words too
    caption: bool = False  # a column of captions (csv, tsv)
    spreadsheet: bool = False  # no cell is a formula (csv, tsv)
    text: TextStyle = field(default_factory=TextStyle)  # of kohya, and in webdataset
    photos_at: str | None = None  # where other programs find the photos (PLACED)


def output_format(name: str, options: FormatOptions) -> Format:
    """The format of that name, one of FORMATS.

    UsageProblem for an option of other formats.
    """
    if options.spreadsheet and name not in ("csv", "tsv"):
        raise UsageProblem(f"--spreadsheet is for -f csv and -f tsv, not {name}")
    if options.photos_at is not None and name not in PLACED:
        raise UsageProblem(f"--photos-at is for -f {', '.join(PLACED)}, not {name}")
    lines: dict[str, Encoder] = {"jsonl": dumps, "table": table_lines, "text": text_line}
    lines["kohya"] = partial(_kohya_line, style=options.text)
    if encode := lines.get(name):
        return Format(b"", encode)
    if name == "fiftyone":
        fiftyone = FiftyOne(options.labels, options.photos_at)
        return Format(fiftyone.header, fiftyone.encode, fiftyone.footer)
    if name == "coco":
        coco = Coco(options.labels, options.photos_at)
        return Format(coco.header, coco.encode, coco.footer)
    if name == "webdataset":
        samples = WebDataset(partial(_sample_text, style=options.text))
        return Format(samples.header, samples.encode, samples.footer)
    if name == "label-studio":
        return Format(b"[\n", label_studio_task(options.photos_at), lambda: (b"\n]\n",))
    if name == "open-images":
        return Format(_row(_OPEN_IMAGES), _open_images_rows)
    if name == "exiftool-csv":
        return _exiftool_table(options.prefix, options.flat_prefix)
    columns = {"image": _name, "tags": lambda record: join_tags(record["tags"]), "scores": _scores}
    if options.caption:
        columns["caption"] = lambda record: " ".join(record.get("generated_captions", []))
    cell = no_formula if options.spreadsheet else str
    return _table(columns, {"csv": ",", "tsv": "\t"}[name], cell)


def require_lines(name: str, *, resume: bool, shard: Shard) -> None:
    """UsageProblem when a format that is one document is to be continued, or made in parts."""
    if name in DOCUMENTS and resume:
        raise UsageProblem(f"-f {name} is one document and cannot be continued; use jsonl")
    if name in DOCUMENTS and name != "webdataset" and not shard.is_all:
        raise UsageProblem(f"-f {name} is one document and cannot be made in shards; use jsonl")


def table_lines(record: JsonObject) -> bytes:
    """For people: the path, a caption, and under it the tags, each after its score."""
    scores = record.get("scores", {})
    rows = [_name(record)]
    rows += [f"  {caption}" for caption in record.get("generated_captions", [])]
    for tag in record["tags"]:
        score = f"{scores[tag]:.2f}" if tag in scores else ""
        rows.append(f"  {score:4}  {tag}")
    rows += [] if record["tags"] else ["  no tags"]
    return os.fsencode("".join(_CONTROL.sub(_escape, row) + "\n" for row in rows))


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
    return ", ".join(f"{score:.4f}" for score in record.get("scores", {}).values())


def _table(
    columns: Mapping[str, Callable[[JsonObject], str]],
    delimiter: str,
    cell: Callable[[str], str] = str,
) -> Format:
    def row(cells: Iterable[str]) -> bytes:
        return _row(map(cell, cells), delimiter)

    return Format(row(columns), lambda record: row(c(record) for c in columns.values()))


def _row(cells: Iterable[str], delimiter: str = ",") -> bytes:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return os.fsencode(line.getvalue())


def _open_images_rows(record: JsonObject) -> bytes:
    """Rows of Open Images' image labels; a tag without a score is somebody's, and certain."""
    name, scores = _name(record), record.get("scores", {})
    rows = [
        (name, "machine", tag, f"{scores[tag]:.4f}")
        if tag in scores
        else (name, "verification", tag, "1")
        for tag in record["tags"]
    ]
    return b"".join(map(_row, rows))


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


def _kohya_line(record: JsonObject, style: TextStyle) -> bytes:
    """A row of sd-scripts' metadata JSONL, with `image_size` where the record has it."""
    row = {"image_path": encode_name(_name(record)), "caption": style.line(record)}
    size = {"image_size": record["image_size"]} if "image_size" in record else {}
    return dumps(row | size)


def _sample_text(record: JsonObject, style: TextStyle) -> str:
    return style.line(record) if style.with_caption else caption_of(record) or style.line(record)
