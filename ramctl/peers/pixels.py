"""Photos as a transformers model takes them, by the model's own preprocessing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ramctl.device import Runtime
from ramctl.peers.base import Photo

_AT_ONCE = 16
_LONGEST, _THINNEST = 16, 32


def pixel_values(processor: Any, photos: Sequence[Photo], runtime: Runtime) -> torch.Tensor:
    """The photos, resized and normalised (B, 3, H, W), on the model's device."""
    # The order of the axes cannot be guessed from a photo that is 3 pixels high.
    inputs = processor(images=list(photos), return_tensors="pt", input_data_format="channels_last")
    pixels: torch.Tensor = inputs["pixel_values"]
    return pixels.to(runtime.device)


def middle(photo: Photo) -> Photo:
    """The middle of a photo that is more than 16 times as long as wide, else the photo.

    For models that see the middle square only: brought to their size whole, a photo of
    2000 x 3 pixels would be 150,000 wide.
    """
    height, width = photo.shape[:2]
    longest = _LONGEST * min(height, width)
    top, left = max(height - longest, 0) // 2, max(width - longest, 0) // 2
    return photo[top : top + longest, left : left + longest]


def thicken(photo: Photo) -> Photo:
    """A photo that is more than 32 times as long as wide with its lines repeated, else the photo.

    For models that see the whole photo in its own shape: with its longer side brought to their
    limit, nothing would be left of the shorter. Boxes in shares stay what they are.
    """
    for axis in (0, 1):
        times = -(-photo.shape[1 - axis] // (_THINNEST * photo.shape[axis]))
        if times > 1:
            photo = np.repeat(photo, times, axis=axis)
    return photo


def usual_batch(runtime: Runtime) -> int:
    """Photos at once: one on a CPU, where more bring nothing to models of this size."""
    return 1 if runtime.device.type == "cpu" else _AT_ONCE
