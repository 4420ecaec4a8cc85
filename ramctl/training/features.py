"""Feature maps of a frozen image encoder, computed once a photo and kept on disk.

A store is keyed by what the features depend on (encoder weights, preprocessing, view), its rows by
the content of the photo, so that runs over the same photos share it. T tokens, C channels.
"""

import copy
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from ramctl.errors import RecordProblem, RunProblem
from ramctl.model.config import PreprocessConfig
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import decode_photo, read_photo
from ramctl.training.annotations import Annotation

KEY_BYTES = 16
PHOTOS_AT_ONCE = 8  # a larger batch leaves the processor's cache
Features = NDArray[np.float16]


class FeatureStore:
    """Rows (T, C) of fp16 in a file that only grows; a torn end is cut off when it is opened."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._rows_path, self._keys_path = folder / "features.f16", folder / "keys.bin"
        self._row_bytes = 2 * shape[0] * shape[1]
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self._rows_path, self._keys_path):
            path.touch()
        self._map: np.memmap | None = None
        self._read_keys()

    def _read_keys(self) -> None:
        keys = self._keys_path.read_bytes()
        whole = min(len(keys) // KEY_BYTES, self._rows_path.stat().st_size // self._row_bytes)
        self._places = {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(whole)}
        self._count = whole

    def __len__(self) -> int:
        return self._count

    def row(self, key: bytes) -> int | None:
        """Where the features of a photo are; None when they are not there."""
        return self._places.get(key)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store for writing, what others added in it; RunProblem when one still does."""
        with self._keys_path.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunProblem(f"{self._keys_path}: another run is filling it") from error
            self._read_keys()
            os.truncate(self._rows_path, self._count * self._row_bytes)
            os.truncate(self._keys_path, self._count * KEY_BYTES)
            yield

    def append(self, keys: Sequence[bytes], features: Features) -> None:
        """Add rows; their keys are written after them."""
        with self._rows_path.open("ab") as stream:
            stream.write(np.ascontiguousarray(features, np.float16).tobytes())
        with self._keys_path.open("ab") as stream:
            stream.write(b"".join(keys))
        for key in keys:
            self._places[key] = self._count
            self._count += 1
        self._map = None

    def __getitem__(self, row: int) -> Features:
        if self._map is None or len(self._map) != self._count:
            self._map = np.memmap(
                self._rows_path, np.float16, "r", shape=(self._count, *self.shape)
            )
        features: Features = self._map[row]
        return features


def store_name(encoder: ImageEncoder, preprocess: PreprocessConfig) -> str:
    """A name that changes with anything the features depend on but the photo."""
    digest = hashlib.sha256(orjson.dumps(asdict(preprocess)))
    for name, tensor in sorted(encoder.frozen_weights().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class FeatureCache:
    """Features of photos and, with `flip`, of their mirror images."""

    def __init__(
        self, folder: Path, encoder: ImageEncoder, preprocess: PreprocessConfig, *, flip: bool
    ) -> None:
        self.encoder = encoder
        self.preprocess = Preprocess(preprocess)
        shape = _feature_shape(encoder, preprocess.size)
        place = folder / store_name(encoder, preprocess)
        views = ("plain", "flipped") if flip else ("plain",)
        self.stores = [FeatureStore(place / view, shape) for view in views]

    def fill(
        self,
        annotations: Iterable[Annotation],
        on_problem: Callable[[int, RecordProblem], None],
        on_done: Callable[[int], None],
    ) -> NDArray[np.int64]:
        """Compute what is missing; the row of each photo in each store (N, views), -1: rejected.

        `on_problem` gets the position and the reason of photos that cannot be read, `on_done` is
        told the number of photos done, after each batch; it may raise to stop, nothing is lost.
        The stores are held for writing from the first photo that they lack, so that runs that lack
        none share them.
        """
        keys: list[bytes | None] = []
        waiting: dict[bytes, NDArray[np.float32]] = {}
        with ExitStack() as held:
            is_held = False
            for position, annotation in enumerate(annotations):
                try:
                    content = read_photo(annotation.image, annotation.base)
                    key = hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
                    if self._is_missing(key) and not is_held:
                        self._hold(held)
                        is_held = True
                    if self._is_missing(key) and key not in waiting:
                        waiting[key] = self._prepare(content)
                    keys.append(key)
                except RecordProblem as problem:
                    keys.append(None)
                    on_problem(position, problem)
                if len(waiting) == PHOTOS_AT_ONCE:
                    self._compute(waiting)
                if position % PHOTOS_AT_ONCE == PHOTOS_AT_ONCE - 1:
                    on_done(PHOTOS_AT_ONCE)
            self._compute(waiting)
        rows = [[-1 if key is None else store.row(key) for store in self.stores] for key in keys]
        return np.array(rows, np.int64).reshape(len(keys), len(self.stores))

    def __getitem__(self, place: tuple[int, int]) -> Features:
        """(T, C) of a row in the store of a view."""
        row, view = place
        return self.stores[view][row]

    def without_flip(self) -> "FeatureCache":
        """The same store of plain views alone: validation has no use for the others."""
        plain = copy.copy(self)
        plain.stores = self.stores[:1]
        return plain

    def _hold(self, held: ExitStack) -> None:
        for store in self.stores:
            held.enter_context(store.filling())

    def _is_missing(self, key: bytes) -> bool:
        return any(store.row(key) is None for store in self.stores)

    def _prepare(self, content: bytes) -> NDArray[np.float32]:
        return self.preprocess(decode_photo(content, target=self.preprocess.config.size))

    def _compute(self, waiting: dict[bytes, NDArray[np.float32]]) -> None:
        for view, store in enumerate(self.stores):
            missing = [key for key in waiting if store.row(key) is None]
            if missing:
                photos = np.stack([waiting[key] for key in missing])
                store.append(missing, self._encode(photos[..., ::-1] if view else photos))
        waiting.clear()

    def _encode(self, photos: NDArray[np.float32]) -> Features:
        device = next(self.encoder.parameters()).device
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(photos)).to(device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            features: Features = self.encoder.frozen_features(batch).half().cpu().numpy()
        return features


def _feature_shape(encoder: ImageEncoder, size: int) -> tuple[int, int]:
    encoder.eval()
    parameter = next(encoder.parameters())
    with torch.inference_mode():
        tokens = encoder.frozen_features(torch.zeros(1, 3, size, size, device=parameter.device))
    return tokens.shape[1], tokens.shape[2]
