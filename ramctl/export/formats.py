"""Output formats of annotation and training programs, besides those of `ramctl tag`."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ramctl.errors import UsageProblem
from ramctl.export import PLACED
from ramctl.export.sidecars import TextStyle, add_photo_keywords, caption_of
from ramctl.export.xmp import HIERARCHICAL, SUBJECT, Field, machine_items
from ramctl.pages.gallery import Adder
from ramctl.photos.archives import split_member
from ramctl.photos.decoding import photo_size, read_photo
from ramctl.records.files import write_atomic
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record, decode_name, image_name, shown_name
from ramctl.records.shards import Shard
from ramctl.records.stream import Encoder, separated
from ramctl.tagging import formats
from ramctl.tagging.formats import Column, Format, name_of, table, table_row, tag_columns

# One document, whose end closes what its head opens.
DOCUMENTS = ("coco", "fiftyone", "label-studio", "webdataset")
EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # that Lightroom reads
_OPEN_IMAGES = ("ImageID", "Source", "LabelName", "Confidence")
_BLOCK = 512  # bytes of a tar
_CHUNK = 1 << 20


def output_format(name: str, prefix: str, text: TextStyle, photos_at: str | None) -> Format:
    """The format of that name, one of FORMATS; UsageProblem for an option of other formats.

    `prefix` is that of machine tags (exiftool-csv), `text` the style of texts in webdataset, and
    `photos_at` where other programs find the photos (PLACED).
    """
    if photos_at is not None and name not in PLACED:
        raise UsageProblem(f"--photos-at is for -f {', '.join(PLACED)}, not {name}")
    match name:
        case "tsv":
            return table(tag_columns(caption=True), "\t")
        case "exiftool-csv":
            return table(_exiftool_columns(prefix))
        case "open-images":
            return Format(table_row(_OPEN_IMAGES), _open_images_rows)
        case "coco":
            return coco(photos_at)
        case "fiftyone":
            return fiftyone(photos_at)
        case "label-studio":
            return Format(b"[\n", label_studio_task(photos_at), lambda: (b"\n]\n",))
        case "webdataset":
            return webdataset(text)
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
    scored = {tag: ("machine", tag, f"{score:.4f}") for tag, score in scores.items()}
    rows = ((name, *scored.get(tag, ("verification", tag, "1"))) for tag in record["tags"])
    return b"".join(map(table_row, rows))


def _exiftool_columns(prefix: str) -> dict[str, Column]:
    """What exiftool is to add to a photo's fields, the items of one joined by `;`."""

    def cell(field: Field, record: JsonObject) -> str:
        tags = machine_items(record["tags"], prefix)[field]
        items = dict.fromkeys([*record["keywords"].get(field.name, ()), *tags])
        # Windows separates keywords by it, so that hardly any holds one.
        return ";".join(item.replace(";", ",") for item in items)

    return {"SourceFile": name_of, **{of.name: partial(cell, of) for of in EXIFTOOL_FIELDS}}


def place_of(record: JsonObject, photos_at: str | None) -> str:
    """The photo's name below a folder or URL where another program finds it, else as it is."""
    name = shown_name(decode_name(record["image"]))
    if photos_at is None:
        return name
    if "://" in photos_at or "?" in photos_at:
        name = quote(name)
    return f"{photos_at}{'' if photos_at.endswith(('/', '=')) else '/'}{name}"


def fiftyone(photos_at: str | None) -> Format:
    """FiftyOne's multilabel classification dataset: `{"labels": {path: targets}, "classes"}`.

    Its keys are absolute paths, which FiftyOne takes as they are: shorter ones are looked for in
    `data/` and without their extension.
    Source: FiftyOneImageClassificationDatasetImporter in fiftyone 1.22.
    """
    classes: dict[str, None] = {}

    def entry(record: JsonObject) -> bytes:
        key = record["path"] if photos_at is None else place_of(record, photos_at)
        scores, targets = record.get("scores", {}), []
        for tag in record["tags"]:
            classes[tag] = None
            targets.append({"label": tag} | ({"confidence": scores[tag]} if tag in scores else {}))
        return dumps({key: targets})[1:-2]  # without the object's own braces and newline

    def footer() -> Iterator[bytes]:
        yield b"\n}," + dumps({"classes": [*classes]})[1:]

    return Format(b'{"labels":{\n', separated(entry), footer)


