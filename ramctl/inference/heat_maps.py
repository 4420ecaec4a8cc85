"""Where the model looked for each label: the tag decoder's cross-attention as boxes.

B photos, L labels, h heads, T tokens.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ramctl.inference.regions import Floats, View, heat_map_box


def heat_maps(attention: Tensor, extra_tokens: int) -> NDArray[np.float32]:
    """Heat maps (B, L, rows, columns) of attention (B, layers, h, L, T), its mean over both.

    `extra_tokens` come before the grid of the photo; what comes behind it is left out. On planted
    errors regions of all layers told wrong tags from right ones better than those of the last one.
    """
    heat = attention.float().mean((1, 2))[..., extra_tokens:]
    side = math.isqrt(heat.shape[-1])
    grid: NDArray[np.float32] = (
        heat[..., : side * side].reshape(*heat.shape[:2], side, side).cpu().numpy()
    )
    return grid


def label_boxes(maps: NDArray[np.float32], view: View) -> Sequence[Floats]:
    """The box of the photo for each heat map (L, rows, columns) of what the model saw of it."""
    return [view.to_photo(heat_map_box(heat)) for heat in maps]
