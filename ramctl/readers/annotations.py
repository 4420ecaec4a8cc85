"""What is true of benchmarks' photos, in the files that their owners publish."""

import csv
import io
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.readers.archives import read_samples
from ramctl.readers.json_lists import items_of
from ramctl.readers.source import Source
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject, Reject


def read_ids(source: Source, classes: Collection[str]) -> Iterator[Item]:
    """One record per line `file,id id` of the RAM authors; its tags are the ids, from 0 on.

    A photo without ids is one on which no class is true.
    """
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            image, _, ids = line.decode("utf-8", "replace").strip().partition(",")
            wrong = next((id for id in ids.split() if id not in classes), None)
            if wrong is not None:
                message = f"{wrong[:20]!r} is none of the ids 0 to {len(classes) - 1}"
                yield source.reject(number, "bad_field", message, line)
            elif image:
                yield source.record({"image": image, "tags": ids.split()}, number)


def read_instances(source: Source) -> Iterator[Item]:
    """One record per photo of COCO's instances JSON: the names of its objects' categories."""
    try:
        names = {row["id"]: row["name"] for row in items_of(source, "categories")}
        found: dict[Any, dict[str, None]] = {}
        for row in items_of(source, "annotations"):
            found.setdefault(row["image_id"], {})[names[row["category_id"]]] = None
        for number, row in enumerate(items_of(source, "images"), 1):
            tags = list(found.get(row["id"], ()))
            yield source.record({"image": row["file_name"], "tags": tags}, number)
    except (KeyError, TypeError) as error:
        raise RunProblem(f"{source.name}: not COCO's instances: {error!r}") from error


def read_voc(source: Source, names: list[str]) -> Iterator[Item]:
    """One record per named XML file of PASCAL VOC's folder Annotations.

    An object that is only seen with difficulty counts neither way, as in VOC's own evaluation.
    """
    for number, name in enumerate(names, 1):
        path = Path(source.name) / f"{name}.xml"
        try:
            root = ET.parse(path).getroot()
        except (OSError, ET.ParseError, ValueError, LookupError) as error:
            reason = getattr(error, "strerror", None) or error
            yield source.reject(number, "bad_field", f"{path.name}: {reason}", "")
            continue
        is_clear: dict[str, bool] = {}
        for thing in root.iter("object"):
            tag = thing.findtext("name") or ""
            is_clear[tag] = is_clear.get(tag, False) or thing.findtext("difficult", "0") != "1"
        yield source.record(
            {
                "image": root.findtext("filename") or f"{name}.jpg",
                "tags": [tag for tag, clear in is_clear.items() if clear],
                "uncertain": [tag for tag, clear in is_clear.items() if not clear],
            },
            number,
        )


def read_masks(source: Source, names: list[str], least: float) -> Iterator[Item]:
    """One record per named mask of the scene parsing benchmark: the ids of its pixels' classes.

    A class on less than the share `least` of the photo counts neither way; pixels of 0 are none's.
    """
    for number, name in enumerate(names, 1):
        path = Path(source.name) / name
        try:
            with Image.open(path) as mask:
                if mask.mode not in ("L", "P"):
                    raise ValueError(f"a mask has one byte a pixel (got {mask.mode})")
                ids, pixels = np.unique(np.asarray(mask), return_counts=True)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or error
            yield source.reject(number, "bad_field", f"{name}: {reason}", "")
            continue
        shares = dict(zip(map(str, ids.tolist()), (pixels / pixels.sum()).tolist(), strict=True))
        shares.pop("0", None)
        record = {
            "image": f"{path.stem}.jpg",
            "tags": [tag for tag, share in shares.items() if share >= least],
            "uncertain": [tag for tag, share in shares.items() if share < least],
        }
        yield source.record(record, number)


