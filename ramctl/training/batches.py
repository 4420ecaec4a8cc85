"""Samples and batches: what a step needs of each record, made in worker processes if asked.

B photos, L labels, T tokens, C channels, E text width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ramctl.errors import RecordProblem
from ramctl.model.caption_tokenizer import CaptionTokenizer, clean_caption
from ramctl.model.captioning import CaptionInputs
from ramctl.model.config import TrainingConfig
from ramctl.training.annotations import Target, Targets, read_annotation
from ramctl.training.augmentation import TrainingPhoto
from ramctl.training.features import FeatureCache
from ramctl.training.record_file import RecordFile
from ramctl.training.sampler import StepPlan

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One record in one epoch."""

    photo: Array  # (3, S, S), or features (T, C)
    target: Target
    caption: str | None
    caption_tags: list[str]
    text: Array | None  # (E,) of the photo's captions, for distillation


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass; `rejected` are the records whose photo could not be read."""

    photos: Tensor  # (B, 3, S, S), or features (B, T, C)
    targets: Tensor  # (B, L) 0 or 1
    weights: Tensor | None  # (B, L) 0 where the truth is unknown; None: all 1
    captions: CaptionInputs | None
    caption_targets: Tensor | None  # (rows, S)
    caption_rows: Tensor | None  # which photos have a caption
    caption_texts: tuple[str, ...]
    teacher: Tensor | None  # (B, E) caption vectors
    taught: Tensor | None  # (B,) 0 where a photo has no caption vector
    is_real: bool  # False: a stand-in where a rank has nothing to do
    rejected: tuple[tuple[int, RecordProblem], ...]

    @property
    def n_photos(self) -> int:
        """Photos that count."""
        return len(self.photos) if self.is_real else 0

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        if device.type == "cpu":
            return self
        moved = {
            name: value.to(device)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor | CaptionInputs)
        }
        return Batch(**{name: getattr(self, name) for name in self.__slots__} | moved)


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """Where the features of each record are: rows (records, views), -1 for none."""

    cache: FeatureCache
    rows: NDArray[np.int64]


class TrainingSet(Dataset[Sample | tuple[int, RecordProblem]]):
    """Records as samples; an item is asked for by (epoch, record)."""

    def __init__(
        self,
        records: RecordFile,
        targets: Targets,
        config: TrainingConfig,
        photo: TrainingPhoto,
        *,
        features: CachedFeatures | None = None,
        texts: NDArray[np.float16] | None = None,
    ) -> None:
        self.records = records
        self.targets = targets
        self.config = config
        self.photo = photo
        self.features = features
        self.texts = texts

    def __getitem__(self, key: tuple[int, int]) -> Sample | tuple[int, RecordProblem]:
        epoch, index = key
        random = np.random.default_rng([self.config.seed, epoch, index])
        annotation = read_annotation(self.records[index])
        try:
            photo = self._photo(index, random) if self.features else self.photo(annotation, random)
        except RecordProblem as problem:
            return index, problem
        caption, tags = None, []
        if annotation.captions:
            chosen = annotation.captions[random.integers(len(annotation.captions))]
            caption = clean_caption(chosen.text, self.config.caption_words)
            tags = self.targets.guiding_tags(chosen)
        text = None if self.texts is None else np.asarray(self.texts[index], np.float32)
        return Sample(photo, self.targets.of(annotation), caption or None, tags, text)

    def _photo(self, index: int, random: np.random.Generator) -> Array:
        assert self.features is not None
        flipped = random.random() < self.config.augment.flip
        return self.features.cache[int(self.features.rows[index, int(flipped)]), int(flipped)]


class Collate:
    """Samples to a batch of `n_labels` targets."""

    def __init__(
        self, n_labels: int, tokenizer: CaptionTokenizer | None, config: TrainingConfig
    ) -> None:
        self.n_labels = n_labels
        self.tokenizer = tokenizer
        self.prompt_in_caption = config.prompt_in_caption
        self.doubt = config.single_mention_weight
        self.photo_shape: tuple[int, ...] = (1, 1)

    def __call__(self, items: Sequence[Sample | tuple[int, RecordProblem]]) -> Batch:
        """The batch of the samples that could be read."""
        samples = [item for item in items if isinstance(item, Sample)]
        rejected = tuple(item for item in items if not isinstance(item, Sample))
        if not samples:
            return self._stand_in(rejected)
        photos = torch.from_numpy(np.stack([sample.photo for sample in samples])).float()
        captions, targets, rows = self._captions(samples)
        teacher = taught = None
        if samples[0].text is not None:
            teacher = torch.from_numpy(np.stack([np.asarray(s.text) for s in samples]))
            taught = (teacher != 0).any(1).float()
        chosen = [] if rows is None else rows.tolist()
        return Batch(
            photos, *self._targets(samples), captions, targets, rows,
            tuple(samples[row].caption or "" for row in chosen), teacher, taught, True, rejected,
        )  # fmt: skip

    def _targets(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor | None]:
        present = torch.zeros(len(samples), self.n_labels)
        weights = torch.ones(len(samples), self.n_labels)
        for row, sample in enumerate(samples):
            present[row, torch.from_numpy(sample.target.present)] = 1
            weights[row, torch.from_numpy(sample.target.doubtful)] = self.doubt
            if sample.target.unknown is not None:
                weights[row, torch.from_numpy(sample.target.unknown)] = 0
        are_equal = self.doubt == 1 and all(s.target.unknown is None for s in samples)
        return present, None if are_equal else weights

    def _captions(
        self, samples: Sequence[Sample]
    ) -> tuple[CaptionInputs | None, Tensor | None, Tensor | None]:
        rows = [row for row, sample in enumerate(samples) if sample.caption]
        if self.tokenizer is None or not rows:
            return None, None, torch.tensor(rows) if rows else None
        batch = self.tokenizer.encode_captions(
            [samples[row].caption or "" for row in rows], prompt_in_caption=self.prompt_in_caption
        )
        tag_ids, tag_mask = self.tokenizer.encode_tags([samples[r].caption_tags for r in rows])
        inputs = CaptionInputs(*map(torch.from_numpy, (tag_ids, tag_mask, batch.ids, batch.mask)))
        return inputs, torch.from_numpy(batch.targets), torch.tensor(rows)

    def _stand_in(self, rejected: tuple[tuple[int, RecordProblem], ...]) -> Batch:
        return Batch(
            torch.zeros(1, *self.photo_shape), torch.zeros(1, self.n_labels), None,
            None, None, None, (), None, None, False, rejected,
        )  # fmt: skip


def batches(
    training_set: TrainingSet, collate: Collate, plans: Iterator[StepPlan], workers: int
) -> Iterator[tuple[StepPlan, list[Batch]]]:
    """The batches of each step, in order; `workers` processes prepare them ahead."""
    ahead: list[StepPlan] = []

    def keys() -> Iterator[list[tuple[int, int]]]:
        for plan in plans:
            ahead.append(plan)
            for records in plan.passes:
                yield [(plan.epoch, int(index)) for index in records]

    loader = DataLoader(
        training_set,
        batch_sampler=keys(),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    made = iter(loader)
    while True:
        first = next(made, None)
        if first is None:
            return
        plan = ahead.pop(0)
        yield plan, [first, *(next(made) for _ in plan.passes[1:])]
