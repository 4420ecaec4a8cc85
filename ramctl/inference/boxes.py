"""Boxes: heat maps of labels in photos, the boxes around their peaks, the tokens under a box.

B photos, L labels, h heads, T tokens. A box is `(x0, y0, x1, y1)` in fractions
of the photo's width and height.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ramctl.model.preprocess import PreprocessConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ramctl.model.preset import ModelConfig

Floats = NDArray[np.float32]

WHOLE = (0.0, 0.0, 1.0, 1.0)
FINER = 4  # times as many cells a side by interpolation: boxes may end inside a token
# The fraction of a map's range above which a box is drawn: low enough to hold the whole thing.
PEAK_FRACTION, CELL_PEAK_FRACTION = 0.3, 0.6
ENLARGEMENT = 1.75  # of photos whose cells are scored
STRIDE = 32  # pixels a cell


def enlarged(preprocess: PreprocessConfig, model: "ModelConfig") -> PreprocessConfig:
    """How photos are prepared to find boxes in them: larger where the model scores cells."""
    if not model.scores_cells or model.encoder.image_size_option:
        return preprocess
    size = round(preprocess.size * ENLARGEMENT / STRIDE) * STRIDE
    return replace(preprocess, size=max(size, preprocess.size))


def cell_heat(logits: Floats) -> Floats:
    """Heat maps (B, L, rows, columns) of cells' logits (B, L, cells).

    A cell counts with its eight neighbours, as one alone is more often wrong.
    """
    from scipy import ndimage

    side = math.isqrt(logits.shape[-1])
    maps = logits.reshape(*logits.shape[:2], side, side)
    return np.asarray(ndimage.uniform_filter(maps, (0, 0, 3, 3), mode="nearest"), np.float32)


def attention_heat(attention: "Tensor", extra_tokens: int) -> Floats:
    """Heat maps (B, L, rows, columns) of attention (B, layers, h, L, T), its mean over both.

    `extra_tokens` come before the grid of the photo; what comes behind it is left out.
    """
    heat: Floats = attention.float().mean((1, 2))[..., extra_tokens:].cpu().numpy()
    side = math.isqrt(heat.shape[-1])
    return heat[..., : side * side].reshape(*heat.shape[:2], side, side)


def heat_map_box(heat: Floats, *, peak_fraction: float) -> Floats:
    """The box around the connected region of a heat map (rows, columns) that holds its peak.

    The region is where the map, interpolated, is at least `peak_fraction` between its lowest and
    highest value; a flat map gives the whole photo.
    """
    from scipy import ndimage

    fine = ndimage.zoom(heat, FINER, order=1, mode="nearest", grid_mode=True)
    low, high = fine.min(), fine.max()
    if high - low <= 1e-12:
        return np.array(WHOLE, np.float32)
    regions, _ = ndimage.label(fine >= low + peak_fraction * (high - low))
    peak = np.unravel_index(int(fine.argmax()), fine.shape)
    rows, columns = ndimage.find_objects(regions)[regions[peak] - 1]
    corners = [columns.start, rows.start, columns.stop, rows.stop]
    return (np.array(corners) / (fine.shape[::-1] * 2)).astype(np.float32)


def tokens_under(box: Sequence[float] | Floats, rows: int, columns: int) -> Floats:
    """The fraction of each token's cell that lies under the box, row by row, (rows * columns).

    A box that is smaller than a cell still covers a part of one, so that the sum is above zero.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    return np.outer(_cover(y0, y1, rows), _cover(x0, x1, columns)).ravel().astype(np.float32)


def _cover(start: float, end: float, cells: int) -> NDArray[np.float64]:
    """The covered fraction of each of `cells` equal parts of [0, 1]."""
    start = min(max(start, 0.0), 1.0)
    end = max(min(end, 1.0), start)
    edges = np.arange(cells + 1) / cells
    covered = np.minimum(np.diff(np.clip(edges, start, end)) * cells, 1)
    if covered.sum() < 1e-6:
        covered[min(int(start * cells), cells - 1)] = 1.0
    return covered


def crop_pixels(
    box: Sequence[float] | Floats, width: int, height: int
) -> tuple[int, int, int, int]:
    """The box in whole pixels (left, top, right, bottom), at least one pixel each way."""
    size = np.array([width, height])
    corners = np.asarray(box, np.float64).reshape(2, 2) * size
    low = np.clip(np.floor(corners[0]), 0, size - 1)
    high = np.clip(np.ceil(corners[1]), low + 1, size)
    left, top, right, bottom = (int(side) for side in (*low, *high))
    return left, top, right, bottom
