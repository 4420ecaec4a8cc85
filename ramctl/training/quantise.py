"""A bundle's int8 graph: ranges from training photos, thresholds and verdict from held-out ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    INT8_GRAPH,
    INT8_THRESHOLDS,
    WEIGHTS,
    Bundle,
    BundleWriter,
    write_meta,
)
from ramctl.checkpoints.int8 import export_int8_graph
from ramctl.checkpoints.load import load_model
from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN
from ramctl.inference.scorers import BundleScorer
from ramctl.model.config import PreprocessConfig
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import record_photo
from ramctl.photos.finding import PhotoInputs, read_photo_inputs
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record
from ramctl.tagging.tagger import TaggerOptions
from ramctl.training.annotations import Targets, read_annotation
from ramctl.training.validation import Scored

CALIBRATION_PHOTOS = 128
CALIBRATION_BATCH = 4
MOST_LOST = 0.003  # mAP; a graph that loses less becomes the default
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """mAP on the held-out photos of both graphs, and whether int8 is the default now."""

    fp32: float
    int8: float
    photos: int

    @property
    def passes(self) -> bool:
        """Whether it loses less than a default may."""
        return self.fp32 - self.int8 < MOST_LOST


def add_int8_graph(
    bundle: Bundle, calibration: str, validation: str | None, root: str | None, out: Path | None
) -> tuple[Bundle, Verdict | None]:
    """The bundle with `model.int8.onnx`, in place or at `out`.

    `calibration` names photos (as `tag` reads them); 128 of them, evenly spread, give the ranges.
    With `validation`, records with `tags`, thresholds are picked for this graph and the bundle
    names the default number format; without it both stay. Raises RunProblem.
    """
    preset = bundle.preset
    photos = list(_calibration_photos(preset.preprocess, calibration, root))
    if not photos:
        raise RunProblem(f"{calibration}: none of its photos can be read")
    model = load_model(bundle, captioning=False)
    target = bundle.path if out is None else out
    verdict = None
    with BundleWriter(target) as writer:
        writer.link_files(bundle, without={INT8_GRAPH, INT8_THRESHOLDS})
        writer.meta.pop("dtype", None)
        export_int8_graph(
            model, preset.preprocess.size, writer.path / INT8_GRAPH,
            _batches(photos, Preprocess(preset.preprocess)), weights=writer.path / WEIGHTS,
        )  # fmt: skip
        if validation is not None:
            verdict = _judge(writer, validation, root)
    return Bundle.open(target), verdict


def _calibration_photos(
    config: PreprocessConfig, name: str, root: str | None
) -> Iterator[NDArray[np.uint8]]:
    preprocess = Preprocess(config)
    inputs = PhotoInputs([name], root, recursive=True, stage="convert")
    records = [item for item in read_photo_inputs(inputs) if isinstance(item, Record)]
    for record in records[:: max(1, len(records) // CALIBRATION_PHOTOS)][:CALIBRATION_PHOTOS]:
        try:
            yield preprocess.resize(record_photo(record, target=config.size))
        except RecordProblem:
            continue


def _batches(
    photos: Sequence[NDArray[np.uint8]], preprocess: Preprocess
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(photos), CALIBRATION_BATCH):
        yield preprocess.normalise(np.stack(photos[start : start + CALIBRATION_BATCH]))


def _judge(writer: BundleWriter, validation: str, root: str | None) -> Verdict:
    """Score the held-out photos by both graphs; thresholds and verdict go into the bundle."""
    write_meta(writer.path, writer.meta)
    fp32, int8 = (_score(Bundle.open(writer.path), validation, root, d) for d in ("fp32", "int8"))
    before, after = fp32.mean_average_precision(), int8.mean_average_precision()
    verdict = Verdict(before, after, len(fp32.scores))
    lines = [f"{round(float(value), DIGITS)}\n" for value in int8.thresholds()[0]]
    (writer.path / INT8_THRESHOLDS).write_text("".join(lines), encoding="utf-8")
    writer.meta["dtype"] = "int8" if verdict.passes else "fp32"
    measured = {"validation": validation, "photos": verdict.photos}
    measured |= {"mAP_fp32": round(before, DIGITS), "mAP_int8": round(after, DIGITS)}
    writer.meta["provenance"] = writer.meta.get("provenance", {}) | {"int8": measured}
    return verdict


def _score(bundle: Bundle, validation: str, root: str | None, dtype: str) -> Scored:
    """Scores and truth of the validation photos that can be read."""
    scorer = BundleScorer(bundle, TaggerOptions(dtype=dtype, device="cpu"))
    targets = Targets(bundle.labels)
    scores, truth = [], []
    for photos in _batched(_validation(validation, root), scorer.batch):
        pixels = []
        for record in photos:
            try:
                target = targets.of(read_annotation(record))
                pixels.append(scorer.prepare(record_photo(record, target=scorer.target)))
            except RecordProblem:
                continue
            row = np.full(len(targets), NEGATIVE, np.int8)
            if target.unknown is not None:
                row[target.unknown] = UNKNOWN
            row[target.present] = POSITIVE
            truth.append(row)
        if pixels:
            scores.append(scorer.scores(pixels))
    if not scores:
        raise RunProblem(f"{validation}: no record has tags and a photo that can be read")
    return Scored(np.concatenate(scores), np.stack(truth))


def _validation(name: str, root: str | None) -> Iterator[Record]:
    records = read_inputs([name], root, "convert")
    return (item for item in records if isinstance(item, Record))


def _batched(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    iterator = iter(records)
    while batch := list(islice(iterator, size)):
        yield batch
