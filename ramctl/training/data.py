"""Records to batches: targets, photos or the features that a frozen encoder makes of them.

B photos, L labels, N records, T image tokens, C channels, E text width, S tokens.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ramctl.checkpoints.static_table import TextEncoder
from ramctl.errors import RecordProblem, attempt
from ramctl.model.attention import map_tensors
from ramctl.model.caption_tokenizer import CaptionTokenizer, clean_caption
from ramctl.model.captioning import CaptionInputs
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import PreprocessConfig
from ramctl.records.files import naming
from ramctl.records.labels import Labels
from ramctl.records.signals import raise_if_stopped
from ramctl.training.annotations import Annotation, Caption, Ids, Records
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.start import embed_groups
from ramctl.training.teachers import SoftTargets, soft_targets

# What a record shows of a label. Implied: an ancestor of a present one; denied: known to be absent.
PRESENT, ABSENT, UNKNOWN, IMPLIED, DENIED = 1, 0, -1, -2, -3
THINGS = ("object", "scene")  # kinds
# Later mentions count less by this power; the first thing alone finds fewer main things.
PLACE_EXPONENT = 3.0
PHOTOS_AT_ONCE = 8  # a larger batch leaves the processor's cache
CAPTIONED_AT_ONCE = 256  # records

Array = NDArray[Any]
Half = NDArray[np.float16]
Advance = Callable[[int], object]
Unreadable = tuple[int, RecordProblem]  # number of a record, and why its photo is unreadable
Key = tuple[int, Ids]  # epoch and numbers of the records of one forward pass


class Targets:
    """The states of labels by annotations; tags outside the label system are dropped.

    Labels without any evidence in a photo are absent, with the weight `absent_weight`.
    """

    def __init__(
        self, labels: Labels, absent_weight: float = 1.0, teachers: Sequence[SoftTargets] = ()
    ) -> None:
        self.labels, self.absent_weight, self.teachers = labels, absent_weight, teachers

    def states(self, note: Annotation) -> NDArray[np.int8]:
        """The state of each label (L,): PRESENT, ABSENT, UNKNOWN, IMPLIED or DENIED."""
        present = self._ids(note.tags)
        # Of labels without negatives beside them, those that nobody names are absent.
        states = np.full(len(self.labels), ABSENT if note.negatives is None else UNKNOWN, np.int8)
        if note.negatives is not None:
            states[self._ids(note.negatives)] = DENIED
        else:
            states[self._ids([tag for i in present for tag in self.labels[i].parents])] = IMPLIED
            states[self._ids(note.uncertain)] = UNKNOWN
        states[present] = PRESENT
        return states

    def truth(self, note: Annotation) -> NDArray[np.int8]:
        """The truth of each label (L,): 1, 0, or -1 where it is unknown."""
        states = self.states(note)
        return np.where(states < UNKNOWN, ABSENT, states).astype(np.int8)

    def row(self, index: int, note: Annotation) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The targets (L,) of a record by its number, and their weights (L,).

        A target comes from the record, else from teachers, else it is absence at a low weight.
        """
        states = self.states(note)
        targets = np.zeros(len(states), np.float32)
        weights = np.full_like(targets, self.absent_weight)
        if self.absent_weight != 1:
            # A caption that names a dog does not name an animal: that is no negative.
            weights[states == IMPLIED] = 0
        weights[states == UNKNOWN] = 0
        if self.teachers:
            targets, taught = soft_targets(self.teachers, index, len(states))
            np.copyto(weights, taught, where=taught > 0)
        targets[states == DENIED], targets[states == PRESENT] = 0, 1
        weights[(states == DENIED) | (states == PRESENT)] = 1
        return targets, weights

    def guiding_tags(self, caption: Caption, *, in_label_order: bool = False) -> list[str]:
        """The caption's tags as the label system spells them, each once."""
        ids = [ids[0] for ids in map(self.labels.ids, caption.tags) if ids]
        ordered = sorted(ids) if in_label_order else ids
        return list(dict.fromkeys(self.labels[index].tag for index in ordered))

    def counts(self, tags: Counter[str]) -> tuple[Ids, int, int]:
        """How many records name each label (L,); how many tags are no labels; their mentions."""
        total, n_outside, n_mentions = np.zeros(len(self.labels), np.int64), 0, 0
        for tag, number in tags.items():
            ids = self.labels.ids(tag)
            total[list(ids)] += number
            n_outside, n_mentions = n_outside + (not ids), n_mentions + number * (not ids)
        return total, n_outside, n_mentions

    def _ids(self, tags: Sequence[str]) -> list[int]:
        return [index for tag in tags for index in self.labels.ids(tag)]


