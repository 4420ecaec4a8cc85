"""What gives photos their scores: a bundle's model, or one of the other taggers.

S pixels a side, L labels.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramctl.calibration import log_odds_of, sigmoid
from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import UsageProblem
from ramctl.inference.label_set import (
    LabelSet,
    Threshold,
    Words,
    choose_labels,
    peer_label_set,
    read_words,
)
from ramctl.inference.onnx_engine import (
    LABELS_AT_ONCE,
    TORCH,
    OnnxEngine,
    choose_runtime,
    number_format,
)
from ramctl.inference.regions import looking
from ramctl.inference.shortlist import read_shortlist
from ramctl.model.preprocess import Preprocess
from ramctl.parts import require
from ramctl.photos.limits import LIMITS, PhotoLimits
from ramctl.records.parallel import chunks
from ramctl.records.record import JsonObject
from ramctl.tagging.selection import DECIMALS, Choice, SelectionOptions

if TYPE_CHECKING:  # an installation that only tags has no torch
    from torch import Tensor

    from ramctl.device import Runtime
    from ramctl.inference.captions import CaptionWriter
    from ramctl.inference.torch_engine import TorchEngine

DEFAULT_BATCH = 8
PART = 0.6  # of each side of a photo, for a thorough look; chosen on the judged photos
LONG_LIST_BATCH = 64  # for which the work that is the words' own is done once
Pixels = NDArray[np.uint8]  # (H, W, 3)
Scores = NDArray[np.float32]  # (n, L)
Tags = Mapping[str, float]  # a photo's, with their scores
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "runtime": ("auto", "onnx", "torch"),
    "dtype": ("auto", "fp32", "bf16", "fp16", "int8"),
    "preprocess": (None, "official", "fast"),
    "caption_style": (None, "short", "dense"),
}


def mute(message: str) -> None:
    """Drop a message: a function of its own, as it must travel between processes."""


@dataclass(frozen=True, slots=True)
class TaggerOptions:
    """How photos are tagged; the defaults are those of `ramctl tag`."""

    labels: Words | None = None  # what to look for instead of the model's labels; +FILE: besides
    keep_labels: bool = False  # besides
    threshold: Threshold | None = None  # None: the model's, per tag
    precision: float | None = None  # the share of the tags that shall be right; None: the model's
    choice: SelectionOptions = field(default_factory=SelectionOptions)
    thorough: bool = False  # look at parts of each photo too
    dense: bool = False  # give the scores of all labels too
    embedding: bool = False  # give a vector to search by
    boxes: bool = False  # give where the model looked for each tag
    caption: bool = False  # give a caption
    caption_style: str | None = None  # short, dense; None: short where the model has both
    preprocess: str | None = None  # official, fast: how photos are read; None: the model's way
    runtime: str = "auto"  # or onnx, torch
    device: str = "auto"  # or cpu, cuda, cuda:N, mps
    dtype: str = "auto"  # or fp32, bf16, fp16, int8
    batch: int | None = None  # photos a batch; None: what fits the model
    workers: int | None = None  # threads that decode (and run the graph); None: one a core
    threads: int | None = None  # threads of one run of the model
    limits: PhotoLimits = LIMITS  # what a photo may cost
    say: Callable[[str], None] = mute  # told what the user should know

    def check(self) -> None:
        """UsageProblem for unknown choices and numbers that make no sense."""
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                named = ", ".join(filter(None, known))
                raise UsageProblem(f"{name} {value!r} is not one of {named}")
        for name in ("batch", "workers", "threads"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageProblem(f"{name} {value} is less than 1")
        if self.caption_style and not self.caption:
            raise UsageProblem("--caption-style needs --caption")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageProblem(f"precision {self.precision:g} is not between 0 and 1")
        self.choice.check()


class Decoded(NamedTuple):
    """A photo as the model takes it."""

    pixels: Pixels
    closer: Pixels | None = None  # larger, where the model finds labels better so
    parts: Sequence[Pixels] = ()  # of the photo, each as the model takes it


class Scorer(ABC):
    """Scores photos against a fixed set of labels."""

    label_set: LabelSet
    unknown: Sequence[str] = ()  # labels that it was not trained on: their score is 0
    batch: int  # most photos at a time
    description: str  # device, runtime and batch size, for people
    fingerprint: dict[str, str]  # what the scores depend on besides the photos, as hashes
    target: int | None = None  # pixels a side: larger photos may be decoded at a reduced scale
    official: bool = False  # photos are read as the authors' code reads them

    @property
    def concurrent(self) -> bool:
        """Whether several threads may score at once."""
        return False

    @abstractmethod
    def prepare(self, photo: Image.Image) -> Pixels:
        """A decoded photo as `scores` takes it; called in the decoding threads."""

    def look(self, photo: Image.Image) -> Decoded:
        """A decoded photo in all the ways that the options ask for."""
        return Decoded(self.prepare(photo))

    @abstractmethod
    def scores(self, photos: Sequence[Pixels]) -> Scores:
        """Probabilities (n, L) of n prepared photos, n at most `batch`."""

    def scores_of(self, photos: Sequence[Decoded]) -> tuple[Scores, Scores]:
        """Probabilities (n, L) of n photos, n at most `batch`; and those that choose tags.

        These are the same with every option: of labels that cannot be given they may be 0.
        """
        scores = self.scores([photo.pixels for photo in photos])
        return scores, scores

    def annotate(
        self, photos: Sequence[Decoded], chosen: Sequence[Choice], ids: Mapping[str, int]
    ) -> list[JsonObject]:
        """`boxes` and `generated_captions` of tagged photos, as far as the options ask for them.

        `chosen` are their tags, `ids` the labels of names.
        """
        return [{} for _ in photos]


def _with_parts(scores: Scores, parts: Scores) -> Scores:
    """Probabilities (n, L) of photos, by them and their parts (n * P, L)."""
    # What is small in the photo is large in a part of it.
    highest = parts.reshape(len(scores), -1, parts.shape[1]).max(1)
    both = [log_odds_of(some.astype(np.float64)) for some in (scores, highest)]
    return sigmoid(np.mean(both, axis=0)).astype(np.float32)


class BundleScorer(Scorer):
    """A bundle's model, in onnxruntime where it has a graph, else in torch."""

    def __init__(self, bundle: Bundle, options: TaggerOptions) -> None:
        self._runtime = choose_runtime(bundle, options.runtime, options.device, options.dtype)
        asked = [f"--{name}" for name in ("boxes", "caption") if getattr(options, name)]
        if asked or self._runtime == TORCH:
            require("train", asked[0] if asked else "running this model in torch")
        dtype = number_format(self._runtime)
        self.label_set = choose_labels(
            bundle, options.labels, options.threshold, dtype, options.precision,
            keep_own=options.keep_labels,
        )  # fmt: skip
        self._bundle = bundle
        self._options = options
        # Only labels that can be given are asked about, where nobody wants the scores of others.
        self._scores_all = options.dense or options.embedding
        asks_all = options.threshold is not None or options.precision is not None
        is_long = len(self.label_set.labels) > LABELS_AT_ONCE
        # In torch parts of a list have no shortlists of their own.
        asks_all |= is_long and self._runtime == TORCH
        self._shortlist = None if asks_all else read_shortlist(bundle, self.label_set)
        self._usual_batch = bundle.batch_size or DEFAULT_BATCH
        self.batch = options.batch or (LONG_LIST_BATCH if is_long else self._usual_batch)
        how = f"cpu, onnxruntime {dtype}"
        if self._runtime == TORCH:
            from ramctl.inference.torch_engine import photos_that_fit

            device = self._torch_runtime.device
            how = f"{device}, torch {self._torch_runtime.dtype}"
            self.batch = options.batch or photos_that_fit(
                device, bundle.preprocess.size, self._usual_batch
            )
        self.description = f"{how}, batch {self.batch}"
        runtime = f"{self._runtime} {options.dtype}"
        self.fingerprint = {"model": bundle.fingerprint, "runtime": runtime}
        loader = options.preprocess or bundle.preprocess.loader
        self.official = loader == "official"
        if loader != bundle.preprocess.loader:
            self.fingerprint["preprocess"] = loader
        if options.thorough:
            self.fingerprint["look"] = "thorough"
        self.target = math.ceil(bundle.preprocess.size / (PART if options.thorough else 1))
        self.preprocess = Preprocess(bundle.preprocess)
        self._looking = self.preprocess
        if options.boxes:
            self._looking = Preprocess(looking(bundle.preprocess, bundle.preset.model))
        self._looks_closer = self._looking.config != self.preprocess.config
        self._writer = self._caption_writer() if options.caption else None
        self._loading = threading.Lock()

    @property
    def engine(self) -> "OnnxEngine | TorchEngine":
        """What scores, loaded when the first photo asks for it."""
        with self._loading:
            return self._torch_engine if self._runtime == TORCH else self._onnx

    @property
    def _torch(self) -> "TorchEngine":
        with self._loading:
            return self._torch_engine

    def _caption_writer(self) -> "CaptionWriter":
        from ramctl.inference.captions import CaptionWriter

        return CaptionWriter(self._bundle, style=self._options.caption_style)

    @cached_property
    def _onnx(self) -> OnnxEngine:
        # The workers keep all cores busy; more threads per run would wait for each other. Scores
        # are the same to the bit with any number.
        threads = self._options.threads or 1
        rows = self.label_set.rows
        return OnnxEngine(
            self._bundle, self._runtime, rows, threads, self._shortlist,
            scores_all=self._scores_all,
        )  # fmt: skip

    @cached_property
    def _torch_engine(self) -> "TorchEngine":
        from ramctl.device import set_up_cpu
        from ramctl.inference.torch_engine import TorchEngine

        options = self._options
        # For small operations several batches with one thread each are faster than one batch whose
        # threads wait for each other, and sums of more threads are rounded in another way.
        set_up_cpu(1 if self._side_by_side else options.threads)
        return TorchEngine.open(
            self._bundle, self._torch_runtime, rows=self.label_set.rows,
            captioning=options.caption, fold=True, shortlist=self._shortlist,
            scores_all=self._scores_all, say=options.say,
        )  # fmt: skip

    @cached_property
    def _torch_runtime(self) -> "Runtime":
        from ramctl.device import Runtime

        return Runtime.choose(self._options.device, self._options.dtype)

    @cached_property
    def _at_once(self) -> int:
        """Photos a run of the model: on a CPU always as many, so that scores are the same."""
        on_cpu = self._runtime != TORCH or self._torch_runtime.device.type == "cpu"
        return self._usual_batch if on_cpu else self.batch

    @property
    def _side_by_side(self) -> bool:
        """Whether several threads may run the torch model.

        Only for presets with several photos a batch: their models need little memory on a CPU.
        """
        return self._usual_batch > 1 and self._torch_runtime.device.type == "cpu"

    @property
    def concurrent(self) -> bool:
        """Whether several threads may score at once; a large torch model takes all cores itself."""
        # Boxes and captions are made by a torch model, whatever gives the scores.
        annotates = self._options.boxes or self._options.caption
        return not (annotates or self._runtime == TORCH) or self._side_by_side

    def prepare(self, photo: Image.Image) -> Pixels:
        return self.preprocess.resize(photo)  # (S, S, 3)

    def look(self, photo: Image.Image) -> Decoded:
        # Of the same decoded photo, so that scores do not depend on whether boxes are asked for.
        closer = self._looking.resize(photo) if self._looks_closer else None
        parts = map(self.prepare, parts_of(photo) if self._options.thorough else ())
        return Decoded(self.prepare(photo), closer, list(parts))

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        return self._both(photos)[0]

    def _both(self, photos: Sequence[Pixels]) -> tuple[Scores, Scores]:
        parts = chunks(photos, self._at_once)
        full = [self.preprocess.full_batch(some, self._at_once) for some in parts]
        scores, to_choose = zip(*self.engine.scores_each(full), strict=True)
        return np.concatenate(scores)[: len(photos)], np.concatenate(to_choose)[: len(photos)]

    def scores_of(self, photos: Sequence[Decoded]) -> tuple[Scores, Scores]:
        whole = self._both([photo.pixels for photo in photos])
        if not self._options.thorough:
            return whole
        parts = self._both([part for photo in photos for part in photo.parts])
        scores, to_choose = map(_with_parts, whole, parts)
        return scores, to_choose

    def annotate(
        self, photos: Sequence[Decoded], chosen: Sequence[Choice], ids: Mapping[str, int]
    ) -> list[JsonObject]:
        size = self._at_once
        parts = (slice(i, i + size) for i in range(0, len(photos), size))
        each = (self._annotate_at_once(photos[part], chosen[part], ids) for part in parts)
        return list(chain.from_iterable(each))

    def _annotate_at_once(
        self, photos: Sequence[Decoded], chosen: Sequence[Choice], ids: Mapping[str, int]
    ) -> list[JsonObject]:
        # By the torch model even where a graph gives the scores.
        found: list[JsonObject] = [{} for _ in photos]
        size = self._at_once
        inputs: Scores | Tensor = self.preprocess.full_batch([p.pixels for p in photos], size)
        if self._options.boxes:
            larger = [photo.closer for photo in photos if photo.closer is not None]
            looked_at = self._looking.full_batch(larger, size) if self._looks_closer else inputs
            features = self._torch.features(looked_at)
            inputs = inputs if self._looks_closer else features  # the encoder runs once
            for index, choice in enumerate(chosen):
                # One by one, so that a photo's boxes do not depend on the tags of the others.
                one = features[index : index + 1]
                found[index]["boxes"] = self._boxes(one, choice.scores, ids)
        if self._writer is not None:
            # The branch has learnt the model's own tag strings, not those of --lang.
            labels = self.label_set.labels
            fired = [choice.labels for choice in chosen]
            if not self._writer.in_label_order:
                fired = [[ids[tag] for tag in choice.scores] for choice in chosen]
            guides = [[labels[index].tag for index in indices] for indices in fired]
            captions = self._writer.write(self._torch, self._torch.encode(inputs), guides)
            for added, caption in zip(found, captions, strict=True):
                added["generated_captions"] = [] if caption is None else [caption]
        return found

    def _boxes(self, features: "Tensor", tags: Tags, ids: Mapping[str, int]) -> JsonObject:
        """`{tag: [[x0, y0, x1, y1], score]}` of one photo, corners as shares of its sides.

        Of things only: there is no telling whether a box of a scene or a colour is right.
        """
        things = [tag for tag in tags if self.label_set.labels[ids[tag]].kind == "object"]
        if not things:
            return {}
        import torch

        rows = torch.from_numpy(self.label_set.rows)[[ids[tag] for tag in things]]
        maps = self._torch.heat_maps(features, self._torch.prepare(rows))
        boxes = maps.boxes(0, range(len(things)))
        return {
            tag: [[round(corner, DECIMALS) for corner in box.tolist()], tags[tag]]
            for tag, box in zip(things, boxes, strict=True)
        }


