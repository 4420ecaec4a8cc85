"""The data engine's baseline on features that `train --cache` has stored: no photo is decoded.

All else is the engine's own code; the features are those of the command, rounded to fp16.
B photos, T tokens, C channels, L labels.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.clean import Cleaning, CleanOptions
from ramctl.data_engine.region_store import WorkFolder
from ramctl.device import Runtime, set_up_cpu
from ramctl.errors import RecordProblem
from ramctl.inference.label_set import choose_labels
from ramctl.inference.regions import View
from ramctl.inference.torch_engine import TorchEngine
from ramctl.photos.decoding import read_photo
from ramctl.records.files import write_atomic
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import dumps
from ramctl.records.record import Record
from ramctl.training.data.features import KEY_BYTES, FeatureCache, FeatureStore
from ramctl.training.data.targets import Annotation

AT_ONCE = 8


class Kept:
    """Photos' features (T, C) by content, in the plain store of a cache that has them."""

    def __init__(self, cache: Path, shape: tuple[int, int]) -> None:
        folders = [path for path in sorted(cache.glob("*/plain")) if _holds(path, shape)]
        self._stores = [FeatureStore(path, shape) for path in folders]
        if not self._stores:
            raise SystemExit(f"{cache}: no run of `train` kept features here")

    def __call__(self, image: str, base: Path) -> np.ndarray:
        """The features of a photo; SystemExit when no run has kept them."""
        key = hashlib.blake2b(read_photo(image, base), digest_size=KEY_BYTES).digest()
        for store in self._stores:
            row = store.row(key)
            if row is not None:
                return store[row]
        raise SystemExit(f"{image}: no run of `train` kept its features")


def _holds(folder: Path, shape: tuple[int, int]) -> bool:
    """Whether a store's rows are of the shape: those of trained upper stages are of another."""
    rows, keys = ((folder / name).stat().st_size for name in ("features.f16", "keys.bin"))
    return rows // np.dtype(np.float16).itemsize * KEY_BYTES == keys * shape[0] * shape[1]


class KeptBaseline(Baseline):
    """A baseline whose photos are their features."""

    def __init__(self, model: Path, cache: Path) -> None:
        super().__init__(Bundle.open(model), BaselineOptions(threads=1), captioning=False)
        self.batch = AT_ONCE
        grid = self.preset.preprocess.size // 32
        self._kept = Kept(cache, (grid * grid, self.preset.model.encoder.width))

    def decoded(self, batches: Iterable[Sequence[Record]], *, whole: bool = False) -> Iterator[Any]:
        """Batches of records with their features."""
        for batch in batches:
            yield [(record, self._kept(record.fields["image"], record.base)) for record in batch]

    def features(self, photos: Sequence[Any]) -> torch.Tensor:
        """(B, T, C)."""
        return torch.from_numpy(np.stack(photos).astype(np.float32))

    def view(self, photo: Any) -> View:
        """The whole photo: mini sees it squashed."""
        return View()


def detect(records: Path, model: Path, cache: Path, root: Path, work: Path) -> None:
    """`ramctl clean --stage detect --embed pool`."""
    cleaning = Cleaning(CleanOptions(model=f"{model}/", quiet=True))
    source = read_inputs((str(records),), str(root), "clean")
    cleaning.detect(WorkFolder(work), source, KeptBaseline(model, cache))


def predict(records: Path, model: Path, words: Path, cache: Path, out: Path) -> None:
    """`ramctl tag --dense --labels WORDS`; features are computed for the first model that asks."""
    bundle = Bundle.open(model)
    labels = choose_labels(bundle, str(words), None)
    set_up_cpu(1)
    engine = TorchEngine.open(bundle, Runtime.choose(), rows=labels.rows, fold=True)
    config = bundle.preprocess
    features = FeatureCache(cache, engine.model.encoder, config, flip=False)
    read = read_inputs((str(records),), str(records.parent), "tag")
    found = [record for record in read if isinstance(record, Record)]
    photos = [Annotation(r.fields["image"], r.base, (), (), None, ()) for r in found]
    kept = features.fill(photos, _give_up, lambda done: None, lambda message: None)
    names = [label.tag for label in labels.labels]
    lines: list[bytes] = []
    for start in range(0, len(found), AT_ONCE):
        some = [kept.of(index) for index in range(start, min(start + AT_ONCE, len(found)))]
        probabilities = engine.scores(np.stack(some).astype(np.float32)).tolist()
        for record, own in zip(found[start:], probabilities, strict=False):
            first = {} if lines else {"label_names": names}
            lines.append(dumps({"image": record.fields["image"], "dense": own, **first}))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, b"".join(lines))


def _give_up(position: int, problem: RecordProblem) -> None:
    raise SystemExit(f"photo {position + 1}: {problem}")


def scores(rows: Sequence[dict[str, Any]], model: Path, cache: Path, root: Path) -> np.ndarray:
    """Probabilities (N, L) of all of a model's labels, as `ramctl tag --dense`."""
    baseline, out = KeptBaseline(model, cache), []
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        features = baseline.features([baseline._kept(row["image"], root) for row in some])
        out.append(baseline.engine.scores(features))
    return np.concatenate(out)
