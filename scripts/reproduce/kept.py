#!/usr/bin/env python3
"""Commands of ramctl on the features that `train --cache` stores: one decoding for all models.

    kept.py CACHE train|finetune|generate|clean ...     as `ramctl` with the same words

`generate` and `clean` take a photo's features from CACHE. `train` and `finetune` leave out what
only tagging needs: the graph, and what is measured on 5,000 training photos. Labels come from the
static table, so that no figure depends on what else is installed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.data_engine import additions, cleaning
from ramctl.data_engine.baseline import Baseline
from ramctl.decide.thresholds import choose_labels
from ramctl.device import Runtime, set_up_cpu
from ramctl.engine.torch_engine import TorchEngine
from ramctl.errors import RecordProblem
from ramctl.model.preprocess import padded
from ramctl.pretrained import packages
from ramctl.records.files import write_atomic
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import chunks
from ramctl.records.record import Record
from ramctl.training import publish
from ramctl.training.data.features import CachedFeatures, FeatureCache
from ramctl.training.data.targets import Annotation

AT_ONCE = 8
FEW = 50  # training photos, for figures that mAP does not depend on
Features = NDArray[Any]  # (T, C) of a photo


class KeptBaseline(Baseline):
    """A baseline to which a photo is its kept features."""

    cache: Path

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept = FeatureCache(
            self.cache, self.engine.model.encoder, self.bundle.preprocess, flip=False
        )
        self.preprocess = self  # type: ignore[assignment]

    def decode(self, record: Record, *, whole: bool = False) -> Features:  # type: ignore[override]
        return filled(self._kept, [record]).of(0)

    def resize(self, photo: Features) -> Features:
        """The features as they are, where a photo would be resized."""
        return photo

    def full_batches(self, photos: Sequence[Features]) -> list[Features]:
        batches = (padded(batch, self.at_once, batch[0]) for batch in chunks(photos, self.at_once))
        return [np.stack(batch).astype(np.float32) for batch in batches]

    def features(self, photos: Sequence[Features]) -> torch.Tensor:  # type: ignore[override]
        return torch.from_numpy(np.stack(photos).astype(np.float32))


def filled(cache: FeatureCache, records: Sequence[Record]) -> CachedFeatures:
    """The features of records' photos, computed where they are missing."""
    photos = [Annotation(r.fields["image"], r.base, (), (), None, ()) for r in records]
    return cache.fill(photos, _give_up, lambda done: None, lambda message: None)


def predict(records: Path, root: Path, model: Path, words: Path, cache: Path, out: Path) -> None:
    """`ramctl tag --dense --labels WORDS`."""
    bundle = Bundle.open(model)
    labels = choose_labels(bundle, str(words), None)
    set_up_cpu(1)
    engine = TorchEngine.open(bundle, Runtime.choose(), rows=labels.rows)
    read = read_inputs((str(records),), str(root), "tag")
    found = [record for record in read if isinstance(record, Record)]
    kept = filled(FeatureCache(cache, engine.model.encoder, bundle.preprocess, flip=False), found)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, b"".join(_lines(engine, kept, found, [x.tag for x in labels.labels])))


def _lines(
    engine: TorchEngine, kept: CachedFeatures, records: Sequence[Record], names: Sequence[str]
) -> Iterator[bytes]:
    first: dict[str, Any] = {"label_names": names}
    for batch in chunks(enumerate(records), AT_ONCE):
        probabilities = engine.scores(np.stack([kept.of(i) for i, _ in batch]).astype(np.float32))
        for (_, record), own in zip(batch, probabilities, strict=True):
            yield dumps({"image": record.fields["image"], "dense": own.tolist(), **first})
            first = {}


def _give_up(position: int, problem: RecordProblem) -> None:
    raise SystemExit(f"photo {position + 1}: {problem}")


def main() -> None:
    """Run a command of ramctl."""
    from ramctl.cli import main as ramctl

    if len(sys.argv) < 3:
        sys.exit(__doc__)
    KeptBaseline.cache = Path(sys.argv.pop(1))
    for module, names in (
        (additions, {"Baseline": KeptBaseline}),
        (cleaning, {"Baseline": KeptBaseline}),
        (packages, {"SENTENCE_ENCODER": "not_installed"}),
        (publish, {"MAX_PHOTOS": FEW, "SCALE_PHOTOS": FEW, "find_spec": lambda name: None}),
    ):
        patch.multiple(module, **names).start()  # AttributeError for a name that is gone
    ramctl()


if __name__ == "__main__":
    main()
