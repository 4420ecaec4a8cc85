"""Records to samples and samples to batches, in worker processes if there are any.

B photos, L labels, T image tokens, C channels, E text width, S tokens.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ramctl.errors import RecordProblem, RunProblem
from ramctl.model.attention import map_tensors
from ramctl.model.caption_tokenizer import CaptionTokenizer, clean_caption
from ramctl.model.captioning import CaptionInputs
from ramctl.model.config import TrainingConfig
from ramctl.photos.shard_cache import copy_ahead
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.features import CachedFeatures
from ramctl.training.data.record_file import RecordFile
from ramctl.training.data.sampler import StepPlan
from ramctl.training.data.targets import Target, Targets, read_annotation
from ramctl.training.data.teachers import NOTICED, Silence, SoftTargets, soft_targets, unsaid

Array = NDArray[Any]
DEATH_NOTICE_S = 0.5  # from a pipe that closes to the news that its process is dead
AHEAD = -1  # in the place of an epoch: no sample, but an archive that is to be copied
Unreadable = tuple[int, RecordProblem]  # number of a record, and what is wrong with its photo


@dataclass(frozen=True, slots=True)
class Sample:
    """One record as one epoch sees it."""

    photo: Array  # pixels (S, S, 3), or features (T, C)
    target: Target
    caption: str | None
    caption_tags: list[str]
    text: Array | None  # (E,) of the photo's captions, for distillation
    soft: tuple[tuple[SoftTargets, Array], ...]  # the teachers that saw the photo: (K,) targets
    n_written: int = 0  # captions by people


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one forward pass; `rejected` are the records whose photo is unreadable."""

    photos: Tensor  # (B, 3, S, S), or features (B, T, C)
    targets: Tensor  # (B, L) 0 or 1
    weights: Tensor | None = None  # (B, L) 0 where the truth is unknown; None: all 1
    captions: CaptionInputs | None = None
    caption_targets: Tensor | None = None  # (rows, S)
    caption_rows: Tensor | None = None  # which photos have a caption
    caption_texts: tuple[str, ...] = ()
    teacher: Tensor | None = None  # (B, E) caption vectors
    taught: Tensor | None = None  # (B,) 0 where a photo has no caption vector
    is_real: bool = True  # False: a stand-in for a rank that has no photos in this pass
    rejected: tuple[Unreadable, ...] = ()

    @property
    def n_photos(self) -> int:
        """Number of photos, 0 for a stand-in."""
        return len(self.photos) if self.is_real else 0

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; from pinned memory it is copied while the host goes on."""
        return map_tensors(lambda x: x.to(device, non_blocking=device.type == "cuda"), self)

    def pin_memory(self) -> "Batch":
        """The batch in memory that a GPU copies from by itself; torch's loader asks for it."""
        return map_tensors(Tensor.pin_memory, self)


