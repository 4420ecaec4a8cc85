"""The baseline model of the data engine, and the photos that it looks at.

B photos a batch, T tokens, C channels of the backbone.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from PIL import Image
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.device import Runtime, set_up_cpu, usual_threads
from ramctl.errors import RecordProblem, attempt
from ramctl.inference.torch_engine import TorchEngine
from ramctl.model.preprocess import Preprocess
from ramctl.model.ram import PreparedLabels
from ramctl.photos.decoding import record_photo
from ramctl.records.inputs import RootCheck
from ramctl.records.parallel import chunks, ordered_map
from ramctl.records.record import Record

Photo = Image.Image
Decoded = tuple[Record, Photo] | RecordProblem


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """Where and how the baseline runs."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None  # of the model on a CPU; None: as many as torch takes
    batch: int | None = None  # records; None: what fits the model
    workers: int = 1  # threads that decode


class Baseline:
    """A bundle's model for the data engine; its weights are read when they are first needed.

    Sums of more threads, or of batches of another shape, are rounded in another way. On a CPU the
    model therefore runs in one thread on batches of one shape, several of them side by side.
    """

    def __init__(self, bundle: Bundle, options: BaselineOptions, *, captioning: bool) -> None:
        self.bundle = bundle
        self.labels = bundle.labels
        self.preset = preset = bundle.preset
        self.options = options
        self.batch = options.batch or preset.batch_size
        self.preprocess = Preprocess(preset.preprocess)
        self.runtime = Runtime.choose(options.device, options.dtype)
        on_cpu = self.runtime.device.type == "cpu"
        self.at_once = preset.batch_size if on_cpu else self.batch  # photos
        self.side_by_side = (options.threads or usual_threads()) if on_cpu else 1  # batches
        set_up_cpu(1 if on_cpu else options.threads)
        self.say: Callable[[str], None] = lambda message: None  # told what the user should know
        self._captioning = captioning
        self._loading = threading.Lock()
        self._engine: TorchEngine | None = None
        self._root_check = RootCheck()

    @classmethod
    def load(cls, name: str, options: BaselineOptions, *, captioning: bool = False) -> "Baseline":
        """The baseline in a bundle."""
        return cls(Bundle.open(resolve_model(name)), options, captioning=captioning)

    @property
    def engine(self) -> TorchEngine:
        """What runs the model."""
        with self._loading:
            if self._engine is None:
                self._engine = TorchEngine.open(
                    self.bundle, self.runtime, captioning=self._captioning, say=self.say
                )
            return self._engine

    def run_alone(self) -> None:
        """Give all threads of a CPU to one batch, beside which there is no memory for another."""
        if self.runtime.device.type == "cpu":
            set_up_cpu(self.side_by_side)
            self.side_by_side = 1

    def decoded(
        self, batches: Iterable[Sequence[Record]], *, whole: bool = False
    ) -> Iterator[list[Decoded]]:
        """Batches of records with their photos, or the problem in place of one without, in order.

        Photos may be decoded at a reduced scale, unless they are wanted `whole`. Raises RunProblem
        when no relative photo name exists, which means that `--root` is missing.
        """
        for batch in ordered_map(partial(self.decode, whole=whole), batches, self.options.workers):
            yield list(map(self._root_check.notice, *batch))

    def decode(
        self, records: Sequence[Record], *, whole: bool = False
    ) -> tuple[Sequence[Record], list[Decoded]]:
        """The records, and each with its photo or the problem in place of one."""
        target = None if whole else self.preset.preprocess.size

        def decode_one(record: Record) -> tuple[Record, Photo]:
            return record, record_photo(record, target=target)

        return records, [attempt(decode_one, record) for record in records]

    def features(self, photos: Sequence[Photo]) -> Tensor:
        """Features (B, extra + T, C) of any number of photos, in full batches."""
        parts = []
        for some in chunks(photos, self.at_once):
            resized = [self.preprocess.resize(photo) for photo in some]
            features = self.engine.features(self.preprocess.full_batch(resized, self.at_once))
            parts.append(features[: len(some)])
        return torch.cat(parts)


@dataclass
class SeenPhoto:
    """A photo with its features, and the labels to look for in it.

    Regions are found and scored photo by photo, so that nothing depends on a photo's neighbours.
    """

    baseline: Baseline
    photo: Photo
    labels: Sequence[int]
    features: Tensor  # (1, extra + T, C)

    @cached_property
    def prepared(self) -> PreparedLabels:
        """The labels, each once, in order of their ids."""
        return self.baseline.engine.labels_of(self._distinct)

    def places(self, labels: Iterable[int]) -> list[int]:
        """Where some of the labels are in `prepared`."""
        return [self._distinct.index(label) for label in labels]

    @cached_property
    def _distinct(self) -> list[int]:
        return sorted(set(self.labels))

    @property
    def grid(self) -> int:
        """Rows, and columns, of the token grid."""
        return math.isqrt(self.features.shape[1] - self.baseline.engine.model.encoder.extra_tokens)
