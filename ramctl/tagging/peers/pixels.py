"""Photos as a transformers model takes them, by the model's own preprocessing."""

from collections.abc import Sequence
from typing import Any

import torch

from ramctl.model.device import Runtime
from ramctl.tagging.peers.base import Photo

_AT_ONCE = 16


def pixel_values(processor: Any, photos: Sequence[Photo], runtime: Runtime) -> torch.Tensor:
    """The photos, resized and normalised (B, 3, H, W), on the model's device."""
    # The order of the axes cannot be guessed from a photo that is 3 pixels high.
    inputs = processor(images=list(photos), return_tensors="pt", input_data_format="channels_last")
    pixels: torch.Tensor = inputs["pixel_values"]
    return pixels.to(runtime.device)


def usual_batch(runtime: Runtime) -> int:
    """Photos at once: one on a CPU, where more bring nothing to models of this size."""
    return 1 if runtime.device.type == "cpu" else _AT_ONCE