@dataclass(frozen=True, slots=True)
class TrainingSet(Dataset[Sample | Unreadable]):
    """Records as samples, by (epoch, record), and samples as the batches of each step."""

    records: RecordFile
    targets: Targets
    config: TrainingConfig
    photo: TrainingPhoto
    tokenizer: CaptionTokenizer | None
    features: CachedFeatures | None  # in place of photos
    texts: NDArray[np.float16] | None  # (records, E) caption vectors
    teachers: tuple[SoftTargets, ...]
    silence: Silence
    workers: int  # processes that make batches ahead; 0: this one makes them
    pins: bool = False  # batches come in memory that a GPU copies from by itself

    def __getitem__(self, key: tuple[int, int]) -> Sample | Unreadable:
        epoch, index = key
        # A generator for each sample: workers and the order of reading change nothing.
        random = np.random.default_rng([self.config.data.seed, epoch, index])
        annotation = read_annotation(self.records[index])
        try:
            photo: Array
            if self.features is None:
                photo = self.photo.pixels(annotation, random)
            else:
                flipped = random.random() < self.config.data.augment.flip
                photo = self.features.of(index, int(flipped))
        except RecordProblem as problem:
            return index, problem
        caption, tags = None, []
        if annotation.captions:
            chosen = annotation.captions[random.integers(len(annotation.captions))]
            caption = clean_caption(chosen.text)
            in_order = self.tokenizer is not None and self.tokenizer.config.tag_order == "labels"
            tags = self.targets.guiding_tags(chosen, in_label_order=in_order)
        text = None if self.texts is None else np.asarray(self.texts[index], np.float32)
        seen = ((teacher, teacher.of(index)) for teacher in self.teachers)
        soft = tuple((teacher, scores) for teacher, scores in seen if scores is not None)
        target, n_written = self.targets.of(annotation), annotation.n_written
        return Sample(photo, target, caption or None, tags, text, soft, n_written)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample | Unreadable | RunProblem]:
        """The samples of a batch; or what ends the run, to which a worker would add its stack."""
        try:
            for _, index in (key for key in keys if key[0] == AHEAD):
                soon = read_annotation(self.records[index])
                copy_ahead(soon.image, soon.base, self.config.data.shuffled_shards)
            return [self[key] for key in keys if key[0] != AHEAD]
        except RunProblem as problem:
            return [problem]

    def collate(self, items: Sequence[Sample | Unreadable | RunProblem]) -> Batch | RunProblem:
        """The batch of those samples that could be read."""
        if items and isinstance(items[0], RunProblem):
            return items[0]
        samples = [item for item in items if isinstance(item, Sample)]
        rejected = tuple(item for item in items if isinstance(item, tuple))
        if not samples:
            size = self.photo.preprocess.config.size
            shape = self.features.stores[0].shape if self.features else (3, size, size)
            photos, targets = torch.zeros(1, *shape), torch.zeros(1, len(self.targets))
            return Batch(photos, targets, is_real=False, rejected=rejected)
        stacked = np.stack([sample.photo for sample in samples])
        if stacked.dtype == np.uint8:  # not features
            stacked = self.photo.preprocess.normalise(stacked)
        photos = torch.from_numpy(stacked).float()
        targets, weights = self.targets_of(samples)
        captions, caption_targets = self._captions(samples)
        rows = [row for row, sample in enumerate(samples) if sample.caption]
        teacher = taught = None
        if samples[0].text is not None:
            teacher = torch.from_numpy(np.stack([np.asarray(s.text) for s in samples]))
            taught = (teacher != 0).any(1).float()
        return Batch(
            photos, targets, weights, captions, caption_targets,
            caption_rows=torch.tensor(rows) if rows else None,
            caption_texts=tuple(samples[row].caption or "" for row in rows),
            teacher=teacher, taught=taught, rejected=rejected,
        )  # fmt: skip

    def targets_of(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor | None]:
        """What the record says, with its chances, else teachers, else absence at a low weight."""
        losses, n_labels = self.config.losses, len(self.targets)
        targets = np.zeros((len(samples), n_labels), np.float32)
        weights = np.full_like(targets, losses.absent_weight)
        for row, sample in enumerate(samples):
            target = sample.target
            if losses.absent_weight != 1:
                # Nobody names the animal where a dog is named: it is no negative.
                weights[row, target.implied] = 0
            weights[row, target.unknown] = 0
            if sample.soft:
                shown, taught = soft_targets(sample.soft, n_labels)
                # A teacher that overlooks most hats says little where it sees none.
                overlooked = np.where(shown > NOTICED, 0, 1 - self.silence.noticed)
                trust = taught - overlooked * np.maximum(taught - losses.absent_weight, 0)
                if sample.n_written:
                    rates = self.silence.mentioned[int(sample.n_written > 1)].copy()
                    rates[target.implied] = 0  # a caption that names the dog says it is an animal
                    shown = unsaid(shown, rates)
                targets[row] = shown
                np.copyto(weights[row], trust, where=taught > 0)
            targets[row, target.likely], weights[row, target.likely] = target.chances, 1
            targets[row, target.denied], weights[row, target.denied] = 0, 1
            targets[row, target.present] = weights[row, target.present] = 1
            weights[row, target.doubtful] = losses.single_mention_weight
        are_equal = bool((weights == 1).all())
        return torch.from_numpy(targets), None if are_equal else torch.from_numpy(weights)

    def _captions(self, samples: Sequence[Sample]) -> tuple[CaptionInputs | None, Tensor | None]:
        captioned = [sample for sample in samples if sample.caption]
        if self.tokenizer is None or not captioned:
            return None, None
        pieces = self.tokenizer.encode_captions([sample.caption or "" for sample in captioned])
        tags = self.tokenizer.encode_tags([sample.caption_tags for sample in captioned])
        inputs = CaptionInputs(*map(torch.from_numpy, (*tags, pieces.ids, pieces.mask)))
        return inputs, torch.from_numpy(pieces.targets)

    def batches(self, plans: Iterator[StepPlan]) -> Iterator[tuple[StepPlan, list[Batch]]]:
        """Each step's plan with its batches, one a forward pass."""
        ahead: list[StepPlan] = []  # plans whose batches the workers are still making
        archives: list[int] = []  # that are needed soon, each by a record

        def keys() -> Iterator[list[tuple[int, int]]]:
            for plan in plans:
                ahead.append(plan)
                archives.extend(plan.ahead)
                for records in plan.passes:
                    soon = [(AHEAD, int(archives.pop(0)))] if archives else []
                    yield soon + [(plan.epoch, int(index)) for index in records]

        loader = DataLoader(
            self, batch_sampler=keys(), collate_fn=self.collate,
            num_workers=self.workers, prefetch_factor=4 if self.workers else None,
            pin_memory=self.pins,
        )  # fmt: skip
        made = self._handed_over(loader)
        while (first := next(made, None)) is not None:
            plan = ahead.pop(0)
            yield plan, [first, *(next(made) for _ in plan.passes[1:])]

    def _handed_over(self, loader: Iterable[Batch | RunProblem]) -> Iterator[Batch]:
        """The loader's batches; of a reader that dies in between always torch's RuntimeError."""
        try:
            for batch in loader:
                if isinstance(batch, RunProblem):
                    raise batch
                yield batch
        except (ConnectionError, EOFError) as error:
            is_its_own = str(error).startswith("Caught ")  # raised by the reader, and sent here
            if is_its_own or not self.workers:
                raise
            time.sleep(DEATH_NOTICE_S)  # torch names the reader by raising here, when it is told
            what = str(error) or "its pipe was closed"
            raise RuntimeError(f"DataLoader worker (pid unknown) is gone: {what}") from error
