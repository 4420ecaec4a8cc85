"""The base class of peers: batches, photos and labels as models take them.

B photos, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.transformers_folder import fingerprint
from ramctl.records.parallel import chunks

if TYPE_CHECKING:
    from ramctl.model.device import Runtime

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Scores = NDArray[np.float32]  # (B, L)

GPU_BATCH = 16
TEXTS_AT_ONCE = 64
_MAX_ASPECT = 32  # of a photo: its longer side by its shorter


class Peer(ABC):
    """A tagger of another architecture, opened for a list of labels."""

    kind: ClassVar[str]  # its name in the fingerprint, which state files hold: never to be changed
    threshold: ClassVar[float] = 0.5  # the score above which a label is given by default
    is_closed: ClassVar[bool] = False  # has labels that are fixed by training
    # Deformable attention reads pixels between positions; bf16 has 8 bits for a position.
    needs_fp32: ClassVar[bool] = False
    needs_torch: ClassVar[bool] = True  # else its `runtime` is None: it runs on the CPU

    def __init__(
        self, path: Path, labels: Sequence[str], runtime: "Runtime | None", *, batch: int = 0
    ) -> None:
        self.labels = tuple(labels)  # the columns of the scores
        self.unknown: tuple[str, ...] = ()  # labels that it was not trained on: they score 0
        # A hash of all that the scores depend on.
        self.fingerprint = fingerprint([path], self.kind, labels, runtime and runtime.dtype)
        # On a CPU a larger batch makes models of this size no faster.
        self.batch = batch or (GPU_BATCH if runtime and runtime.device.type != "cpu" else 1)
        self._runtime: Any = runtime

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        """A number in [0, 1] for each photo and label (B, L); the peer defines what it means."""
        rows = [np.empty((0, len(self.labels)), np.float32)]
        return np.concatenate([*rows, *map(self.score_batch, chunks(photos, self.batch))])

    @abstractmethod
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        """Scores of at most `batch` photos."""


def pixel_values(
    processor: Any, photos: Sequence[Pixels], runtime: "Runtime", **inputs: Any
) -> Any:
    """Photos resized and normalised by transformers' processor (B, 3, H, W), on the device."""
    # The order of the axes cannot be guessed from a photo that is 3 pixels high.
    inputs |= {"return_tensors": "pt", "input_data_format": "channels_last"}
    return processor(images=list(photos), **inputs)["pixel_values"].to(runtime.device)


def token_batches(
    tokenizer: Any, template: str, labels: Sequence[str], runtime: "Runtime", **options: Any
) -> Iterator[Any]:
    """The tokens of the labels in the template, 64 labels at a time, on the device."""
    for texts in chunks((template.format(label) for label in labels), TEXTS_AT_ONCE):
        yield tokenizer(texts, return_tensors="pt", **options).to(runtime.device)


def is_strip(photo: Pixels) -> bool:
    """Whether a photo is so thin that resizing one side of it makes a monster of the other."""
    height, width = photo.shape[:2]
    return max(height, width) > _MAX_ASPECT * min(height, width)


def from_cosine(cosines: Any) -> Scores:
    """Cosines as numbers in [0, 1], in the same order."""
    return np.clip((1 + cosines.cpu().numpy()) / 2, 0, 1).astype(np.float32)