def read_object_lists(source: Source, names: list[str]) -> Iterator[Item]:
    """One record per named `*_atr.txt` of ADE20K: the class names of its objects, not of parts.

    A line is `instance # level # occluded # class name # raw name # "attributes"`; parts have
    levels above 0. A class has several names, joined by commas.
    """
    for number, name in enumerate(names, 1):
        path = Path(source.name) / name
        try:
            lines = path.read_text("utf-8", errors="replace").splitlines()
            rows = [[cell.strip() for cell in line.split("#")] for line in lines if line.strip()]
            tags = dict.fromkeys(row[3] for row in rows if int(row[1]) == 0)
        except (OSError, ValueError, IndexError) as error:
            reason = getattr(error, "strerror", None) or f"not a list of objects: {error}"
            yield source.reject(number, "bad_field", f"{name}: {reason}", "")
            continue
        image = f"{path.name.removesuffix('_atr.txt')}.jpg"
        yield source.record({"image": image, "tags": list(tags)}, number)


def read_label_members(source: Source, n_classes: int) -> Iterator[Item]:
    """One record per sample of a webdataset tar with labels; its tags are the ids from 0 on.

    `.npy` holds a 1 for each class that is true and 0 for the others, `.cls` the id of one class.
    """
    for number, sample in enumerate(read_samples(source, ("npy", "cls")), 1):
        if isinstance(sample, Reject):
            yield sample
            continue
        try:
            ids = _label_ids(sample, n_classes)
        except (KeyError, ValueError, EOFError) as error:
            message = f"no labels of {n_classes} classes: {error}"
            yield source.reject(number, "bad_field", message, sample.get("image", ""))
            continue
        yield source.record({"image": sample["image"], "tags": ids}, number)


def _label_ids(sample: JsonObject, n_classes: int) -> list[str]:
    if "image" not in sample:
        raise ValueError("a sample without a photo")
    if "npy" not in sample:
        ids = [int(sample["cls"])]
    else:
        given = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
        if given.shape != (n_classes,) or not np.isin(given, (0, 1)).all():
            raise ValueError(f"an array {given.shape} of other numbers than 0 and 1, or other size")
        ids = np.flatnonzero(given).tolist()
    if not all(0 <= id < n_classes for id in ids):
        raise ValueError(f"no class has the id {ids[0]}")
    return [str(id) for id in ids]


def read_open_images(
    source: Source, ancestors: Mapping[str, set[str]], classes: set[str]
) -> Iterator[Item]:
    """One record per photo of Open Images' labels that people verified; its tags are their ids.

    What is true of a class is true of its `ancestors`, and what is not true of an ancestor is not
    true of the class. All that nobody looked for is unknown.
    """
    descendants: dict[str, set[str]] = {}
    for label, above in ancestors.items():
        for one in above:
            descendants.setdefault(one, set()).add(label)
    verdicts: dict[str, tuple[set[str], set[str]]] = {}
    with open_input(source.name) as stream:
        rows = csv.DictReader(io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline=""))
        try:
            for row in rows:
                no, yes = verdicts.setdefault(row["ImageID"], (set(), set()))
                label = row["LabelName"]
                if float(row["Confidence"]) > 0:
                    yes |= {label, *ancestors.get(label, ())}
                else:
                    no |= {label, *descendants.get(label, ())}
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunProblem(f"{source.name}:{rows.line_num}: not a label: {error!r}") from error
    for number, (image, (no, yes)) in enumerate(verdicts.items(), 1):
        tags, negatives = sorted(yes & classes), sorted((no - yes) & classes)
        yield source.record({"image": image, "tags": tags, "negatives": negatives}, number)


def read_hierarchy(path: Path) -> dict[str, set[str]]:
    """The ids of all classes above each, by Open Images' JSON tree: kinds of it, not its parts."""
    above: dict[str, set[str]] = {}

    def visit(node: JsonObject, parents: set[str]) -> None:
        label = node["LabelName"]
        above.setdefault(label, set()).update(parents)
        for child in node.get("Subcategory", ()):
            visit(child, parents | {label})

    try:
        with open_input(str(path)) as stream:
            visit(orjson.loads(stream.read()), set())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunProblem(f"{path}: not a hierarchy of labels: {error!r}") from error
    return above
