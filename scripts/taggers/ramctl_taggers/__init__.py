"""Systems of the paper's tables behind `ramctl tag --model`: examples of other taggers."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from ramctl.inference.peers.peer import Pixels
from ramctl.model.device import Runtime


def transformed(transform: Any, photos: Sequence[Pixels], runtime: Runtime) -> torch.Tensor:
    """Photos resized and normalised by timm's transform (B, 3, H, W), on the device."""
    return torch.stack([transform(Image.fromarray(photo)) for photo in photos]).to(runtime.device)