def things_in_order(caption: Caption, labels: Labels) -> list[int]:
    """The labels of the things in a caption, in its order."""
    ids = dict.fromkeys(index for tag in caption.tags for index in labels.ids(tag)[:1])
    return [index for index in ids if labels[index].kind in THINGS]


def main_things(note: Annotation, labels: Labels) -> list[int]:
    """The labels of a photo's main things: its record's, else what its captions name first."""
    if note.main is not None:
        return [index for tag in note.main for index in labels.ids(tag)]
    by_caption = (things_in_order(c, labels) for c in note.captions if not c.generated)
    return [things[0] for things in by_caption if things]


def mentions(note: Annotation, labels: Labels) -> NDArray[np.float32]:
    """How early and often people's captions name each label (L,): 1, 1/8, 1/27, ... by place."""
    weights = np.zeros(len(labels), np.float32)
    for caption in note.captions:
        if not caption.generated:
            for place, index in enumerate(things_in_order(caption, labels), 1):
                weights[index] += place**-PLACE_EXPONENT
    return weights


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one forward pass; `rejected` are the records whose photo is unreadable."""

    photos: Tensor  # (B, 3, S, S), or features (B, T, C)
    targets: Tensor  # (B, L) 0 to 1
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
class TrainingSet(Dataset[Batch]):
    """Records as batches, by the epoch and the numbers of the records."""

    records: Records
    ids: Ids  # of those that are trained, or validated, on
    targets: Targets
    photo: TrainingPhoto
    seed: int = 0
    workers: int = 0  # processes that read photos
    tokenizer: CaptionTokenizer | None = None
    features: Half | None = None  # (N, views, T, C) in place of photos
    texts: Half | None = None  # (N, E) caption vectors

    def __getitem__(self, key: Key) -> Batch:
        epoch, ids = key
        good: list[int] = []
        photos, rows, rejected = [], [], []
        captions: list[tuple[int, str, list[str]]] = []  # row, text, tags
        in_order = self.tokenizer is not None and self.tokenizer.config.tag_order == "labels"
        for index in ids.tolist():
            note = self.records[index]
            # A generator for each photo: workers and the order of reading change nothing.
            random = np.random.default_rng([self.seed, epoch, index])
            try:
                photos.append(self._photo(index, note, random))
            except RecordProblem as problem:
                rejected.append((index, problem))
                continue
            rows.append(self.targets.row(index, note))
            if note.captions:
                chosen = note.captions[random.integers(len(note.captions))]
                if text := clean_caption(chosen.text):
                    tags = self.targets.guiding_tags(chosen, in_label_order=in_order)
                    captions.append((len(good), text, tags))
            good.append(index)
        if not good:
            return self._stand_in(rejected)
        stacked = np.stack(photos)
        if self.features is None:
            stacked = self.photo.preprocess.normalise(stacked)
        targets, weights = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        texts = None if self.texts is None else torch.from_numpy(self.texts[good]).float()
        batch = Batch(
            torch.from_numpy(stacked).float(), targets, None if (weights == 1).all() else weights,
            teacher=texts, taught=None if texts is None else (texts != 0).any(1).float(),
            rejected=tuple(rejected),
        )  # fmt: skip
        return self._with_captions(batch, captions) if captions else batch

    def _photo(self, index: int, note: Annotation, random: np.random.Generator) -> Array:
        """Pixels (S, S, 3), or features (T, C)."""
        if self.features is None:
            return self.photo.pixels(note.image, self.records.base(note), random)
        return self.features[index, int(random.random() < self.photo.augment.flip)]

    def _with_captions(self, batch: Batch, captions: list[tuple[int, str, list[str]]]) -> Batch:
        rows, texts, tags = zip(*captions, strict=True)
        batch = replace(batch, caption_rows=torch.tensor(rows), caption_texts=texts)
        if self.tokenizer is None:
            return batch
        pieces, ids = self.tokenizer.encode_captions(texts), self.tokenizer.encode_tags(tags)
        inputs = CaptionInputs(*map(torch.from_numpy, (*ids, pieces.ids, pieces.mask)))
        return replace(batch, captions=inputs, caption_targets=torch.from_numpy(pieces.targets))

    def _stand_in(self, rejected: Sequence[Unreadable]) -> Batch:
        size = self.photo.preprocess.config.size
        shape = (3, size, size) if self.features is None else self.features.shape[2:]
        photos, targets = torch.zeros(1, *shape), torch.zeros(1, len(self.targets.labels))
        return Batch(photos, targets, is_real=False, rejected=tuple(rejected))

    def batches(self, keys: Iterator[Key], *, pins: bool = False) -> Iterator[Batch]:
        """The batch of each key, made by worker processes if there are any."""
        loader = DataLoader(
            self, sampler=keys, batch_size=None, num_workers=self.workers, pin_memory=pins,
            prefetch_factor=4 if self.workers else None,
            multiprocessing_context="fork" if self.workers else None,
        )  # fmt: skip
        return iter(loader)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Each record once an epoch, in an order that only seed and epoch decide.

    A step has `batch` * `accumulation` records a rank; the last step of an epoch has the remaining
    ones, or is dropped with `drop_last`, unless it is the only one.
    """

    ids: Ids  # the records that are trained on
    batch: int  # records a rank and forward pass
    accumulation: int = 1
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world: int = 1

    @property
    def records_a_step(self) -> int:
        """Records of one step on all ranks together."""
        return self.batch * self.accumulation * self.world

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        whole, rest = divmod(len(self.ids), self.records_a_step)
        return whole + (rest > 0 and not (self.drop_last and whole))

    def n_passes(self, step: int) -> int:
        """Forward passes of a step, on each rank."""
        done = step % self.steps_an_epoch * self.records_a_step
        n_records = min(self.records_a_step, len(self.ids) - done)
        return -(-n_records // (self.batch * self.world))

    def keys(self, start: int, end: int) -> Iterator[Key]:
        """The epoch and the records of each pass of this rank, from a step to another."""
        size, order = self.batch * self.world, self.ids
        for step in range(start, end):
            epoch, place = divmod(step, self.steps_an_epoch)
            if step == start or place == 0:
                random = np.random.default_rng([self.seed, epoch])
                order = self.ids[random.permutation(len(self.ids))]
            first = place * self.records_a_step
            for number in range(self.n_passes(step)):
                block = order[first + number * size :][:size]
                yield epoch, block[self.rank :: self.world]  # none on some ranks, at the end


def photo_features(
    records: Records, encoder: ImageEncoder, preprocess: PreprocessConfig, advance: Advance, *,
    flip: bool,
) -> tuple[Half, dict[int, RecordProblem]]:  # fmt: skip
    """The frozen stages' output (N, views, T, C) of all photos and, with `flip`, mirror images.

    Also the numbers of the photos that cannot be read, whose features are NaN, and why.
    """
    encoder.eval()
    device, photo = next(encoder.parameters()).device, TrainingPhoto(preprocess, UNCHANGED)

    def read(index: int) -> NDArray[np.float32] | RecordProblem:
        note = records[index]
        return attempt(photo, note.image, records.base(note), np.random.default_rng(0))

    def encode(photos: NDArray[np.float32]) -> Half:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(photos)).to(device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            return encoder.frozen_features(batch).half().cpu().numpy()

    def compute(block: range) -> Half:
        rows = np.full((len(block), *shape), np.nan, np.float16)
        photos = {row: read(index) for row, index in enumerate(block)}
        good = {row: x for row, x in photos.items() if not isinstance(x, RecordProblem)}
        if good:
            stacked = np.stack(list(good.values()))
            views = (stacked, stacked[..., ::-1]) if flip else (stacked,)
            rows[list(good)] = np.stack([encode(view) for view in views], 1)
        return rows

    shape = (1 + flip, *encode(np.zeros((1, 3, *2 * [preprocess.size]), np.float32)).shape[1:])
    path = records.path.with_suffix(".features")
    features = _computed(path, (len(records), *shape), PHOTOS_AT_ONCE, compute, advance)
    unread = np.flatnonzero(np.isnan(features[:, 0, 0, 0])).tolist()
    reasons = {index: read(index) for index in unread}
    return features, {i: why for i, why in reasons.items() if isinstance(why, RecordProblem)}


def caption_vectors(records: Records, encoder: TextEncoder, advance: Advance) -> Half:
    """The mean vector of each record's captions (N, E); zeros without captions."""

    def compute(block: range) -> NDArray[np.float32]:
        texts = [[caption.text for caption in records[index].captions] for index in block]
        return embed_groups(texts, encoder)

    path, shape = records.path.with_suffix(".captions"), (len(records), encoder.width)
    return _computed(path, shape, CAPTIONED_AT_ONCE, compute, advance)


def _computed(
    path: Path, shape: tuple[int, ...], at_once: int,
    compute: Callable[[range], NDArray[np.floating]], advance: Advance,
) -> Half:  # fmt: skip
    """Rows on disk, mapped; a file that is there, of a resumed run or another process, stays."""
    if not path.is_file():
        with naming(path), path.open("wb") as file:
            for start in range(0, shape[0], at_once):
                raise_if_stopped()
                block = range(start, min(start + at_once, shape[0]))
                file.write(compute(block).astype(np.float16).tobytes())
                advance(len(block))
    return np.memmap(path, np.float16, "r", shape=shape)
