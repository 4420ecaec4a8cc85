"""Formats of annotation and training programs; `ramctl tag` has the others."""

import tarfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path, PurePath

from ramctl.export.sidecar_merge import HIERARCHICAL, SUBJECT, Field, machine_items
from ramctl.export.sidecars import SidecarOptions, missing_keywords
from ramctl.export.text_sidecars import TextOptions, caption_of
from ramctl.photos.archives import split_member
from ramctl.photos.decoding import photo_size, read_photo
from ramctl.records.fields import scored_boxes
from ramctl.records.files import scratch_file
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, decode_name, object_in, shown_name, tag_language
from ramctl.records.stream import Format, separated
from ramctl.tagging import output_formats as formats
from ramctl.tagging.output_formats import Column, name_of, table

# Formats whose file is one document with an end: no lines can be appended to it.
DOCUMENTS = ("json", "coco", "webdataset", "parquet")
EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # those that Lightroom reads
_BLOCK = 512  # bytes of a block of a tar
_MAX_NAME = 100  # bytes of a member's name in a tar
_MAX_EXTENSION = 16  # bytes of a photo's extension


def output_format(name: str, sidecars: SidecarOptions, *, long: bool, bom: bool) -> Format:
    """The format of this name, one of FORMATS.

    exiftool-csv and webdataset have tags as `sidecars` have them. csv has a row for each tag if it
    is `long`; `bom` begins it with a byte order mark.
    """
    match name:
        case "csv":
            form = formats.line_format("csv-long" if long else name, caption=True, found=True)
            return form._replace(header=BOM_UTF8 * bom + form.header)
        case "json":
            encode = separated(lambda record: dumps(record).rstrip(b"\n"))
            return Format(b"[\n", encode, lambda: (b"\n]\n",))
        case "exiftool-csv":
            return table(_exiftool_columns(sidecars.parent))
        case "coco":
            return coco()
        case "webdataset":
            return webdataset(sidecars.texts)
    return formats.line_format(name, caption=True)


def _exiftool_columns(parent: Callable[[str], str]) -> dict[str, Column]:
    """The columns of items that exiftool adds to a photo's fields, joined by `;`."""

    def cell(field: Field, record: JsonObject) -> str:
        tags = machine_items(record["tags"], parent(tag_language(record)))[field]
        items = dict.fromkeys([*record["keywords"].get(field.name, ()), *tags])
        # Hardly any keyword holds a `;`: Windows separates keywords by it.
        return ";".join(item.replace(";", ",") for item in items)

    columns = {field.name: partial(cell, field) for field in EXIFTOOL_FIELDS}
    return {"SourceFile": name_of, **columns}


def coco() -> Format:
    """COCO's instances format; an annotation has a `bbox` only where the record has `boxes`.

    Annotations wait in a temporary file for the end of the images.
    """
    categories: dict[str, int] = {}  # numbers from 1, in order of appearance
    n_images = n_annotations = 0
    annotations = scratch_file()  # deleted with the format
    annotation_line = separated(dumps)

    def image(record: JsonObject) -> bytes:
        nonlocal n_images, n_annotations
        n_images += 1
        (width, height), boxes = record["image_size"], scored_boxes(record)
        for tag in record["tags"]:
            n_annotations += 1
            annotation: JsonObject = {
                "id": n_annotations,
                "image_id": n_images,
                "category_id": categories.setdefault(tag, len(categories) + 1),
            }
            if tag in object_in(record, "scores"):
                annotation["score"] = record["scores"][tag]
            if tag in boxes:
                x0, y0, x1, y1 = boxes[tag][0]
                box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
                annotation["bbox"] = [round(side, 1) for side in box]
                annotation |= {"area": round(box[2] * box[3], 1), "iscrowd": 0}
            annotations.write(annotation_line(annotation))
        name = shown_name(decode_name(record["image"]))
        row = {"id": n_images, "file_name": name, "width": width, "height": height}
        return dumps(row).rstrip(b"\n")

    def footer() -> Iterator[bytes]:
        yield b'\n],"annotations":[\n'
        annotations.seek(0)
        yield from annotations
        rows = [{"id": n, "name": name, "supercategory": ""} for name, n in categories.items()]
        yield b"]," + dumps({"categories": rows})[1:]

    return Format(b'{"images":[\n', separated(image), footer)


def webdataset(style: TextOptions) -> Format:
    """A tar of samples: the unchanged photo, its text in `.txt`, its record in `.json`."""
    numbers = count()

    def sample(record: JsonObject) -> bytes:
        name = decode_name(record["image"])
        inside = split_member(name)
        path = PurePath(shown_name(inside[1] if inside else name))
        stem = "".join(c if c.isalnum() and c.isascii() else "_" for c in path.stem)
        end = path.suffix.lower().lstrip(".")
        end = end if 0 < len(end.encode()) <= _MAX_EXTENSION else "jpg"
        key = f"{next(numbers):06d}_{stem}"[: _MAX_NAME - max(len(end.encode()), len("json")) - 1]
        text = "" if style.with_caption else caption_of(record)
        fields = {field: value for field, value in record.items() if field != "content"}
        members = {
            end: record["content"],
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


#: A field that a format adds to a record, and the function that reads it from the photo.
ADDED: dict[str, tuple[str, Callable[[str, Path], object]]] = {
    "coco": ("image_size", photo_size),
    "webdataset": ("content", read_photo),
    "exiftool-csv": ("keywords", missing_keywords),
}
