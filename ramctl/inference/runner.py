"""The runner: decodes photos ahead of the model, and scores them in batches of one shape, in order.

S pixels a side, L labels.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RecordProblem, attempt
from ramctl.inference.boxes import enlarged
from ramctl.inference.class_evidence import ClassEvidence
from ramctl.inference.log_odds import (
    NO_FIRST,
    Collection,
    Probabilities,
    log_odds_of,
    score_logits,
    sigmoid,
)
from ramctl.inference.onnx_engine import TORCH, Graphs, OnnxEngine
from ramctl.inference.vocabulary import label_rows
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import record_photo
from ramctl.records.extras import require
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks, map_good, ordered_map, usable_cores
from ramctl.records.record import Record

if TYPE_CHECKING:  # an installation that only tags has no torch
    from torch import Tensor

    from ramctl.inference.caption_writer import CaptionWriter
    from ramctl.inference.torch_engine import TorchEngine
    from ramctl.model.device import Runtime

DEFAULT_BATCH = 8
WARN = logging.getLogger("ramctl").warning  # to stderr, if a program does not configure it
PART = 0.6  # of each side of a photo, for a thorough look
Pixels = NDArray[np.uint8]  # (H, W, 3)
Scores = NDArray[np.float32]  # (n, L)
Ids = NDArray[np.int64]
Boxes = dict[int, NDArray[np.float32]]  # by label id
Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def mute(message: str) -> None:
    """Drop a message. (No lambda: processes must be able to send it.)"""


RUNTIME = "--device or --dtype"  # in a fingerprint


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """Where a model runs, and how many photos at a time."""

    device: str = "auto"  # or cpu, cuda, cuda:N, mps
    dtype: str = "auto"  # or fp32, bf16, fp16, int8
    batch: int | None = None  # photos a batch; None: what fits the model
    workers: int | None = None  # threads that decode (and run the graph); None: one a core


class ModelPhoto(NamedTuple):
    """A record with its photo as the model takes it."""

    record: Record
    pixels: Pixels
    enlarged: Pixels | None = None  # where the model finds labels better in a larger photo
    parts: Sequence[Pixels] = ()  # of the photo, each as the model takes it


class Runner:
    """Runs work over batches of items; `ModelRunner` and `PeerRunner` score photos."""

    batch = 1  # the maximum number of photos at a time
    workers = 1  # threads that decode
    side_by_side = 1  # batches at a time
    unknown: Sequence[str] = ()  # labels that it was not trained on: their score is 0
    description: str  # device, runtime and batch size, for people
    fingerprint: dict[str, str]  # what the scores depend on besides the photos, as hashes
    target: int | None = None  # pixels a side: larger photos may be decoded at a reduced scale
    official = False  # photos are read as the authors' code reads them

    def run(
        self,
        batches: Iterable[Sequence[Item]],
        prepare: Callable[[Item], Prepared],
        work: Callable[[list[Prepared]], Iterable[Result | RecordProblem]],
    ) -> Iterator[list[Result | RecordProblem]]:
        """The results of `work` for each batch of prepared items, in order.

        Items are prepared ahead of the work, in threads. A RecordProblem that `prepare` raises
        stands in the place of its item's result.
        """

        def prepare_all(batch: Sequence[Item]) -> list[Prepared | RecordProblem]:
            return [attempt(prepare, item) for item in batch]

        finish = partial(map_good, do=work)
        if self.side_by_side >= self.workers:
            yield from ordered_map(
                lambda batch: finish(prepare_all(batch)), batches, self.side_by_side
            )
        else:
            prepared = ordered_map(prepare_all, batches, self.workers)
            yield from ordered_map(finish, prepared, self.side_by_side)

    def read(self, record: Record) -> ModelPhoto:
        """A record's photo in all the ways that the model takes it; RecordProblem without one."""
        # A copy, because torch warns of read-only arrays.
        return ModelPhoto(record, np.array(record_photo(record, self.target, self.official)))

    def scores_of(self, photos: Sequence[ModelPhoto]) -> tuple[Scores, Ids]:
        """Probabilities (n, L) of n photos, and the labels (n,) that come first, else NO_FIRST."""
        raise NotImplementedError


