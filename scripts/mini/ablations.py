#!/usr/bin/env python3
"""Print what each part of the training targets is worth, as a Markdown table.

    scripts/mini/ablations.py --work build/mini --photos PHOTOS --eval EVAL

A linear layer on the pooled features of the frozen ImageNet backbone, with the product's own
targets, is trained in half a minute: enough to choose between targets. Everything is measured on
development photos: precision of tags (judged photos, out of fold) at 5 and 6 tags a photo, mean AUC
of labels, people found at 5 % false, and mAP on flickr8k-dev.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn", "torch")

import numpy as np
import torch
from linear import Floats, Plan, Taught, photos_of, read_notes, read_teachers, train_layer
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ramctl.decide.fitting import Judged, calibrate
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, mean_average_precision
from ramctl.labels import LabelSystem
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import load_preset
from ramctl.pretrained.packages import PACKAGED, load_packaged
from ramctl.training.data.targets import Annotation
from ramctl.training.data.teachers import ScoresTeacher

SETS = ("flickr8k-train", "coco-train", "fsa-train", "diverse-captioned", "diverse-plain")
JUDGED = ("judged_dev", "judged_other")
TEACHERS = {"classifier": 1.0, "detectors": 2.0}
PLAN = Plan(epochs=20, batch=256, lr=2e-3, dropout=0.5)
MIN_PHOTOS, FALSE_PEOPLE = 4, 0.05


def kept_features(work: Path, name: str, notes: Sequence[Annotation]) -> Floats:
    """Features (N, C) of the photos by the frozen backbone, kept in `work`."""
    path = work / "ablations" / f"{name}.npy"
    if not path.is_file():
        preset = load_preset("mini")
        encoder = ImageEncoder(preset.model.encoder, preset.preprocess.size)
        load_packaged(encoder.backbone, PACKAGED[preset.model.encoder.backbone])
        torch.nn.Module.to(encoder.eval(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            rows = [encoder(batch).mean(1).half() for batch in photos_of(notes, preset.preprocess)]
        path.parent.mkdir(exist_ok=True)
        np.save(path, torch.cat(rows).numpy())
    features: Floats = np.load(path).astype(np.float32)
    return features


class Trial:
    """Photos, truth and features that all rows of the table share."""

    def __init__(self, work: Path, photos: Path, evaluation: Path) -> None:
        self.work, self.photos = work, photos
        self.labels = LabelSystem.read(work / "labels.jsonl")
        self.records = {name: read_notes(work / f"{name}.jsonl", photos) for name in SETS}
        self.features = {
            name: kept_features(work, name, notes) for name, notes in self.records.items()
        }
        self._read_judged(evaluation)
        self._read_flickr(evaluation)

    def _read_judged(self, evaluation: Path) -> None:
        notes = read_notes(self.work / "judged.jsonl", self.photos)
        self.judged = kept_features(self.work, "judged", notes)
        self.right = np.full((len(notes), len(self.labels)), NEGATIVE, np.int8)
        for row, note in enumerate(notes):
            self.right[row, [i for tag in note.tags for i in self.labels.ids(tag)]] = POSITIVE
        lines = "".join((evaluation / f"{name}.jsonl").read_text("utf-8") for name in JUDGED)
        self.people = np.array([json.loads(line)["people"] for line in lines.splitlines()])

    def _read_flickr(self, evaluation: Path) -> None:
        notes = read_notes(evaluation / "flickr8k_dev.jsonl", evaluation)
        self.flickr = kept_features(self.work, "flickr8k-dev", notes)
        lines = (evaluation / "flickr8k_dev_classes.txt").read_text("utf-8").splitlines()
        self.columns = [i for name in filter(None, lines) for i in self.labels.ids(name)[:1]]
        self.named = np.full((len(notes), len(self.labels)), NEGATIVE, np.int8)
        for row, note in enumerate(notes):
            for tags, value in ((note.uncertain, UNKNOWN), (note.tags, POSITIVE)):
                self.named[row, [i for tag in tags for i in self.labels.ids(tag)]] = value

    def taught(self, row: "Row") -> Taught:
        """The targets of a row."""
        notes = [note for name in row.sets for note in self.records[name]]
        if row.silent:  # the dense captions are left out, their photos stay
            notes = [n if "diverse" not in n.image else blank(n) for n in notes]
        names = Path("scripts/mini/names.tsv")
        files = [self.work / "teachers" / f"{name}.jsonl" for name in row.teachers]
        teachers = [
            ScoresTeacher(path, TEACHERS[name], names)
            for path, name in zip(files, row.teachers, strict=True)
        ]
        return Taught.of(
            notes, self.labels, load_preset("mini", row.settings).training,
            read_teachers(teachers, self.labels, notes), uses_rates=row.uses_rates,
        )  # fmt: skip

    def measure(self, row: "Row") -> list[str]:
        """The row's cells: a layer is trained and measured."""
        torch.manual_seed(0)
        taught = self.taught(row)
        features = torch.from_numpy(np.concatenate([self.features[name] for name in row.sets]))
        mean, spread = features.mean(0), features.std(0) + 1e-3
        layer = train_layer((features - mean) / spread, taught, row.plan)

        def scores(photos: Floats) -> NDArray[np.float64]:
            with torch.inference_mode():
                logits = layer((torch.from_numpy(photos) - mean) / spread)
            found: NDArray[np.float64] = logits.double().sigmoid().numpy()
            return found

        judged = scores(self.judged)
        evidence = np.array([label.validated for label in self.labels])
        right = self.right == POSITIVE
        known = self.right != UNKNOWN
        curve = calibrate(Judged(judged, right, known), evidence, 0.25).curve
        precision = [min(curve, key=lambda p: abs(p.tags - n)).precision for n in (5, 6)]
        ranked = [j for j in range(len(self.labels)) if right[:, j].sum() >= MIN_PHOTOS]
        auc = np.mean([roc_auc_score(right[:, j], judged[:, j]) for j in ranked])
        person = judged[:, self.labels.ids("person")[0]]
        cut = np.quantile(person[~self.people], 1 - FALSE_PEOPLE)
        flickr = mean_average_precision(
            scores(self.flickr)[:, self.columns], self.named[:, self.columns]
        )
        found = (person[self.people] > cut).mean()
        return [*(f"{p:.3f}" for p in precision), f"{auc:.3f}", f"{found:.2f}", f"{flickr:.3f}"]


