"""Formats of annotation programs and of exiftool; `ramctl tag` has the others."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from ramctl.metadata.sidecar_merge import HIERARCHICAL, SUBJECT, Field, machine_items
from ramctl.metadata.sidecars import missing_keywords
from ramctl.photos.decoding import photo_size
from ramctl.records import output_formats as formats
from ramctl.records.jsonl import dumps
from ramctl.records.output_formats import Column, name_of, table
from ramctl.records.record import JsonObject, numbers_in, scored_boxes, tag_language
from ramctl.records.stream import Format, separated

EXIFTOOL_FIELDS = (SUBJECT, HIERARCHICAL)  # those that Lightroom reads


def output_format(name: str, parent: Callable[[str], str]) -> Format:
    """One of EXPORT_FORMATS; `parent` is that of the tags of a language."""
    match name:
        case "exiftool-csv":
            return table(_exiftool_columns(parent))
        case "coco":
            return coco()
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
    annotations = TemporaryFile()  # noqa: SIM115 (deleted with the format)
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
            if tag in numbers_in(record, "scores"):
                annotation["score"] = record["scores"][tag]
            if tag in boxes:
                x0, y0, x1, y1 = boxes[tag][0]
                box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
                annotation["bbox"] = [round(side, 1) for side in box]
                annotation |= {"area": round(box[2] * box[3], 1), "iscrowd": 0}
            annotations.write(annotation_line(annotation))
        name = record["image"]
        row = {"id": n_images, "file_name": name, "width": width, "height": height}
        return dumps(row).rstrip(b"\n")

    def footer() -> Iterator[bytes]:
        yield b'\n],"annotations":[\n'
        annotations.seek(0)
        yield from annotations
        rows = [{"id": n, "name": name, "supercategory": ""} for name, n in categories.items()]
        yield b"]," + dumps({"categories": rows})[1:]

    return Format(b'{"images":[\n', separated(image), footer)


#: A field that a format adds to a record, and the function that reads it from the photo.
ADDED: dict[str, tuple[str, Callable[[str, Path], object]]] = {
    "coco": ("image_size", photo_size),
    "exiftool-csv": ("keywords", missing_keywords),
}
