#!/usr/bin/env python3
"""How often `tag --boxes` points at the thing, on photos that people drew boxes in.

    scripts/bench/pointing.py --half report
    scripts/bench/pointing.py --half report --by attention

The pointing game (Zhang et al. 2016, arXiv 1608.00507): is the maximum of a tag's heat map in one
of the thing's boxes? Asked of all classes that have boxes, and of those that the model gives as
tags; beside it what a random point and the middle of the photo would reach. Then how much the
printed boxes are like people's (IoU with the nearest one), and how alike those of different tags of
a photo are. Choices are made on one half of the photos, told apart by a hash of their names, and
reported on the other. Each run is a line in scripts/reproduce/looks.jsonl.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()
sys.path.append(str(ROOT / "scripts" / "reproduce"))

import looks
import numpy as np
from measuring import SHARED

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.decide.thresholds import LabelSet, choose_labels
from ramctl.device import Runtime, set_up_cpu
from ramctl.engine.boxes import enlarged
from ramctl.engine.torch_engine import TorchEngine
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import load_photo

SETS = ("voc5", "coco80")
Box = Sequence[float]


class Found(NamedTuple):
    """A class in a photo: its boxes by people, and where the model points."""

    by_people: list[Box]
    peak: tuple[float, float]
    box: Box
    is_tag: bool


class Seen(NamedTuple):
    """The boxes that the model finds in a photo."""

    classes: list[Found]
    boxes: list[Box]  # of all its tags that are things
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "eval")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--half", choices=("choice", "report"), required=True)
    parser.add_argument("--by", choices=("cells", "attention"), default="cells")
    given = parser.parse_args()
    set_up_cpu(1)
    for name in SETS:
        lines = (given.data / f"{name}_boxes.jsonl").open(encoding="utf-8")
        records = [row for row in map(json.loads, lines) if half_of(row["image"]) == given.half]
        show(name, list(look(records, given)))
        told = f"pointing.py --half {given.half} --by {given.by}"
        looks.log(f"{name}_boxes", given.model, told)


def half_of(image: str) -> str:
    return ("choice", "report")[blake2b(image.encode(), digest_size=1).digest()[0] % 2]


def look(records: Sequence[dict[str, Any]], given: argparse.Namespace) -> Iterator[Seen]:
    bundle = Bundle.open(resolve_model(given.model))
    classes = sorted({name for record in records for name in record["boxes"]})
    labels = choose_labels(bundle, classes, None, keep_labels=True)
    engine = TorchEngine.open(bundle, Runtime.choose("cpu", "fp32"), rows=labels.rows)
    engine.model.scores_cells &= given.by == "cells"
    for record in records:
        yield find(record, given.data, bundle, engine, labels)


def find(
    record: dict[str, Any], folder: Path, bundle: Bundle, engine: TorchEngine, labels: LabelSet
) -> Seen:
    """The boxes that the engine finds for the classes of a record, and for its tags."""
    photo = load_photo(record["image"], folder)
    (scores,) = engine.scores(Preprocess(bundle.preprocess)(photo)[None])
    tags = set(np.flatnonzero(scores >= labels.thresholds).tolist())
    ids = {name: labels.labels.ids(name)[0] for name in record["boxes"]}
    things = {label for label in tags if labels.labels[label].kind == "object"}
    asked = sorted(things | set(ids.values()))
    prepared: Any = engine.labels
    began = time.process_time()
    config = bundle.preprocess
    if engine.model.scores_cells:
        config = enlarged(config, bundle.preset.model)
    features = engine.features(Preprocess(config)(photo)[None])
    boxes = engine.boxes(features, prepared[np.array(asked)])
    seconds = time.process_time() - began
    (maps,) = engine.heat_maps(features, prepared[np.array(asked)])
    place = {label: index for index, label in enumerate(asked)}
    found = [
        Found(drawn, peak(maps[place[ids[name]]]), boxes[place[ids[name]]].tolist(),
              ids[name] in tags)
        for name, drawn in record["boxes"].items()
    ]  # fmt: skip
    return Seen(found, [boxes[place[label]].tolist() for label in things], seconds)


def peak(heat: np.ndarray) -> tuple[float, float]:
    """The middle of the cell of a map's maximum; mini and its like see the whole photo."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]


def show(name: str, seen: Sequence[Seen]) -> None:
    every = [found for one in seen for found in one.classes]
    seconds = np.mean([one.seconds for one in seen])
    print(f"{name}: {len(seen)} photos, {seconds:.3f} s of CPU each")
    for title, some in (("all", every), ("given as tags", [f for f in every if f.is_tag])):
        points = share(is_in(found.by_people, found.peak) for found in some)
        middle = share(is_in(found.by_people, (0.5, 0.5)) for found in some)
        chance = np.mean([area(found.by_people) for found in some])
        beside = f"the middle {middle:.1%}, chance {chance:.1%}"
        print(f"  {title}: {points:.1%} of {len(some)} right, {beside}")
    best = [max(iou(found.box, box) for box in found.by_people) for found in every if found.is_tag]
    pairs = [iou(*pair) for one in seen for pair in combinations(one.boxes, 2)]
    print(f"  tags: IoU with people's boxes {np.mean(best):.3f}, between tags {np.mean(pairs):.3f}")


def share(are: Iterable[bool]) -> float:
    return float(np.mean(list(are)))


def is_in(boxes: Sequence[Box], point: tuple[float, float]) -> bool:
    x, y = point
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


def area(boxes: Sequence[Box], fineness: int = 200) -> float:
    """The share of a photo that boxes cover together."""
    middles = (np.arange(fineness) + 0.5) / fineness
    covered = np.zeros((fineness, fineness), bool)
    for x0, y0, x1, y1 in boxes:
        covered |= np.outer((y0 <= middles) & (middles <= y1), (x0 <= middles) & (middles <= x1))
    return float(covered.mean())


def iou(one: Box, other: Box) -> float:
    """The intersection of two boxes over their union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0.0) * max(height, 0.0)
    sizes = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return both / (sizes - both)


if __name__ == "__main__":
    main()