@dataclass(frozen=True)
class Row:
    """The change that a row of the table makes."""

    name: str
    sets: tuple[str, ...] = SETS
    teachers: tuple[str, ...] = tuple(TEACHERS)
    silent: bool = False
    uses_rates: bool = True
    settings: tuple[str, ...] = ()
    plan: Plan = PLAN


ROWS = (
    Row("all"),
    Row("without teachers", teachers=(), sets=SETS[:4]),
    Row("without the detectors", teachers=("classifier",)),
    Row("without the classifier", teachers=("detectors",)),
    Row("without the dense captions", silent=True),
    Row("missing mentions are no evidence", uses_rates=False),
    Row("absent weight 0.5", settings=("training.absent_weight=0.5",)),
    Row("absent weight 1", settings=("training.absent_weight=1",)),
    Row("single mentions count fully", settings=("training.single_mention_weight=1",)),
    Row("asymmetric loss", plan=PLAN._replace(gamma_neg=4.0, clip=0.05)),
    Row("dropout 0.2", plan=PLAN._replace(dropout=0.2)),
)


def blank(note: Annotation) -> Annotation:
    """The photo without what its caption says."""
    return replace(note, tags=(), captions=(), is_tagged=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--work", "--photos", "--eval"):
        parser.add_argument(name, type=Path, required=True)
    args = parser.parse_args()
    trial = Trial(args.work, args.photos, args.eval)
    heads = ["", "at 5 tags", "at 6 tags", "AUC", "people found", "flickr8k-dev"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for row in ROWS:
        print(f"| {row.name} | {' | '.join(trial.measure(row))} |", flush=True)


if __name__ == "__main__":
    main()
