#!/usr/bin/env python3
"""Print what each part of the training targets is worth, as a Markdown table.

    scripts/mini/ablations.py --work build/mini --photos PHOTOS --eval EVAL

A linear layer on the pooled features of the frozen ImageNet backbone, with the product's own
targets, is trained in half a minute: enough to choose between targets. Everything is measured on
development photos: precision of tags (judged_dev, out of fold) at 5 and 6 tags a photo, mean AUC
of labels, people found at 5 % false, and mAP on flickr8k-dev.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn", "torch")

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ramctl.calibration import Judged, calibrate
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, mean_average_precision
from ramctl.labels import LabelSystem
from ramctl.model.config import AugmentConfig, load_preset
from ramctl.model.encoder import ImageEncoder
from ramctl.pretrained.packages import PACKAGED, load_packaged
from ramctl.tagger_scores import Photo, TaggerScores
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.batches import Sample, TrainingSet
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.data.targets import Annotation, Targets, read_annotation
from ramctl.training.data.teachers import ScoresTeacher, Silence, SoftTargets
from ramctl.training.losses import asymmetric_loss

SETS = ("flickr8k-train", "coco-train", "fsa-train", "diverse-captioned", "diverse-plain")
TEACHERS = {"ica447": 1.0, "coco80": 2.0}
EPOCHS, BATCH, LR, WEIGHT_DECAY, DROPOUT = 20, 256, 2e-3, 0.05, 0.5
FEWEST_PHOTOS, FALSE_PEOPLE = 4, 0.05
Floats = NDArray[np.float32]


def pooled(work: Path, name: str, notes: Sequence[Annotation]) -> Floats:
    """Features (N, C) of the photos by the frozen backbone, kept in `work`."""
    path = work / "ablations" / f"{name}.npy"
    if not path.is_file():
        preset = load_preset("mini")
        encoder = ImageEncoder(preset.model.encoder, preset.preprocess.size)
        load_packaged(encoder.backbone, PACKAGED[preset.model.encoder.backbone])
        torch.nn.Module.to(encoder.eval(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        photo = TrainingPhoto(preset.preprocess, AugmentConfig((1.0, 1.0), 0.0, 0, 0))
        random, rows = np.random.default_rng(0), []
        with torch.inference_mode():
            for start in range(0, len(notes), 8):
                some = np.stack([photo(note, random) for note in notes[start : start + 8]])
                batch = torch.from_numpy(some).contiguous(memory_format=torch.channels_last)
                rows.append(encoder(batch).mean(1).half().numpy())
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.concatenate(rows))
    features: Floats = np.load(path).astype(np.float32)
    return features


class Trial:
    """Photos, truth and features that all rows of the table share."""

    def __init__(self, work: Path, photos: Path, evaluation: Path) -> None:
        self.work, self.photos = work, photos
        self.labels = LabelSystem.read(work / "labels.jsonl")
        self.records = {name: self._read(work / f"{name}.jsonl") for name in SETS}
        self.features = {name: pooled(work, name, notes) for name, notes in self.records.items()}
        self._read_judged(evaluation)
        self._read_flickr(evaluation)

    def _read(self, path: Path, root: Path | None = None) -> list[Annotation]:
        source = Source.of(str(path), str(root or self.photos))
        found = scan_records(
            [source], lambda reject: None, "train", hold_out=False, takes_untagged=True
        )
        records: RecordFile = found.records
        return [read_annotation(records[index]) for index in range(len(records))]

    def _read_judged(self, evaluation: Path) -> None:
        notes = self._read(self.work / "judged.jsonl")
        self.judged = pooled(self.work, "judged_dev", notes)
        self.right = np.full((len(notes), len(self.labels)), NEGATIVE, np.int8)
        for row, note in enumerate(notes):
            self.right[row, [i for tag in note.tags for i in self.labels.ids(tag)]] = POSITIVE
        lines = (evaluation / "judged_dev.jsonl").read_text("utf-8").splitlines()
        self.people = np.array([json.loads(line)["people"] for line in lines])

    def _read_flickr(self, evaluation: Path) -> None:
        notes = self._read(evaluation / "flickr8k_dev.jsonl", evaluation)
        self.flickr = pooled(self.work, "flickr8k-dev", notes)
        lines = (evaluation / "flickr8k_dev_classes.txt").read_text("utf-8").splitlines()
        self.columns = [i for name in filter(None, lines) for i in self.labels.ids(name)[:1]]
        self.named = np.full((len(notes), len(self.labels)), NEGATIVE, np.int8)
        for row, note in enumerate(notes):
            for tags, value in ((note.uncertain, UNKNOWN), (note.tags, POSITIVE)):
                self.named[row, [i for tag in tags for i in self.labels.ids(tag)]] = value

    def targets(self, row: "Row") -> tuple[torch.Tensor, torch.Tensor]:
        """What a row teaches (N, L), and with which weights."""
        notes = [note for name in row.sets for note in self.records[name]]
        if row.silent:  # the dense captions are left out, their photos stay
            notes = [n if "diverse" not in n.image else blank(n) for n in notes]
        targets, teachers = Targets(self.labels), self._teachers(row, notes)
        silence = Silence.of_nobody(len(self.labels))
        if row.hears_silence and teachers:
            silence = Silence.learn(enumerate(notes), targets, teachers)
        preset = load_preset("mini", row.settings)
        none: Any = None  # no photo is read
        training_set = TrainingSet(
            none, targets, preset.training, none, None, None, None, teachers, silence, 0
        )
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        for start in range(0, len(notes), BATCH):
            samples = []
            for index in range(start, min(start + BATCH, len(notes))):
                seen = ((t, of) for t in teachers if (of := t.of(index)) is not None)
                target, n_written = targets.of(notes[index]), notes[index].n_written
                samples.append(Sample(none, target, None, [], None, tuple(seen), n_written))
            wanted, weights = training_set.targets_of(samples)
            weights = torch.ones_like(wanted) if weights is None else weights
            parts.append((wanted.half(), weights.half()))
        wanted, weights = (torch.cat(some) for some in zip(*parts, strict=True))
        return wanted, weights

    def _teachers(self, row: "Row", notes: Sequence[Annotation]) -> tuple[SoftTargets, ...]:
        found = []
        for name in row.teachers:
            path = self.work / "teachers" / f"{name}.jsonl"
            teacher = ScoresTeacher(path, TEACHERS[name], Path("scripts/mini/names.tsv"))
            scores = TaggerScores.read(path, "train")
            rows = scores.rows_of([Photo(note.image, note.base) for note in notes])
            found.append(SoftTargets(teacher, scores, self.labels, rows))
        return tuple(found)

    def measure(self, row: "Row") -> list[str]:
        """The row's cells: a layer is trained and measured."""
        torch.manual_seed(0)
        wanted, weights = self.targets(row)
        features = torch.from_numpy(np.concatenate([self.features[name] for name in row.sets]))
        mean, spread = features.mean(0), features.std(0) + 1e-3
        layer = train(row, (features - mean) / spread, wanted, weights)

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
        ranked = [j for j in range(len(self.labels)) if right[:, j].sum() >= FEWEST_PHOTOS]
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
    """What a row of the table changes."""

    name: str
    sets: tuple[str, ...] = SETS
    teachers: tuple[str, ...] = tuple(TEACHERS)
    silent: bool = False
    hears_silence: bool = True
    settings: tuple[str, ...] = ()
    gamma_neg: float = 0.0
    clip: float = 0.0
    dropout: float = DROPOUT


