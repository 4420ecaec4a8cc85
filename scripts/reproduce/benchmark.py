#!/usr/bin/env python3
"""The truth of a published benchmark's photos, from the files as their owners publish them.

    benchmark.py coco-80 datasets --classes classes.jsonl > truth.jsonl
    ramctl eval predictions.jsonl --truth truth.jsonl --classes classes.jsonl

Nothing is downloaded; photos are not needed. Where two classes have one name, the second is
`NAME (2)`, and a line of --map says so. README.md lists the files of each benchmark.
"""

import argparse
import csv
import gzip
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
import orjson
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.records.labels import Label, Labels, normalise

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Classes of different names, and records of what is true of each photo.

    `mapping` has the tags that stand for a class whose name is not its own.
    """

    classes: Labels
    rows: Iterator[Row]
    mapping: dict[str, list[str]]


class Data:
    """A folder of published files; what covers less than `min_area` of a photo is uncertain."""

    def __init__(self, folder: Path, min_area: float = 0.0) -> None:
        self.folder, self.min_area = folder, min_area

    def find(self, *names: str) -> Path:
        """The first of some files (or `.gz`), at its published place or in the folder itself.

        RunProblem naming what is missing.
        """
        for name in names:
            for path in (self.folder / name, self.folder / Path(name).name):
                for packed in (path, path.with_name(f"{path.name}.gz")):
                    if packed.exists():
                        return packed
        raise RunProblem(f"{self.folder}: no {' or '.join(names)} in it")


def text_of(path: Path) -> str:
    """The text of a file, packed or not."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode(
        "utf-8-sig", "replace"
    )


def lines_of(path: Path) -> list[str]:
    """The lines of a file with something in them."""
    return [line for line in text_of(path).splitlines() if line.strip()]


def with_classes(labels: Sequence[Label], rows: Callable[[list[str]], Iterator[Row]]) -> Benchmark:
    """The benchmark of these classes; `rows` gets their names, which differ, in order."""
    seen: Counter[str] = Counter()
    names, mapping = [], {}
    for label in labels:
        seen[label.tag] += 1
        name = label.tag
        if seen[label.tag] > 1:
            name = f"{label.tag} ({seen[label.tag]})"
            mapping[name] = [label.tag]
        names.append(name)
    system = Labels(
        Label(name, synonyms=label.synonyms) for name, label in zip(names, labels, strict=True)
    )
    return Benchmark(system, rows(names), mapping)


def named(data: Data, name: str) -> Benchmark:
    """The RAM authors' lines `id,tag,tag`."""
    path = data.find(f"{name}/{name}_ram_annots.txt")
    listed = lines_of(data.find(f"{name}/{name}_ram_taglist.txt"))
    rows = (
        {"image": image, "tags": [tag for tag in tags if tag]}
        for image, *tags in (line.split(",") for line in lines_of(path))
    )
    return Benchmark(Labels.from_tags(tag.strip() for tag in listed), rows, {})


def numbered(data: Data, name: str) -> Benchmark:
    """The RAM authors' lines `file,id id`; a photo without ids is one without any class."""
    path = data.find(f"{name}/{name}_annots.txt")
    listed = lines_of(data.find(f"{name}/{name}_taglist.txt"))

    def rows(classes: list[str]) -> Iterator[Row]:
        for line in lines_of(path):
            image, _, ids = line.strip().partition(",")
            yield {"image": image, "tags": [classes[int(id)] for id in ids.split()]}

    return with_classes([Label(tag.strip()) for tag in listed], rows)


def coco(data: Data, kind: str) -> Benchmark:
    """Categories of each photo's objects, or of its segments."""
    document = orjson.loads(text_of(data.find(f"annotations/{kind}_val2017.json")))
    names = {row["id"]: row["name"] for row in document["categories"]}

    def rows() -> Iterator[Row]:
        tags: dict[Any, dict[str, None]] = {}
        for row in document["annotations"]:
            for item in row.get("segments_info", [row]):
                tags.setdefault(row["image_id"], {})[names[item["category_id"]]] = None
        for row in document["images"]:
            yield {"image": row["file_name"], "tags": list(tags.get(row["id"], ()))}

    return Benchmark(Labels.from_tags(names.values()), rows(), {})


ADE = "ADEChallengeData2016"


