"""Features of photos and captions by frozen encoders, computed once and kept on disk.

A store of photos is named after what the features depend on (encoder weights, preprocessing,
view); its rows are found by the content of the photo, so that a resumed run goes on with them.
T tokens, C channels, N records, E text width.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import PreprocessConfig
from ramctl.photos.decoding import decode_photo, read_photo
from ramctl.records.files import naming
from ramctl.text.static_table import TextEncoder
from ramctl.training.data.record_file import RecordFile
from ramctl.training.data.targets import Annotation, read_annotation
from ramctl.training.initial import embed_groups

KEY_BYTES = 16
PHOTOS_AT_ONCE = 8  # a larger batch leaves the processor's cache
CAPTIONED_AT_ONCE = 256  # records
Features = NDArray[np.float16]


class FeatureStore:
    """Rows (T, C) of fp16 in a file that only grows; a torn end is cut off on opening."""

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._rows_path, self._keys_path = folder / "features.f16", folder / "keys.bin"
        folder.mkdir(parents=True, exist_ok=True)
        row_bytes = 2 * shape[0] * shape[1]
        with self._rows_path.open("ab") as rows, self._keys_path.open("ab") as stream:
            n_rows = min(rows.tell() // row_bytes, stream.tell() // KEY_BYTES)
            if (rows.tell(), stream.tell()) != (n_rows * row_bytes, n_rows * KEY_BYTES):
                rows.truncate(n_rows * row_bytes)
                stream.truncate(n_rows * KEY_BYTES)
        keys = self._keys_path.read_bytes()
        # The row of each photo's features, by the photo's key.
        self.places = {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(n_rows)}
        self._map: np.memmap | None = None

    def __len__(self) -> int:
        return len(self.places)

    def append(self, keys: Sequence[bytes], features: Features) -> None:
        """Add rows. Keys are written last, so that a crash leaves no key without its row."""
        with naming(self._rows_path), self._rows_path.open("ab") as stream:
            stream.write(np.ascontiguousarray(features, np.float16).tobytes())
        with naming(self._keys_path), self._keys_path.open("ab") as stream:
            stream.write(b"".join(keys))
        for key in keys:
            self.places[key] = len(self)

    def __getitem__(self, row: int) -> Features:
        if self._map is None or len(self._map) != len(self):
            shape = (len(self), *self.shape)
            self._map = np.memmap(self._rows_path, np.float16, "r", shape=shape)
        return self._map[row]


class FeatureCache:
    """Features of photos and, with `flip`, of their mirror images."""

    def __init__(
        self, folder: Path, encoder: ImageEncoder, preprocess: PreprocessConfig, *, flip: bool
    ) -> None:
        self.encoder = encoder
        self.preprocess = Preprocess(preprocess)
        encoder.eval()
        blank = np.zeros((1, 3, preprocess.size, preprocess.size), np.float32)
        shape = self._encode(blank).shape[1:]
        # The name changes with everything that the features depend on, except the photo.
        digest = hashlib.sha256(orjson.dumps(asdict(preprocess)))
        for name, tensor in sorted(encoder.frozen_weights().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        place = folder / digest.hexdigest()[:16]
        views = ("plain", "flipped") if flip else ("plain",)
        self.stores = [FeatureStore(place / view, shape) for view in views]

    def fill(
        self,
        annotations: Iterable[Annotation],
        on_problem: Callable[[int, RecordProblem], None],
        on_done: Callable[[int], None],
    ) -> "CachedFeatures":
        """The features of all photos; those that are missing are computed.

        `on_problem` is called with the position and the reason of each unreadable photo, `on_done`
        with the number of photos done after each batch; it may raise to stop, and nothing is lost.
        """
        keys: list[bytes | None] = []
        waiting: dict[bytes, NDArray[np.float32]] = {}
        config, is_official = self.preprocess.config, self.preprocess.config.loader == "official"
        for position, annotation in enumerate(annotations):
            try:
                content = read_photo(annotation.image, annotation.base)
                key = hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
                if key not in waiting and any(key not in store.places for store in self.stores):
                    photo = decode_photo(content, target=config.size, official=is_official)
                    waiting[key] = self.preprocess(photo)
                keys.append(key)
            except RecordProblem as problem:
                keys.append(None)
                on_problem(position, problem)
            if len(waiting) == PHOTOS_AT_ONCE:
                self._compute(waiting)
            if position % PHOTOS_AT_ONCE == PHOTOS_AT_ONCE - 1:
                on_done(PHOTOS_AT_ONCE)
        self._compute(waiting)
        rows = [[-1 if key is None else store.places[key] for store in self.stores] for key in keys]
        places = np.array(rows, np.int64).reshape(len(keys), len(self.stores))
        return CachedFeatures(self.stores, places)

    def _compute(self, waiting: dict[bytes, NDArray[np.float32]]) -> None:
        for view, store in enumerate(self.stores):
            missing = [key for key in waiting if key not in store.places]
            if missing:
                photos = np.stack([waiting[key] for key in missing])
                store.append(missing, self._encode(photos[..., ::-1] if view else photos))
        waiting.clear()

    def _encode(self, photos: NDArray[np.float32]) -> Features:
        device = next(self.encoder.parameters()).device
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(photos)).to(device)
            batch = batch.contiguous(memory_format=torch.channels_last)
            return self.encoder.frozen_features(batch).half().cpu().numpy()


@dataclass(frozen=True, slots=True)
class CachedFeatures:
    """Features of photos: a store for each view, and rows of them (N, views), -1: rejected."""

    stores: Sequence[FeatureStore]
    rows: NDArray[np.int64]

    def of(self, index: int, view: int = 0) -> Features:
        """(T, C) of a photo that was not rejected."""
        return self.stores[view][int(self.rows[index, view])]


def keep_caption_vectors(
    path: Path, records: RecordFile, encoder: TextEncoder, on_done: Callable[[int], None]
) -> NDArray[np.float16]:
    """The mean vector of each record's captions (N, E), kept in `path`; zeros without captions.

    The file only grows: its rows are not computed again. `on_done` may raise to stop.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row_bytes = 2 * encoder.width
    done = path.stat().st_size // row_bytes if path.is_file() else 0
    with path.open("ab") as stream:
        stream.truncate(done * row_bytes)
    for start in range(done, len(records), CAPTIONED_AT_ONCE):
        block = range(start, min(start + CAPTIONED_AT_ONCE, len(records)))
        captions = [read_annotation(records[index]).captions for index in block]
        vectors = embed_groups([[c.text for c in texts] for texts in captions], encoder)
        with naming(path), path.open("ab") as stream:
            stream.write(vectors.astype(np.float16).tobytes())
        on_done(len(block))
    return np.memmap(path, np.float16, "r", shape=(len(records), encoder.width))
