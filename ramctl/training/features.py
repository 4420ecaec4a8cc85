"""The output of frozen encoders for photos and captions, computed once a run and kept on disk.

N records, T tokens, C channels, E text width.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.static_table import TextEncoder
from ramctl.errors import RecordProblem, attempt
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import PreprocessConfig
from ramctl.records.files import naming
from ramctl.records.signals import raise_if_stopped
from ramctl.training.annotations import Records
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.start import embed_groups

PHOTOS_AT_ONCE = 8  # a larger batch leaves the processor's cache
CAPTIONED_AT_ONCE = 256  # records
Half = NDArray[np.float16]
Advance = Callable[[int], object]


def photo_features(
    records: Records, encoder: ImageEncoder, preprocess: PreprocessConfig, advance: Advance, *,
    flip: bool,
) -> tuple[Half, dict[int, RecordProblem]]:  # fmt: skip
    """The frozen stages' output (N, views, T, C) of all photos and, with `flip`, mirror images.

    Also the numbers of the photos that cannot be read, whose features are NaN, and why.
    """
    encoder.eval()
    device, photo = next(encoder.parameters()).device, TrainingPhoto(preprocess, UNCHANGED)

    def read(index: int) -> NDArray[np.float32] | RecordProblem:
        note = records[index]
        return attempt(photo, note.image, records.base(note), np.random.default_rng(0))

    def encode(photos: NDArray[np.float32]) -> Half:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(photos)).to(device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            return encoder.frozen_features(batch).half().cpu().numpy()

    def compute(block: range) -> Half:
        rows = np.full((len(block), *shape), np.nan, np.float16)
        found = {row: photo for row, index in enumerate(block)
                 if not isinstance(photo := read(index), RecordProblem)}  # fmt: skip
        if found:
            stacked = np.stack(list(found.values()))
            views = (stacked, stacked[..., ::-1]) if flip else (stacked,)
            rows[list(found)] = np.stack([encode(view) for view in views], 1)
        return rows

    shape = (1 + flip, *encode(np.zeros((1, 3, *2 * [preprocess.size]), np.float32)).shape[1:])
    path = records.path.with_suffix(".f16")
    features = _filled(path, len(records), shape, PHOTOS_AT_ONCE, compute, advance)
    unread = np.flatnonzero(np.isnan(features[:, 0, 0, 0])).tolist()
    reasons = {index: read(index) for index in unread}
    return features, {i: why for i, why in reasons.items() if isinstance(why, RecordProblem)}


def caption_vectors(path: Path, records: Records, encoder: TextEncoder, advance: Advance) -> Half:
    """The mean vector of each record's captions (N, E); zeros without captions."""

    def compute(block: range) -> NDArray[np.float32]:
        texts = [[caption.text for caption in records[index].captions] for index in block]
        return embed_groups(texts, encoder)

    return _filled(path, len(records), (encoder.width,), CAPTIONED_AT_ONCE, compute, advance)


def _filled(
    path: Path, n_rows: int, shape: tuple[int, ...], at_once: int,
    compute: Callable[[range], NDArray[np.floating]], advance: Advance,
) -> Half:  # fmt: skip
    """Rows (n_rows, *shape) in a file, computed in order; those in the file already are kept."""
    row_bytes = 2 * math.prod(shape)
    with naming(path), path.open("ab") as file:
        n_done = file.tell() // row_bytes
        file.truncate(n_done * row_bytes)
        advance(n_done)
        for start in range(n_done, n_rows, at_once):
            raise_if_stopped()
            block = range(start, min(start + at_once, n_rows))
            file.write(compute(block).astype(np.float16).tobytes())
            advance(len(block))
    return np.memmap(path, np.float16, "r", shape=(n_rows, *shape))