def coco(photos_at: str | None) -> Format:
    """COCO's instances format; an annotation has a `bbox` only where the record has `boxes`.

    Annotations wait in a temporary file for the end of the images.
    """
    categories: dict[str, int] = {}  # numbers from 1 on, as they come
    n_images = n_annotations = 0
    annotations = TemporaryFile()  # noqa: SIM115 (ends with the format)
    annotation_line = separated(dumps)

    def image(record: JsonObject) -> bytes:
        nonlocal n_images, n_annotations
        n_images += 1
        width, height = record["image_size"]
        for tag in record["tags"]:
            n_annotations += 1
            annotation: JsonObject = {
                "id": n_annotations,
                "image_id": n_images,
                "category_id": categories.setdefault(tag, len(categories) + 1),
            }
            if tag in record.get("scores", {}):
                annotation["score"] = record["scores"][tag]
            if tag in record.get("boxes", {}):
                x0, y0, x1, y1 = record["boxes"][tag][0]
                box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
                annotation["bbox"] = [round(side, 1) for side in box]
                annotation |= {"area": round(box[2] * box[3], 1), "iscrowd": 0}
            annotations.write(annotation_line(annotation))
        name = place_of(record, photos_at)
        row = {"id": n_images, "file_name": name, "width": width, "height": height}
        return dumps(row).rstrip(b"\n")

    def footer() -> Iterator[bytes]:
        yield b'\n],"annotations":[\n'
        annotations.seek(0)
        while chunk := annotations.read(_CHUNK):
            yield chunk
        rows = [{"id": n, "name": name, "supercategory": ""} for name, n in categories.items()]
        yield b"]," + dumps({"categories": rows})[1:]

    return Format(b'{"images":[\n', separated(image), footer)


def label_studio_task(photos_at: str | None) -> Encoder:
    """Tasks with one prediction, scored by the mean: sorted by it, doubtful photos come first."""

    def task(record: JsonObject) -> bytes:
        place, scores = place_of(record, photos_at), [*record.get("scores", {}).values()]
        result = {
            "id": blake2b(place.encode(), digest_size=5).hexdigest(),
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
        return dumps({"data": {"image": place}, "predictions": [prediction]}).rstrip(b"\n")

    return separated(task)


@contextmanager
def open_label_config(path: Path) -> Iterator[Adder]:
    """Write Label Studio's labelling configuration for the tags at the end of the block."""
    names: dict[str, None] = {}
    yield lambda _, fields: names.update(dict.fromkeys(fields["tags"]))
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        '  <Filter name="filter" toName="tags" minlength="0"/>\n'
        '  <Choices name="tags" toName="image" choice="multiple" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )
    write_atomic(path, config.encode())


def webdataset(style: TextStyle) -> Format:
    """A tar of samples: the photo as it is, its text in `.txt`, its record in `.json`."""
    numbers = count()

    def sample(record: JsonObject) -> bytes:
        name = decode_name(record["image"])
        inside = split_member(name)
        path = PurePath(shown_name(inside[1] if inside else name))
        stem = "".join(c if c.isalnum() and c.isascii() else "_" for c in path.stem)
        key = f"{next(numbers):06d}_{stem}"
        text = "" if style.with_caption else caption_of(record)
        fields = {field: value for field, value in record.items() if field != "content"}
        members = {
            path.suffix.lower().lstrip(".") or "jpg": record["content"],
            "txt": (text or style.line(record)).encode(),
            "json": dumps(fields).rstrip(b"\n"),
        }
        parts: list[bytes] = []
        for end, data in members.items():
            member = tarfile.TarInfo(f"{key}.{end}")
            member.size = len(data)
            parts += [member.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % _BLOCK)]
        return b"".join(parts)

    return Format(b"", sample, lambda: (bytes(2 * _BLOCK),))  # two empty blocks end a tar


def add_photo_size(record: Record, fields: JsonObject) -> None:
    """Add the photo's own `image_size`, [width, height]."""
    fields["image_size"] = list(photo_size(image_name(fields), record.base))


def add_photo_path(record: Record, fields: JsonObject) -> None:
    """Add the photo's absolute `path`."""
    fields["path"] = shown_name(str((record.base / image_name(fields)).absolute()))


def add_photo_content(record: Record, fields: JsonObject) -> None:
    """Add the bytes of the photo's file, `content`."""
    fields["content"] = read_photo(image_name(fields), record.base)


#: What is added to a record before it is encoded, by format, and is not part of it otherwise.
ADDED: dict[str, Adder] = {
    "coco": add_photo_size,
    "fiftyone": add_photo_path,
    "webdataset": add_photo_content,
    "exiftool-csv": add_photo_keywords,
}