ROWS = (
    Row("all"),
    Row("without teachers", teachers=(), sets=SETS[:4]),
    Row("without the detectors", teachers=("ica447",)),
    Row("without the classifier", teachers=("coco80",)),
    Row("without the dense captions", silent=True),
    Row("silence says nothing", hears_silence=False),
    Row("absent weight 0.5", settings=("training.absent_weight=0.5",)),
    Row("absent weight 1", settings=("training.absent_weight=1",)),
    Row("single mentions count fully", settings=("training.single_mention_weight=1",)),
    Row("asymmetric loss", gamma_neg=4.0, clip=0.05),
    Row("dropout 0.2", dropout=0.2),
)


def blank(note: Annotation) -> Annotation:
    """The photo without what its caption says."""
    return replace(note, tags=(), captions=(), is_tagged=False)


def train(
    row: Row, features: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor
) -> torch.nn.Module:
    layer = torch.nn.Linear(features.shape[1], wanted.shape[1])
    mass, total = (wanted.float() * weights).sum(0), weights.float().sum(0).clamp(min=1)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.copy_((mass / total).clamp(1e-4, 0.9).logit())
    steps = EPOCHS * (len(features) // BATCH)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps, pct_start=0.1)
    loss_of = partial(asymmetric_loss, gamma_neg=row.gamma_neg, gamma_pos=0.0, clip=row.clip)
    for _ in range(EPOCHS):
        order = torch.randperm(len(features))
        for some in order[: len(order) // BATCH * BATCH].split(BATCH):
            logits = layer(torch.nn.functional.dropout(features[some], row.dropout))
            loss = loss_of(logits, wanted[some].float(), weights=weights[some].float()) / BATCH
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return layer


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
