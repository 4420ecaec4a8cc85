"""Records to samples and samples to batches, in worker processes if there are any.

B photos, L labels, T image tokens, C channels, E text width, S tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ramctl.errors import RecordProblem
from ramctl.model.attention import map_tensors
from ramctl.model.caption_tokenizer import CaptionTokenizer, clean_caption
from ramctl.model.captioning import CaptionInputs
from ramctl.model.preset import TrainingConfig
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.features import CachedFeatures
from ramctl.training.data.record_file import RecordFile
from ramctl.training.data.sampler import StepPlan
from ramctl.training.data.targets import read_annotation
from ramctl.training.data.teachers import TagTargets

Array = NDArray[Any]
Unreadable = tuple[int, RecordProblem]  # number of a record, and why its photo is unreadable


@dataclass(frozen=True, slots=True)
class Sample:
    """One record in one epoch."""

    photo: Array  # pixels (S, S, 3), or features (T, C)
    targets: Array  # (L,) of the tags
    weights: Array  # (L,) of these targets
    caption: str  # empty: none
    caption_tags: list[str]
    text: Array | None  # (E,) of the photo's captions, for distillation


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
        """The batch on a device; from pinned memory without waiting for the copy."""
        return map_tensors(lambda x: x.to(device, non_blocking=device.type == "cuda"), self)

    def pin_memory(self) -> "Batch":
        """The batch in pinned memory; torch's loader calls this."""
        return map_tensors(Tensor.pin_memory, self)


@dataclass(frozen=True, slots=True)
class TrainingSet(Dataset[Sample | Unreadable]):
    """Records as samples, by (epoch, record), and samples as the batches of each step."""

    records: RecordFile
    targets: TagTargets
    config: TrainingConfig
    photo: TrainingPhoto
    tokenizer: CaptionTokenizer | None
    features: CachedFeatures | None  # in place of photos
    texts: NDArray[np.float16] | None  # (records, E) caption vectors
    workers: int  # processes that prepare batches; 0: this one does
    pins: bool = False  # batches are in pinned memory, for a GPU

    def __getitem__(self, key: tuple[int, int]) -> Sample | Unreadable:
        epoch, index = key
        # A generator for each sample: workers and the order of reading change nothing.
        random = np.random.default_rng([self.config.seed, epoch, index])
        annotation = read_annotation(self.records[index])
        try:
            photo: Array
            if self.features is None:
                photo = self.photo.pixels(annotation, random)
            else:
                flipped = random.random() < self.config.augment.flip
                photo = self.features.of(index, int(flipped))
        except RecordProblem as problem:
            return index, problem
        caption, tags = "", []
        if annotation.captions:
            chosen = annotation.captions[random.integers(len(annotation.captions))]
            caption = clean_caption(chosen.text)
            in_order = self.tokenizer is not None and self.tokenizer.config.tag_order == "labels"
            tags = self.targets.labels.guiding_tags(chosen, in_label_order=in_order)
        text = None if self.texts is None else np.asarray(self.texts[index], np.float32)
        targets, weights = self.targets.row(index, annotation)
        return Sample(photo, targets, weights, caption, tags, text)

    def collate(self, items: Sequence[Sample | Unreadable]) -> Batch:
        """The batch of the readable samples."""
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
        targets = torch.from_numpy(np.stack([sample.targets for sample in samples]))
        weights = torch.from_numpy(np.stack([sample.weights for sample in samples]))
        captioned = [(row, sample) for row, sample in enumerate(samples) if sample.caption]
        texts = [sample.caption for _, sample in captioned]
        captions = caption_targets = teacher = taught = None
        if self.tokenizer is not None and captioned:
            pieces = self.tokenizer.encode_captions(texts)
            tags = self.tokenizer.encode_tags([sample.caption_tags for _, sample in captioned])
            captions = CaptionInputs(*map(torch.from_numpy, (*tags, pieces.ids, pieces.mask)))
            caption_targets = torch.from_numpy(pieces.targets)
        if samples[0].text is not None:
            teacher = torch.from_numpy(np.stack([np.asarray(s.text) for s in samples]))
            taught = (teacher != 0).any(1).float()
        return Batch(
            photos, targets, None if (weights == 1).all() else weights, captions, caption_targets,
            caption_rows=torch.tensor([row for row, _ in captioned]) if captioned else None,
            caption_texts=tuple(texts),
            teacher=teacher, taught=taught, rejected=rejected,
        )  # fmt: skip

    def batches(self, plans: Iterator[StepPlan]) -> Iterator[tuple[StepPlan, list[Batch]]]:
        """Each step's plan with its batches, one a forward pass."""
        ahead: list[StepPlan] = []  # plans whose batches the workers are still preparing

        def keys() -> Iterator[list[tuple[int, int]]]:
            for plan in plans:
                ahead.append(plan)
                for records in plan.passes:
                    yield [(plan.epoch, int(index)) for index in records]

        loader = DataLoader(
            self, batch_sampler=keys(), collate_fn=self.collate,
            num_workers=self.workers, prefetch_factor=4 if self.workers else None,
            pin_memory=self.pins,
        )  # fmt: skip
        made = self._received(loader)
        while (first := next(made, None)) is not None:
            plan = ahead.pop(0)
            yield plan, [first, *(next(made) for _ in plan.passes[1:])]

    def _received(self, loader: Iterable[Batch]) -> Iterator[Batch]:
        """The loader's batches; torch's RuntimeError however the death of a worker is noticed."""
        try:
            yield from loader
        except (ConnectionError, EOFError) as error:
            is_sent = str(error).startswith("Caught ")  # raised in the worker, and sent here
            if is_sent or not self.workers:
                raise
            reason = str(error) or "its pipe was closed"
            raise RuntimeError(f"DataLoader worker (pid unknown) is gone: {reason}") from error