def ade(data: Data, *, clean: bool) -> Benchmark:
    """ADE20K's 150 classes: by the scene parsing benchmark's masks, else by lists of objects.

    With `clean` the classes that the RAM authors kept; a clean name stands for all classes that
    have it among their names.
    """
    listed = lines_of(data.find(f"{ADE}/objectInfo150.txt", "object150_info.csv"))
    cells = [re.split(r"\t|,(?! )", line, maxsplit=5) for line in listed[1:]]
    names = {row[0].strip(): re.split(r"[;,] *", row[-1].strip()) for row in cells}
    labels = [Label(main, synonyms=tuple(others)) for main, *others in names.values()]
    tag_of = {id: label.tag for id, label in zip(names, labels, strict=True)}
    if clean:
        path = data.find("ade20k_clean_labels_issue84.txt")
        kept = {normalise(name.strip()): name.strip() for name in lines_of(path)}
        words = {id: [kept[key] for key in map(normalise, own) if key in kept]
                 for id, own in names.items()}  # fmt: skip
        tag_of = {id: clean_names[0] for id, clean_names in words.items() if clean_names}
        labels = [Label(name) for name in kept.values()]
    places = (data.folder / ADE, data.folder)
    masks = [
        mask for place in places for mask in place.glob("annotations/validation/ADE_val_*.png")
    ]
    lists = sorted(data.folder.rglob("ADE_val_*_atr.txt"))
    if masks:
        rows = masked(sorted(masks), tag_of, data.min_area)
    elif lists:
        rows = object_lists(lists, {", ".join(names[id]): tag for id, tag in tag_of.items()})
    else:
        raise RunProblem(f"{data.folder}: no {ADE}/annotations/validation/ADE_val_*.png in it")
    return Benchmark(Labels(labels), rows, {})


def masked(paths: Sequence[Path], tag_of: dict[str, str], least: float) -> Iterator[Row]:
    """The classes of the pixels of each mask; pixels of 0 are none's."""
    for path in paths:
        with Image.open(path) as mask:
            if mask.mode not in ("L", "P"):
                raise RunProblem(f"{path}: a mask has one byte a pixel (got {mask.mode})")
            ids, pixels = np.unique(np.asarray(mask), return_counts=True)
        areas = dict(zip(map(str, ids.tolist()), (pixels / pixels.sum()).tolist(), strict=True))
        tags = {tag_of[id]: None for id, area in areas.items() if id in tag_of and area >= least}
        rest = {tag_of[id]: None for id, area in areas.items() if id in tag_of and area < least}
        yield {"image": f"{path.stem}.jpg", "tags": list(tags), "uncertain": list(rest)}


def object_lists(paths: Sequence[Path], tag_of: dict[str, str]) -> Iterator[Row]:
    """The objects, not their parts, in each `*_atr.txt` of the full data set.

    A line is `instance # level # occluded # class name # raw name # "attributes"`; parts have
    levels above 0. A class has several names, joined by commas.
    """
    for path in paths:
        cells = [[cell.strip() for cell in line.split("#")] for line in lines_of(path)]
        try:
            tags = {tag_of[row[3]]: None for row in cells if int(row[1]) == 0 and row[3] in tag_of}
        except (ValueError, IndexError) as error:
            raise RunProblem(f"{path}: not a list of objects: {error}") from error
        yield {"image": f"{path.name.removesuffix('_atr.txt')}.jpg", "tags": list(tags)}


BENCHMARKS: dict[str, Callable[[Data], Benchmark]] = {
    "openimages-common-214": lambda data: named(data, "openimages_common_214"),
    "openimages-rare-200": lambda data: named(data, "openimages_rare_200"),
    "hico-600": lambda data: numbered(data, "hico_600"),
    "imagenet-multi-1000": lambda data: numbered(data, "imagenet_multi_1000"),
    "coco-80": lambda data: coco(data, "instances"),
    "coco-133": lambda data: coco(data, "panoptic"),
    "ade20k": lambda data: ade(data, clean=False),
    "ade20k-clean": lambda data: ade(data, clean=True),
}


def open_benchmark(name: str, folder: Path, min_area: float = 0.0) -> Benchmark:
    """The benchmark of that name by the files in a folder; RunProblem naming what is missing.

    In ADE20K's masks, a class on less than `min_area` (0 to 1) of a photo counts neither way.
    """
    try:
        return BENCHMARKS[name](Data(folder, min_area))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunProblem(f"{folder}: damaged files of {name}: {error!r}") from error


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=Path, help="write the classes, for ramctl eval --classes")
    parser.add_argument("--map", type=Path, help="write which tags stand for classes, for --map")
    parser.add_argument("--min-area", type=float, default=0.0, help="of a class in ADE20K's masks")
    options = parser.parse_args()
    try:
        benchmark = open_benchmark(options.name, options.folder, options.min_area)
        for row in benchmark.rows:
            sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
    except (RunProblem, OSError, LookupError, ValueError) as error:
        sys.stderr.write(f"benchmark.py: {options.name}: {error}\n")
        return 1
    if options.classes:
        benchmark.classes.write(options.classes)
    if options.map:
        lines = (f"{name}\t{'|'.join(tags)}\n" for name, tags in benchmark.mapping.items())
        options.map.write_text("".join(lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
