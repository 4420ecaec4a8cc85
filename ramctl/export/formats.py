"""Output formats of other programs, besides those of `ramctl tag`."""

from dataclasses import dataclass, field
from functools import partial

from ramctl.errors import UsageProblem
from ramctl.export.programs import Coco, FiftyOne, WebDataset, label_studio_task
from ramctl.export.text_style import TextStyle, caption_of
from ramctl.export.xmp import HIERARCHICAL, SUBJECT, Field, machine_items
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, encode_name
from ramctl.records.shards import Shard
from ramctl.tagging import formats
from ramctl.tagging.formats import Column, Format, name_of, table, table_row, tag_columns

FORMATS = (
    *formats.FORMATS, "tsv", "kohya", "exiftool-csv", "open-images", "coco", "fiftyone",
    "label-studio", "webdataset",
)  # fmt: skip
# One document, whose end closes what its head opens.
DOCUMENTS = ("coco", "fiftyone", "label-studio", "webdataset")
PLACED = ("coco", "fiftyone", "label-studio")  # that say where a program finds a photo
EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # that Lightroom reads
_OPEN_IMAGES = ("ImageID", "Source", "LabelName", "Confidence")


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """What the formats of other programs depend on besides the records."""

    prefix: str = ""  # of machine tags (exiftool-csv)
    flat_prefix: bool = False  # before plain words too
    text: TextStyle = field(default_factory=TextStyle)  # of kohya, and in webdataset
    photos_at: str | None = None  # where other programs find the photos (PLACED)


def output_format(name: str, options: FormatOptions) -> Format:
    """The format of that name, one of FORMATS.

    UsageProblem for an option of other formats.
    """
    if options.photos_at is not None and name not in PLACED:
        raise UsageProblem(f"--photos-at is for -f {', '.join(PLACED)}, not {name}")
    match name:
        case "csv" | "tsv":
            return table(tag_columns(caption=True), {"csv": ",", "tsv": "\t"}[name])
        case "kohya":
            return Format(b"", partial(_kohya_line, style=options.text))
        case "exiftool-csv":
            return table(_exiftool_columns(options.prefix, options.flat_prefix))
        case "open-images":
            return Format(table_row(_OPEN_IMAGES), _open_images_rows)
        case "coco":
            coco = Coco(options.photos_at)
            return Format(coco.header, coco.encode, coco.footer)
        case "fiftyone":
            fiftyone = FiftyOne(options.photos_at)
            return Format(fiftyone.header, fiftyone.encode, fiftyone.footer)
        case "label-studio":
            return Format(b"[\n", label_studio_task(options.photos_at), lambda: (b"\n]\n",))
        case "webdataset":
            samples = WebDataset(partial(_sample_text, style=options.text))
            return Format(samples.header, samples.encode, samples.footer)
    return formats.line_format(name, caption=True)


def require_lines(name: str | None, *, resume: bool, shard: Shard) -> None:
    """UsageProblem when a format that is one document is to be continued, or made in parts."""
    if name in DOCUMENTS and resume:
        raise UsageProblem(f"-f {name} is one document and cannot be continued; use jsonl")
    if name in DOCUMENTS and name != "webdataset" and not shard.is_all:
        raise UsageProblem(f"-f {name} is one document and cannot be made in shards; use jsonl")


def _open_images_rows(record: JsonObject) -> bytes:
    """Rows of Open Images' image labels; a tag without a score is somebody's, and certain."""
    name, scores = name_of(record), record.get("scores", {})
    rows = [
        (name, "machine", tag, f"{scores[tag]:.4f}")
        if tag in scores
        else (name, "verification", tag, "1")
        for tag in record["tags"]
    ]
    return b"".join(map(table_row, rows))


def _exiftool_columns(prefix: str, flat_prefix: bool) -> dict[str, Column]:
    """What exiftool is to add to a photo's fields, the items of one joined by `;`."""

    def column(field: Field) -> Column:
        def cell(record: JsonObject) -> str:
            tags = machine_items(record["tags"], prefix, flat_prefix=flat_prefix)[field]
            items = dict.fromkeys([*record["keywords"].get(field.name, ()), *tags])
            # Windows separates keywords by it, so that hardly any holds one.
            return ";".join(item.replace(";", ",") for item in items)

        return cell

    return {"SourceFile": name_of, **{field.name: column(field) for field in EXIFTOOL_FIELDS}}


def _kohya_line(record: JsonObject, style: TextStyle) -> bytes:
    """A row of sd-scripts' metadata JSONL, with `image_size` where the record has it."""
    row = {"image_path": encode_name(name_of(record)), "caption": style.line(record)}
    size = {"image_size": record["image_size"]} if "image_size" in record else {}
    return dumps(row | size)


def _sample_text(record: JsonObject, style: TextStyle) -> str:
    return style.line(record) if style.with_caption else caption_of(record) or style.line(record)
