"""A linear layer on a backbone's pooled features, taught with the product's own targets.

It learns in half a minute: enough to choose between targets (`ablations.py`), and a second opinion
of the labels (`own_vectors.py`). N photos, C channels, L labels.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.labels import LabelSystem
from ramctl.model.preset import AugmentConfig, PreprocessConfig, TrainingConfig
from ramctl.records.parallel import chunks
from ramctl.tagger_scores import PhotoName, TaggerScores
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.data.targets import Annotation, Targets, read_annotation
from ramctl.training.data.teachers import MentionRates, ScoresTeacher, SoftTargets, TagTargets
from ramctl.training.losses import asymmetric_loss

AT_ONCE = 8  # photos: a larger batch leaves the processor's cache
Floats = NDArray[np.float32]


def read_notes(path: Path, root: Path) -> list[Annotation]:
    """The annotations of records, empty ones included."""
    source = Source.of(str(path), str(root))
    found = scan_records(
        [source], lambda reject: None, "train", hold_out=False, takes_untagged=True
    )
    records: RecordFile = found.records
    return [read_annotation(records[index]) for index in range(len(records))]


def read_teachers(
    teachers: Sequence[ScoresTeacher], labels: LabelSystem, notes: Sequence[Annotation]
) -> tuple[SoftTargets, ...]:
    """The scores of taggers for the photos."""
    found = []
    for teacher in teachers:
        scores = TaggerScores.read(teacher.path, "train")
        rows = scores.rows_of([PhotoName(note.image, note.base) for note in notes])
        found.append(SoftTargets(teacher, scores, labels, rows))
    return tuple(found)


def photos_of(notes: Sequence[Annotation], preprocess: PreprocessConfig) -> Iterator[torch.Tensor]:
    """The whole photos (B, 3, S, S), a few at once."""
    photo = TrainingPhoto(preprocess, AugmentConfig((1.0, 1.0), 0.0, 0, 0))
    random = np.random.default_rng(0)
    for some in chunks(notes, AT_ONCE):
        batch = torch.from_numpy(np.stack([photo(note, random) for note in some]))
        yield batch.contiguous(memory_format=torch.channels_last)


class Taught(NamedTuple):
    """The targets of photos (N, L) and their weights."""

    wanted: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(
        cls, notes: Sequence[Annotation], labels: LabelSystem, config: TrainingConfig,
        teachers: tuple[SoftTargets, ...], *, uses_rates: bool = True,
    ) -> "Taught":  # fmt: skip
        """As `ramctl train` does it."""
        known, rates = Targets(labels), None
        if uses_rates and teachers:
            rates = MentionRates.learn(enumerate(notes), known, teachers)
        targets = TagTargets(known, config, teachers, rates)
        taught = cls(*(torch.zeros(len(notes), len(labels), dtype=torch.half) for _ in range(2)))
        for index, note in enumerate(notes):
            for part, row in zip(taught, targets.row(index, note), strict=True):
                part[index] = torch.from_numpy(row)
        return taught


class Plan(NamedTuple):
    """How a layer is trained."""

    epochs: int
    batch: int
    lr: float
    dropout: float
    weight_decay: float = 0.05
    gamma_neg: float = 0.0
    clip: float = 0.0


def train_layer(
    features: torch.Tensor, taught: Taught, plan: Plan, beside: torch.Tensor | None = None
) -> torch.nn.Linear:
    """A layer from features (N, C), each of mean 0 and deviation 1, to logits (N, L).

    `beside` (N, L) are logits that its own are added to.
    """
    wanted, weights = taught
    layer = torch.nn.Linear(features.shape[1], wanted.shape[1])
    mass, total = (wanted.float() * weights).sum(0), weights.float().sum(0).clamp(min=1)
    with torch.no_grad():
        layer.weight.mul_(0.1)
        layer.bias.copy_((mass / total).clamp(1e-4, 0.9).logit())
        if beside is not None:
            layer.bias.sub_(beside.mean(0))
    n_steps, settings = plan.epochs * (len(features) // plan.batch), layer.parameters()
    optimiser = torch.optim.AdamW(settings, lr=plan.lr, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, plan.lr, total_steps=n_steps, pct_start=0.1
    )
    loss_of = partial(asymmetric_loss, gamma_neg=plan.gamma_neg, gamma_pos=0.0, clip=plan.clip)
    for _ in range(plan.epochs):
        order = torch.randperm(len(features))
        for some in order[: len(order) // plan.batch * plan.batch].split(plan.batch):
            logits = layer(torch.nn.functional.dropout(features[some], plan.dropout))
            if beside is not None:
                logits = logits + beside[some]
            loss = loss_of(logits, wanted[some].float(), weights=weights[some].float()) / plan.batch
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return layer
