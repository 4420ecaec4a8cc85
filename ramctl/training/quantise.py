"""Adds an int8 graph to a bundle: ranges from training photos, thresholds from held-out ones."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import NEVER
from ramctl.checkpoints.bundle import (
    CALIBRATION,
    INT8_GRAPH,
    INT8_THRESHOLDS,
    WEIGHTS,
    Bundle,
    BundleWriter,
    require_bundle,
    write_meta,
)
from ramctl.checkpoints.int8 import export_int8_graph
from ramctl.checkpoints.load import load_model
from ramctl.errors import RecordProblem, RunProblem
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import record_photo
from ramctl.photos.finding import PhotoInputs, read_photo_inputs
from ramctl.records.inputs import read_inputs
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, Record
from ramctl.tagging.scorers import BundleScorer, TaggerOptions
from ramctl.training.data.targets import Targets, read_annotation
from ramctl.training.validation import Scored, choose_thresholds, score_blocks, truth_of

CALIBRATION_PHOTOS = 128
CALIBRATION_BATCH = 4
MOST_LOST = 0.003  # mAP; a graph that loses less becomes the default
DIGITS = 4
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Verdict:
    """mAP of both graphs on the held-out photos, over the labels that were trained."""

    fp32: float
    int8: float
    photos: int


def add_int8_graph(
    bundle: Bundle, calibration: str, validation: str | None, root: str | None, out: Path | None
) -> tuple[Bundle, Verdict | None]:
    """The bundle with `model.int8.onnx`, in place or at `out`.

    `calibration` names photos (as `tag` reads them); 128 of them, evenly spread, give the ranges.
    With `validation`, records with `tags`, thresholds are picked for this graph and the bundle
    names the default number format; without it both stay. Raises RunProblem.
    """
    target = bundle.path if out is None else out
    require_bundle(target)
    preprocess = Preprocess(bundle.preset.preprocess)
    size = preprocess.config.size
    inputs = PhotoInputs([calibration], root, recursive=True, stage="convert")
    records = [item for item in read_photo_inputs(inputs) if isinstance(item, Record)]
    some = records[:: max(1, len(records) // CALIBRATION_PHOTOS)][:CALIBRATION_PHOTOS]
    official = preprocess.config.loader == "official"

    def prepare(record: Record) -> NDArray[np.uint8]:
        return preprocess.resize(record_photo(record, target=size, official=official))

    photos = list(_good(some, prepare))
    if not photos:
        raise RunProblem(f"{calibration}: none of its photos can be read")
    model = load_model(bundle, captioning=False)
    verdict = None
    with BundleWriter(target) as writer:
        writer.link_files(bundle, without={INT8_GRAPH, INT8_THRESHOLDS})
        writer.meta.pop("dtype", None)
        batches = (preprocess.normalise(np.stack(p)) for p in chunks(photos, CALIBRATION_BATCH))
        path, weights = writer.path / INT8_GRAPH, writer.path / WEIGHTS
        export_int8_graph(model, size, path, batches, weights=weights)
        if validation is not None:
            verdict = _judge(writer, validation, root)
    return Bundle.open(target), verdict


def _good(records: Iterable[Item], prepare: Callable[[Record], Result]) -> Iterator[Result]:
    """What `prepare` makes of the records that it does not reject."""
    for record in records:
        if isinstance(record, Record):
            try:
                yield prepare(record)
            except RecordProblem:
                continue


def _judge(writer: BundleWriter, validation: str, root: str | None) -> Verdict:
    """Score the held-out photos by both graphs; write thresholds and verdict to the bundle."""
    write_meta(writer.path, writer.meta)
    fp32, int8 = (_score(Bundle.open(writer.path), validation, root, d) for d in ("fp32", "int8"))
    bundle = Bundle.open(writer.path)
    known = np.array([label.validated for label in bundle.labels])
    before, after = (scored.mean_average_precision(known) for scored in (fp32, int8))
    # Thresholds for a precision come from the calibration, which is told of both graphs.
    if not (bundle.has(CALIBRATION) and bundle.preset.precision):
        thresholds = np.where(
            known, choose_thresholds(int8, known, bundle.preset, bundle.labels).own, NEVER
        )
        lines = [f"{round(float(value), DIGITS)}\n" for value in thresholds]
        (writer.path / INT8_THRESHOLDS).write_text("".join(lines), encoding="utf-8")
    writer.meta["dtype"] = "int8" if before - after < MOST_LOST else "fp32"
    measured = {"validation": validation, "photos": len(fp32.scores)}
    measured |= {"mAP_fp32": round(before, DIGITS), "mAP_int8": round(after, DIGITS)}
    writer.meta["provenance"] = writer.meta.get("provenance", {}) | {"int8": measured}
    return Verdict(before, after, len(fp32.scores))


def _score(bundle: Bundle, validation: str, root: str | None, dtype: str) -> Scored:
    scorer = BundleScorer(bundle, TaggerOptions(dtype=dtype, device="cpu"))
    targets = Targets(bundle.labels)

    def prepare(record: Record) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        truth = truth_of(read_annotation(record), targets)
        photo = record_photo(record, target=scorer.target, official=scorer.official)
        return scorer.prepare(photo), truth

    photos = _good(read_inputs([validation], root, "convert"), prepare)
    scored = score_blocks(photos, scorer.scores, scorer.batch, len(targets))
    if not len(scored.scores):
        raise RunProblem(f"{validation}: no record has tags and a photo that can be read")
    return scored
