"""Published benchmarks: what is true of their photos, from the files as their owners publish them.

Nothing is downloaded; photos are not needed.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Label, LabelSystem, normalise
from ramctl.readers import annotations
from ramctl.readers.exports import read_list, read_panoptic
from ramctl.readers.json_lists import items_of
from ramctl.readers.source import Source
from ramctl.records.inputs import open_input
from ramctl.records.record import Item


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Classes in order, the file that lists them, and records of what is true of each photo.

    Where the records' tags are no names of classes, `ids` says which class each stands for.
    """

    classes: LabelSystem
    origin: Path
    items: Iterator[Item]
    ids: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A folder of published files; what covers less than `min_area` of a photo is not sure."""

    folder: Path
    min_area: float = 0.0

    def find(self, *names: str) -> Path:
        """The first of some files (or `.gz`), at its published place or in the folder itself.

        RunProblem naming what is missing.
        """
        for name in names:
            for path in (self.folder / name, self.folder / Path(name).name):
                for found in (path, path.with_name(f"{path.name}.gz")):
                    if found.exists():
                        return found
        raise RunProblem(f"{self.folder}: no {' or '.join(names)} in it")

    def has(self, *names: str) -> bool:
        """Whether `find` finds one of some files."""
        with suppress(RunProblem):
            return self.find(*names).exists()
        return False


def _named(data: Data, name: str) -> Benchmark:
    """The RAM authors' lines `id,tag,tag`."""
    listed = data.find(f"{name}/{name}_ram_taglist.txt")
    path = data.find(f"{name}/{name}_ram_annots.txt")
    return Benchmark(LabelSystem.read(listed), listed, read_list(_source(path)))


def _numbered(data: Data, name: str) -> Benchmark:
    """The RAM authors' lines `file,id id`: a name that two classes have stays two classes."""
    listed = data.find(f"{name}/{name}_taglist.txt")
    path = data.find(f"{name}/{name}_annots.txt")
    classes = LabelSystem.read(listed)
    ids = {str(number): number for number in range(len(classes))}
    return Benchmark(classes, listed, annotations.read_ids(_source(path), ids), ids)


def _coco(data: Data, kind: str, read: Callable[[Source], Iterator[Item]]) -> Benchmark:
    path = data.find(f"annotations/{kind}_val2017.json")
    try:
        names = [str(row["name"]) for row in items_of(_source(path), "categories")]
    except (KeyError, TypeError) as error:
        raise RunProblem(f"{path}: not COCO's categories: {error!r}") from error
    return Benchmark(LabelSystem.from_tags(names), path, read(_source(path)))


#: Source: the VOC development kit.
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def _voc(data: Data, year: str, split: str) -> Benchmark:
    listed = data.find(*(f"{at}ImageSets/Main/{split}.txt" for at in _voc_folders(year)))
    photos = [line.split()[0] for line in _lines(listed) if line.strip()]
    folder = listed.parents[2] / "Annotations"
    records = annotations.read_voc(_source(folder), photos)
    return Benchmark(LabelSystem.from_tags(VOC), listed, records)


def _voc_folders(year: str) -> tuple[str, ...]:
    return f"VOCdevkit/VOC{year}/", f"VOC{year}/", ""


def _open_images(data: Data) -> Benchmark:
    listed = data.find("class-descriptions-boxable.csv")
    labels = data.find(
        "test-annotations-human-imagelabels-boxable.csv", "test-annotations-human-imagelabels.csv"
    )
    above = annotations.read_hierarchy(data.find("bbox_labels_600_hierarchy.json"))
    try:
        rows = [row for row in csv.reader(_lines(listed)) if row and row[0] != "LabelName"]
    except csv.Error as error:
        raise RunProblem(f"{listed}: {error}") from error
    ids = {row[0]: number for number, row in enumerate(rows)}
    classes = LabelSystem(Label(row[-1]) for row in rows)
    records = annotations.read_open_images(_source(labels), above, {*ids})
    return Benchmark(classes, listed, records, ids)


