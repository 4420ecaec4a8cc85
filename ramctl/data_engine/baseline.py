"""The baseline model of the data engine, and the photos that it looks at.

T tokens, C channels of the backbone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from PIL import Image
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.device import set_up_cpu, usual_threads
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.model.ram import PreparedLabels
from ramctl.photos.decoding import record_photo
from ramctl.records.record import Record


@dataclass(frozen=True, slots=True)
class BaselineOptions(RunnerOptions):
    """Where and how the baseline runs."""

    workers: int = 1


class Baseline(ModelRunner):
    """A bundle's model in torch for the data engine, with the weights as they were trained.

    On a CPU it runs in one thread, on several batches side by side.
    """

    def __init__(self, bundle: Bundle, options: BaselineOptions, *, captioning: bool) -> None:
        super().__init__(bundle, options, captions=captioning, fold=False)
        self.labels = bundle.labels
        if self.runtime.device.type == "cpu":
            self.side_by_side = options.threads or usual_threads()
            self.model_threads = 1

    @classmethod
    def load(cls, name: str, options: BaselineOptions, *, captioning: bool = False) -> "Baseline":
        """The baseline in a bundle."""
        return cls(Bundle.open(resolve_model(name)), options, captioning=captioning)

    def run_alone(self) -> None:
        """Give all threads of a CPU to one batch, beside which there is no memory for another."""
        if self.runtime.device.type == "cpu":
            self.model_threads, self.side_by_side = self.side_by_side, 1
            set_up_cpu(self.model_threads)

    def decode(self, record: Record, *, whole: bool = False) -> Image.Image:
        """The photo of a record, which may be decoded at a reduced scale, unless it is `whole`."""
        return record_photo(record, None if whole else self.target)


@dataclass
class PhotoView:
    """A photo with its features, and the labels to look for in it.

    Regions are found and scored photo by photo, so that nothing depends on a photo's neighbours.
    """

    baseline: Baseline
    photo: Image.Image
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
