"""The baseline model of the data engine: photos decoded ahead, in batches of one shape.

B photos a batch, S pixels a side, T tokens, C channels of the backbone.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.checkpoints.load import load_model
from ramctl.device import Runtime
from ramctl.errors import RecordProblem
from ramctl.inference.ordered_map import ahead
from ramctl.inference.regions import View
from ramctl.inference.torch_predictor import keep_large_buffers
from ramctl.labels import LabelSystem
from ramctl.model.preprocess import Preprocess
from ramctl.model.ram import Encoded, PreparedLabels
from ramctl.photos.decoding import record_photo
from ramctl.records.inputs import RootCheck
from ramctl.records.record import Record, image_name

Photo = Image.Image
Decoded = tuple[Record, Photo | RecordProblem]


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """Where and how the baseline runs."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    batch: int | None = None  # None: what fits the model
    workers: int = 1  # threads that decode


class Baseline:
    """A loaded model with its labels and its way of looking at photos."""

    def __init__(self, bundle: Bundle, options: BaselineOptions, *, captioning: bool) -> None:
        keep_large_buffers()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        preset = bundle.preset
        self.bundle = bundle
        self.preset = preset
        self.options = options
        self.batch = options.batch or preset.batch_size
        self.preprocess = Preprocess(preset.preprocess)
        self._runtime = Runtime.choose(options.device, options.dtype)
        self.device = self._runtime.device
        self._captioning = captioning
        self._root_check = RootCheck()

    @classmethod
    def load(cls, name: str, options: BaselineOptions, *, captioning: bool = False) -> "Baseline":
        """The baseline in a bundle; its weights are read when they are first needed."""
        return cls(Bundle.open(resolve_model(name)), options, captioning=captioning)

    @property
    def labels(self) -> LabelSystem:
        """The model's label system."""
        return self.bundle.labels

    @cached_property
    def model(self) -> Any:
        """The RAM, in evaluation mode on its device."""
        model = load_model(self.bundle, captioning=self._captioning)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def all_labels(self) -> PreparedLabels:
        """All labels of the model, prepared."""
        with torch.inference_mode():
            prepared: PreparedLabels = self.model.prepare_labels(self.model.labels())
        return prepared

    def precision(self) -> AbstractContextManager[Any]:
        """The context in which the model runs."""
        return self._runtime.precision()

    def decoded(
        self, batches: Iterable[Sequence[Record]], *, whole: bool = False
    ) -> Iterator[list[Decoded]]:
        """Batches of records with their photos, or the problems that they have, in order.

        Photos come at the scale that the model needs, with `whole` at their own. Raises
        RunProblem when no relative name is found: `--root` is missing.
        """
        target = None if whole else self.preset.preprocess.size

        def decode(records: Sequence[Record]) -> list[Decoded]:
            return [(record, _photo(record, target)) for record in records]

        for batch in ahead(decode, batches, self.options.workers):
            for record, photo in batch:
                self._check_root(record, photo)
            yield batch

    def _check_root(self, record: Record, photo: Photo | RecordProblem) -> None:
        problem = photo.code if isinstance(photo, RecordProblem) else None
        if problem in (None, "missing_image"):
            self._root_check.count(image_name(record.fields), exists=problem is None)

    def features(self, photos: Sequence[Photo]) -> Tensor:
        """Features (photos, extra + T, C) of the image encoder.

        The batch is filled up to its full size, so that a photo's features do not depend on how
        many came with it.
        """
        pixels = np.stack([self.preprocess(photo) for photo in photos])
        return torch.cat(
            [
                self._features(pixels[start : start + self.batch])
                for start in range(0, len(pixels), self.batch)
            ]
        )

    def _features(self, pixels: NDArray[np.float32]) -> Tensor:
        n_missing = self.batch - len(pixels)
        padded = np.concatenate([pixels, np.zeros((n_missing, *pixels.shape[1:]), np.float32)])
        photos = torch.from_numpy(padded).to(self.device)
        with torch.inference_mode(), self.precision():
            features = self.model.encoder(photos.contiguous(memory_format=torch.channels_last))
        return features[: len(pixels)].float()

    def encode(self, features: Tensor) -> Encoded:
        """What the decoders see of features."""
        with torch.inference_mode(), self.precision():
            encoded: Encoded = self.model.encode(features)
        return encoded

    def view(self, photo: Photo) -> View:
        """The part of a photo that the model sees."""
        config = self.preset.preprocess
        if config.fit == "squash":
            return View()
        return View.middle_square(photo.width, photo.height, config.crop_share)


def _photo(record: Record, target: int | None) -> Photo | RecordProblem:
    try:
        return record_photo(record, target=target)
    except RecordProblem as problem:
        return problem


@dataclass
class PhotoBatch:
    """Photos with the labels that are looked for in each; features are computed once, if asked."""

    baseline: Baseline
    photos: list[Photo]
    labels: list[list[int]]
    views: list[View] = field(init=False)

    def __post_init__(self) -> None:
        self.views = [self.baseline.view(photo) for photo in self.photos]

    @cached_property
    def features(self) -> Tensor:
        """Features (B, extra + T, C)."""
        return self.baseline.features(self.photos)

    @cached_property
    def distinct(self) -> tuple[PreparedLabels, dict[int, int]]:
        """The labels of all photos, prepared, and the place of each among them."""
        ids = sorted({label for labels in self.labels for label in labels})
        model = self.baseline.model
        with torch.inference_mode():
            rows = model.labels(torch.tensor(ids, dtype=torch.long, device=self.baseline.device))
            prepared = model.prepare_labels(rows)
        return prepared, {label: place for place, label in enumerate(ids)}

    @property
    def grid(self) -> int:
        """Rows, and columns, of the token grid."""
        n_tokens = self.features.shape[1] - int(self.baseline.model.encoder.extra_tokens)
        return math.isqrt(n_tokens)