def parts_of(photo: Image.Image) -> list[Image.Image]:
    """Five parts of a photo that overlap, its corners and its middle, `PART` of each side long."""
    width, height = (max(1, round(PART * side)) for side in photo.size)
    right, lower = photo.width - width, photo.height - height
    corners = [(0, 0), (right, 0), (0, lower), (right, lower), (right // 2, lower // 2)]
    return [photo.crop((left, top, left + width, top + height)) for left, top in corners]


class PeerScorer(Scorer):
    """Another architecture, `KIND:PATH`, in torch."""

    def __init__(self, spec: str, options: TaggerOptions) -> None:
        from ramctl.peers import open_peer

        if options.boxes or options.caption:
            raise UsageProblem(f"--boxes and --caption need a bundle, not {spec}")
        if options.runtime == "onnx":
            raise UsageProblem(f"--runtime onnx needs a bundle, not {spec}")
        for name in ("precision", "preprocess", "thorough"):
            if getattr(options, name):
                raise UsageProblem(f"--{name} needs a bundle, not {spec}")
        words = [] if options.labels is None else read_words(options.labels).tags
        require("train", f"model {spec}")
        self._peer = open_peer(spec, words, device=options.device, dtype=options.dtype)
        self.unknown = self._peer.unknown
        self.label_set = peer_label_set(self._peer.labels, self._peer.threshold, options.threshold)
        self.batch = options.batch or max(self._peer.batch, 1)
        self.description = f"{spec}, torch {options.device}, batch {self.batch}"
        self.fingerprint = {"model": self._peer.fingerprint, "runtime": f"torch {options.dtype}"}

    def prepare(self, photo: Image.Image) -> Pixels:
        # Each peer has its own way of resizing. A copy, because torch warns of read-only arrays.
        return np.array(photo)

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        return self._peer.scores(photos)