def _ade(data: Data, *, clean: bool) -> Benchmark:
    """ADE20K's 150 classes: by the scene parsing benchmark's masks, else by lists of objects.

    With `clean` the classes that the RAM authors kept; a clean name stands for all classes that
    have it among their names.
    """
    listed = data.find(f"{_ADE}/objectInfo150.txt", "object150_info.csv")
    rows = [re.split(r"\t|,(?! )", line, maxsplit=5) for line in _lines(listed) if line.strip()]
    names = {row[0].strip(): re.split(r"[;,] *", row[-1].strip()) for row in rows[1:]}
    labels = [Label(own[0], synonyms=tuple(own[1:])) for own in names.values()]
    ids = {number: place for place, number in enumerate(names)}
    if clean:
        path = data.find("ade20k_clean_labels_issue84.txt")
        kept = list(dict.fromkeys(LabelSystem.read(path).tags))
        place = {normalise(name): number for number, name in enumerate(kept)}
        found = {id: [place.get(normalise(name)) for name in own] for id, own in names.items()}
        ids = {id: n for id, own in found.items() for n in own[::-1] if n is not None}
        labels, listed = [Label(name) for name in kept], path
    lists = sorted(str(path.relative_to(data.folder)) for path in data.folder.rglob(_ADE_LISTS))
    if lists and not data.has(f"{_ADE}/{_ADE_MASK}", _ADE_MASK):
        ids = {", ".join(own): ids[id] for id, own in names.items() if id in ids}
        records = annotations.read_object_lists(_source(data.folder), lists)
    else:
        masks = data.find(f"{_ADE}/{_ADE_MASK}", _ADE_MASK).parent
        names_of_masks = sorted(path.name for path in masks.glob("ADE_val_*.png"))
        records = annotations.read_masks(_source(masks), names_of_masks, data.min_area)
    return Benchmark(LabelSystem(labels), listed, records, ids)


_ADE = "ADEChallengeData2016"
_ADE_MASK = "annotations/validation/ADE_val_00000001.png"
_ADE_LISTS = "ADE_val_*_atr.txt"


def _webdataset(data: Data) -> Benchmark:
    """Shards with labels, as CLIP_benchmark has them; a doubled name stays two classes."""
    listed = data.find("classnames.txt")
    shards = sorted((*data.folder.glob("test/*.tar"), *data.folder.glob("*.tar")), key=_in_order)
    if not shards:
        raise RunProblem(f"{data.folder}: no test/0.tar in it")
    classes = LabelSystem.read(listed)
    ids = {str(number): number for number in range(len(classes))}
    read = (annotations.read_label_members(_source(path), len(classes)) for path in shards)
    return Benchmark(classes, listed, chain.from_iterable(read), ids)


def _in_order(shard: Path) -> tuple[int, str]:
    """10.tar comes after 9.tar."""
    return len(shard.name), str(shard)


def _lines(path: Path) -> list[str]:
    with open_input(str(path)) as stream:
        return stream.read().decode("utf-8-sig", "replace").splitlines()


def _private(data: Data) -> Benchmark:
    raise UsageProblem("--benchmark oppo-common: private, its owners publish no annotations")


def _source(path: Path) -> Source:
    return Source(str(path), path.parent, "eval")


BENCHMARKS: dict[str, Callable[[Data], Benchmark]] = {
    "openimages-common-214": lambda data: _named(data, "openimages_common_214"),
    "openimages-rare-200": lambda data: _named(data, "openimages_rare_200"),
    "hico-600": lambda data: _numbered(data, "hico_600"),
    "imagenet-multi-1000": lambda data: _numbered(data, "imagenet_multi_1000"),
    "coco-80": lambda data: _coco(data, "instances", annotations.read_instances),
    "coco-133": lambda data: _coco(data, "panoptic", read_panoptic),
    "voc2007": lambda data: _voc(data, "2007", "test"),
    "voc2012": lambda data: _voc(data, "2012", "val"),
    "ade20k": lambda data: _ade(data, clean=False),
    "ade20k-clean": lambda data: _ade(data, clean=True),
    "open-images-v6": _open_images,
    "wds": _webdataset,
    "oppo-common": _private,
}

MASKED = ("ade20k", "ade20k-clean")


def open_benchmark(name: str, folder: Path, min_area: float = 0.0) -> Benchmark:
    """The benchmark of that name by the files in a folder; RunProblem naming what is missing.

    In masks, a class on less than the share `min_area` of a photo counts neither way.
    """
    if name not in BENCHMARKS:
        raise UsageProblem(f"--benchmark {name}: none of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](Data(folder, min_area))
