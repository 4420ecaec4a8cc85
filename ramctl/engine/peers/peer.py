"""The base class of peers: batches of a fixed shape, photos as models take them.

B photos, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ramctl.model.preprocess import padded
from ramctl.pretrained.transformers_folder import fingerprint
from ramctl.records.parallel import chunks

if TYPE_CHECKING:
    from ramctl.device import Runtime

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Scores = NDArray[np.float32]  # (B, L)

GPU_BATCH = 16
TEXTS_AT_ONCE = 64
# The longest photo that is taken as it is, in multiples of its shorter side.
_MAX_ASPECT_CROPPED, _MAX_ASPECT_WHOLE = 16, 32
_BLANK: Pixels = np.zeros((32, 32, 3), np.uint8)


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
        for batch in chunks(photos, self.batch):
            rows.append(self.score_batch(padded(batch, self.batch, _BLANK))[: len(batch)])
        return np.concatenate(rows)

    @abstractmethod
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        """Scores of exactly `batch` photos."""


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


def crop_strip(photo: Pixels) -> Pixels:
    """The middle of a photo more than 16 times as long as wide; any other photo as it is.

    For models that see the middle only: resized whole, 2000 x 3 pixels would be 150,000 wide.
    """
    height, width = photo.shape[:2]
    longest = _MAX_ASPECT_CROPPED * min(height, width)
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    return photo[top : top + longest, left : left + longest]


def widen_strip(photo: Pixels) -> Pixels:
    """A photo more than 32 times as long as wide with its lines repeated; others as they are.

    For models that limit the longer side, which would leave nothing of the shorter. Boxes as
    fractions of the sides stay the same.
    """
    for axis in (0, 1):
        times = -(-photo.shape[1 - axis] // (_MAX_ASPECT_WHOLE * photo.shape[axis]))
        if times > 1:
            photo = np.repeat(photo, times, axis=axis)
    return photo


def from_cosine(cosines: Any) -> Scores:
    """Cosines as numbers in [0, 1], in the same order."""
    return np.clip((1 + cosines.cpu().numpy()) / 2, 0, 1).astype(np.float32)