class ModelRunner(Runner):
    """A bundle's model with its labels, or others, in torch or onnxruntime.

    On a CPU, sums of more threads, or of batches of another shape, are rounded in another way.
    The model therefore takes batches of one shape, which blank photos fill.
    """

    writer: "CaptionWriter | None" = None  # where opened for captions

    def __init__(
        self, bundle: Bundle, options: RunnerOptions, engine: str = TORCH, *,
        labels: Labels | None = None, scores_all: bool = False,
        boxes: bool = False, captions: bool = False,
        thorough: bool = False, fold: bool = True, graphs: Graphs | None = None,
        notify: Callable[[str], None] = mute,
    ) -> None:  # fmt: skip
        requested = "--boxes" if boxes else "--caption" if captions else ""
        if requested or engine == TORCH:
            require("train", requested or "running this model in torch")
        self.bundle, self.options, self.notify = bundle, options, notify
        self.labels = label_rows(bundle) if labels is None else labels
        self.probabilities = Probabilities(self.labels)
        self.evidence = ClassEvidence.from_bundle(bundle, self.labels)
        self.collection = Collection(**bundle.fit) if bundle.fit else None
        self._captions, self._thorough, self._fold = captions, thorough, fold
        usual = bundle.batch_size or DEFAULT_BATCH
        self.batch = options.batch or usual
        self.workers = options.workers or usable_cores()
        self.at_once = usual  # photos a run of the model
        backend = f"cpu, onnxruntime {bundle.dtype}"
        if engine == TORCH:
            from ramctl.inference.torch_engine import photos_that_fit

            device, size = self.runtime.device, bundle.preprocess.size
            backend = f"{device}, torch {self.runtime.dtype}"
            self.batch = options.batch or photos_that_fit(device, size, usual)
            self.at_once = usual if device.type == "cpu" else self.batch
        self.description = f"{backend}, batch {self.batch}"
        # Boxes and captions need a torch model, also beside a graph. A large one uses all cores
        # itself. For small operations several batches with one thread each are faster
        # than one batch whose threads wait for each other.
        in_torch = engine == TORCH or boxes or captions
        is_large = in_torch and not (usual > 1 and self.runtime.device.type == "cpu")
        self.side_by_side = 1 if is_large else self.workers
        self.model_threads = options.workers if is_large else 1  # of torch
        self.fingerprint = {"--model": bundle.fingerprint, RUNTIME: f"{engine} {options.dtype}"}
        self.official = bundle.preprocess.loader == "official"
        if thorough:
            self.fingerprint["--thorough"] = "yes"
        self.target = math.ceil(bundle.preprocess.size / (PART if thorough else 1))
        self.preprocess = self._enlarged = Preprocess(bundle.preprocess)
        if boxes:
            self._enlarged = Preprocess(enlarged(bundle.preprocess, bundle.preset.model))
        self._enlarges = self._enlarged.config != self.preprocess.config
        self._boxes = boxes
        if captions:
            from ramctl.inference.caption_writer import CaptionWriter

            self.writer = CaptionWriter(bundle)
        self._loading = threading.Lock()
        # onnxruntime rounds alike from two photos on, but not one.
        self._fewest = self.at_once if engine == TORCH else min(2, usual)
        self._onnx_engine: OnnxEngine | None = None
        if engine != TORCH:
            self._onnx_engine = OnnxEngine(
                bundle, self.labels, self.evidence, scores_all=scores_all, graphs=graphs
            )

    @cached_property
    def runtime(self) -> "Runtime":
        """Where the torch model runs."""
        from ramctl.model.device import Runtime

        return Runtime.choose(self.options.device, self.options.dtype)

    @property
    def engine(self) -> "TorchEngine":
        """The torch model, loaded when it is first needed."""
        with self._loading:
            return self._torch_engine

    @cached_property
    def _torch_engine(self) -> "TorchEngine":
        from ramctl.inference.torch_engine import TorchEngine
        from ramctl.model.device import set_up_cpu

        set_up_cpu(self.model_threads)
        return TorchEngine.open(
            self.bundle, self.runtime, labels=self.labels, captioning=self._captions,
            fold=self._fold, notify=self.notify,
        )  # fmt: skip

    def read(self, record: Record) -> ModelPhoto:
        # From one decoded photo, so that scores do not depend on whether there are boxes.
        photo = record_photo(record, self.target, self.official)
        larger = self._enlarged.resize(photo) if self._enlarges else None
        parts = map(self.preprocess.resize, parts_of(photo) if self._thorough else ())
        return ModelPhoto(record, self.preprocess.resize(photo), larger, list(parts))

    def full_batches(self, photos: Sequence[Pixels], fewest: int = 0) -> list[Scores]:
        """The resized photos as the model takes them; blank ones fill the last batch.

        It has `fewest` photos at least, else as many as the others.
        """
        return [
            self.preprocess.full_batch(batch, max(len(batch), fewest or self.at_once))
            for batch in chunks(photos, self.at_once)
        ]

    def features(self, photos: Sequence[Image.Image]) -> "Tensor":
        """The encoder's features (n, extra + T, C) of n photos."""
        import torch

        batches = self.full_batches([self.preprocess.resize(photo) for photo in photos])
        return torch.cat([self.engine.features(batch) for batch in batches])[: len(photos)]

    def score(self, encoded: Any) -> Scores:
        """Probabilities (B, L) of photos as the torch engine sees them."""
        return self._score(self.engine, encoded)[0]

    def _score(self, engine: Any, encoded: Any) -> tuple[Scores, Ids]:
        """Logits, each label's curve, and what the model learnt of a collection."""
        if self.collection is None:
            scores = score_logits(self._log_odds(engine, encoded))
            return scores, np.full(len(scores), NO_FIRST)
        values, lifted = self.collection.values(engine.pooled(encoded)), self.collection.lifted
        listed = [lifted if own else lifted[:0] for own in values[:, 0] > 0]
        log_odds = self._log_odds(engine, encoded, listed)
        changed, first = self.collection(log_odds, values)
        return score_logits(changed), first

    def _log_odds(self, engine: Any, encoded: Any, lifted: Sequence[Ids] | None = None) -> Scores:
        """The log-odds (B, L) by each label's curve and the evidence of the classes."""
        log_odds = self.probabilities.log_odds(engine.logits(encoded, lifted))
        if self.evidence is None:
            return log_odds
        return self.evidence(log_odds, self.evidence.masses(engine.classes(encoded)))

    def look(self, photos: Sequence[Pixels]) -> Iterator[tuple[Scores, Scores]]:
        """The pooled features (C,) and log-odds (L,) of each of the photos."""
        engine: Any = self._onnx_engine or self.engine
        for part in chunks(photos, self.at_once):
            (batch,) = self.full_batches(part, self._fewest)
            encoded = engine.encode(batch)
            log_odds = self._log_odds(engine, encoded)
            yield from zip(engine.pooled(encoded)[: len(part)], log_odds[: len(part)], strict=True)

    def scores_of(self, photos: Sequence[ModelPhoto]) -> tuple[Scores, Ids]:
        engine: Any = self._onnx_engine or self.engine
        views = [photo.pixels for photo in photos]
        views += [part for photo in photos for part in photo.parts]
        batches = self.full_batches(views, self._fewest)
        each = [self._score(engine, engine.encode(batch)) for batch in batches]
        scores, first = map(np.concatenate, zip(*each, strict=True))
        n = len(photos)
        if self._thorough:
            scores = _with_parts(scores[:n], scores[n : len(views)])
        return scores[:n], first[:n]

    def annotate(
        self,
        photos: Sequence[ModelPhoto],
        things: Sequence[Sequence[int]],
        guides: Sequence[Sequence[str]],
    ) -> Iterator[tuple[Boxes, str | None]]:
        """Boxes of each photo's `things`, and a caption by its `guides`, where opened for them."""
        for start in range(0, len(photos), self.at_once):
            part = slice(start, start + self.at_once)
            boxes: list[Boxes] = [{} for _ in photos[part]]
            captions: list[str | None] = [None for _ in photos[part]]
            inputs: Scores | Tensor
            (inputs,) = self.full_batches([photo.pixels for photo in photos[part]])
            if self._boxes:
                larger = [photo.enlarged for photo in photos[part] if photo.enlarged is not None]
                box_inputs = self._enlarged.full_batch(larger, self.at_once) if larger else inputs
                features = self.engine.features(box_inputs)
                inputs = inputs if larger else features  # the encoder runs once
                # One by one, so that a photo's boxes do not depend on the tags of the others.
                boxes = [self._find(features[i : i + 1], ids) for i, ids in enumerate(things[part])]
            if self.writer is not None:
                captions = self.writer.write(
                    self.engine, self.score, self.engine.encode(inputs), guides[part]
                )
            yield from zip(boxes, captions, strict=True)

    def _find(self, features: "Tensor", labels: Sequence[int]) -> Boxes:
        if not labels:
            return {}
        import torch

        assert self.labels.rows is not None
        prepared = self.engine.prepare(torch.from_numpy(self.labels.rows[list(labels)]))
        return dict(zip(labels, self.engine.boxes(features, prepared), strict=True))


def _with_parts(scores: Scores, parts: Scores) -> Scores:
    """The mean log-odds of photos (n, L) and of the best of their parts, as probabilities."""
    # A thing that is small in the photo is large in a part of it.
    highest = parts.reshape(len(scores), -1, parts.shape[1]).max(1)
    both = [log_odds_of(probabilities.astype(np.float64)) for probabilities in (scores, highest)]
    return sigmoid(np.mean(both, axis=0)).astype(np.float32)


def parts_of(photo: Image.Image) -> list[Image.Image]:
    """Five parts of a photo that overlap, its corners and its middle, `PART` of each side long."""
    width, height = (max(1, round(PART * side)) for side in photo.size)
    right, lower = photo.width - width, photo.height - height
    corners = [(0, 0), (right, 0), (0, lower), (right, lower), (right // 2, lower // 2)]
    return [photo.crop((left, top, left + width, top + height)) for left, top in corners]
