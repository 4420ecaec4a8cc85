"""Photos to the input of the image encoder; needs only numpy and Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

Item = TypeVar("Item")
Pixels = Annotated[int, Meta(ge=1, le=8192)]  # of a photo's side, as the model sees it
Deviation = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class PreprocessConfig:
    """How `Preprocess` turns a photo into a tensor."""

    size: Pixels  # both sides, whatever the photo's shape
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[Deviation, Deviation, Deviation]
    # official: as the authors' code; fast: upright, on white, large JPEGs at a reduced scale.
    loader: Literal["fast", "official"] = "fast"


class Preprocess:
    """Resize and normalise: the same in training, tagging and export.

    Source: the authors' inference transform (squash, bilinear, ImageNet mean and std).
    """

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config
        self.mean = np.array(config.mean, np.float32)
        self.std = np.array(config.std, np.float32)

    def __call__(self, photo: Image.Image) -> NDArray[np.float32]:
        """(3, S, S), normalised; an alpha channel is dropped, grey becomes RGB."""
        return self.normalise(self.resize(photo))

    def resize(self, photo: Image.Image) -> NDArray[np.uint8]:
        """The photo's pixels at the model's size (S, S, 3)."""
        photo = photo.convert("RGB")
        size = self.config.size
        # Pillow widens its filters when it shrinks a photo, which avoids aliasing.
        filter_ = Image.Resampling[self.config.interpolation.upper()]
        return np.asarray(photo.resize((size, size), filter_))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., 3, S, S) of pixels (..., S, S, 3)."""
        height, width, channels = pixels.shape[-3:]
        # Photo by photo, each in the processor's cache: a sixth of the time of whole batches.
        scaled = np.empty((*pixels.shape[:-3], channels, height, width), np.float32)
        for index in np.ndindex(pixels.shape[:-3]):
            photo = scaled[index]
            np.divide(np.moveaxis(pixels[index], -1, 0), np.float32(255), out=photo)
            photo -= self.mean[:, None, None]
            photo /= self.std[:, None, None]
        return scaled

    def full_batch(self, photos: Sequence[NDArray[np.uint8]], number: int) -> NDArray[np.float32]:
        """Resized photos (S, S, 3), `number` at most, as the model takes them (number, 3, S, S)."""
        blank = np.zeros((self.config.size, self.config.size, 3), np.uint8)
        return self.normalise(np.stack(padded(photos, number, blank)))


def padded(photos: Sequence[Item], number: int, blank: Item) -> list[Item]:
    """The photos and blank ones after them, `number` in all.

    Libraries choose their kernels by the shape of a batch, and kernels round differently: with
    batches of one shape a photo's scores do not depend on the number of photos beside it.
    """
    return [*photos, *[blank] * (number - len(photos))]
