"""Swin's relative-position tables at another window size (224 px to 384 px).

Source: the BEiT recipe that the authors' code means to use (theirs needs a function that scipy has
dropped); near positions keep their spacing, far ones are spread in a geometric progression.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Positions = NDArray[np.float64]

TABLES = "relative_position_bias_table"  # what their names end with


def resize_table(table: Tensor, rows: int) -> Tensor:
    """The table (source rows, heads) as (rows, heads); rows are (2 window - 1)^2."""
    if len(table) == rows:
        return table
    from scipy.interpolate import RectBivariateSpline  # heavy, and needed only here

    source, target = round(len(table) ** 0.5), round(rows**0.5)
    positions = _source_positions(source, target)
    wanted = np.arange(target) - target // 2
    heads = table.double().t().reshape(-1, source, source).numpy()
    resized = [RectBivariateSpline(positions, positions, head)(wanted, wanted) for head in heads]
    stacked = torch.from_numpy(np.stack(resized)).reshape(len(heads), rows)
    return stacked.t().contiguous().to(table.dtype)


def _source_positions(source: int, target: int) -> Positions:
    """Where the source's entries stand on the target's integer grid, symmetric around 0."""
    half, reach = source // 2, target // 2
    low, high = 1.01, 1.5  # BEiT's bounds of the ratio
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**half) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum(ratio ** np.arange(half))
    return np.concatenate([-steps[::-1], [0.0], steps])
