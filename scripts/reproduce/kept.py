"""`ramctl tag --dense` on features that `train --cache` stores: one decoding for all models."""

from pathlib import Path

import numpy as np

from ramctl.checkpoints.bundle import Bundle
from ramctl.decide.thresholds import choose_labels
from ramctl.device import Runtime, set_up_cpu
from ramctl.engine.torch_engine import TorchEngine
from ramctl.errors import RecordProblem
from ramctl.records.files import write_atomic
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import dumps
from ramctl.records.record import Record
from ramctl.training.data.features import FeatureCache
from ramctl.training.data.targets import Annotation

AT_ONCE = 8


def predict(
    records: Path, model: Path, words: Path | None, cache: Path, out: Path, *,
    root: Path | None = None, least: float | None = None,
) -> None:  # fmt: skip
    """`ramctl tag --dense --labels WORDS`; features are computed for the first model that asks.

    With `least` the scores above it, by label, as `ramctl tag --threshold LEAST` prints them.
    """
    bundle = Bundle.open(model)
    labels = choose_labels(bundle, str(words) if words else None, None)
    set_up_cpu(1)
    engine = TorchEngine.open(bundle, Runtime.choose(), rows=labels.rows, fold=True)
    config = bundle.preprocess
    features = FeatureCache(cache, engine.model.encoder, config, flip=False)
    read = read_inputs((str(records),), str(root or records.parent), "tag")
    found = [record for record in read if isinstance(record, Record)]
    photos = [Annotation(r.fields["image"], r.base, (), (), None, ()) for r in found]
    kept = features.fill(photos, _give_up, lambda done: None, lambda message: None)
    names = [label.tag for label in labels.labels]
    lines: list[bytes] = []
    for start in range(0, len(found), AT_ONCE):
        some = [kept.of(index) for index in range(start, min(start + AT_ONCE, len(found)))]
        probabilities = engine.scores(np.stack(some).astype(np.float32))
        for record, own in zip(found[start:], probabilities, strict=False):
            if least is None:
                first = {} if lines else {"label_names": names}
                row = {"dense": own.tolist(), **first}
            else:
                above = np.flatnonzero(own > least).tolist()
                row = {"scores": {names[i]: round(float(own[i]), 4) for i in above}}
            lines.append(dumps({"image": record.fields["image"], **row}))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, b"".join(lines))


def _give_up(position: int, problem: RecordProblem) -> None:
    raise SystemExit(f"photo {position + 1}: {problem}")
