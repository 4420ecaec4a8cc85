"""What gives photos their scores: a bundle, or one of the other taggers.

S pixels a side, L labels.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import UsageProblem
from ramctl.inference.label_set import LabelSet, choose_labels, peer_label_set, read_words
from ramctl.inference.predictor import (
    TORCH,
    OnnxPredictor,
    Predictor,
    Scores,
    choose_runtime,
    number_format,
)
from ramctl.model.preprocess import Preprocess

if TYPE_CHECKING:
    from ramctl.tagging.tagger import TaggerOptions

DEFAULT_BATCH = 8
Pixels = NDArray[np.uint8]  # (H, W, 3)


class Scorer(Protocol):
    """Scores photos against a fixed set of labels."""

    label_set: LabelSet
    unknown: Sequence[str]  # labels that it cannot know, and scores 0
    batch: int  # most photos at a time

    @property
    def target(self) -> int | None:
        """Pixels a side that are enough: larger photos may be decoded at a smaller scale."""

    @property
    def concurrent(self) -> bool:
        """Whether several threads may score at once."""

    @property
    def description(self) -> str:
        """Device, runtime and batch size, for people."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What the scores depend on besides the photos."""

    def prepare(self, photo: Image.Image) -> Pixels:
        """A decoded photo as `scores` takes it; called in the decoding threads."""

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        """Probabilities (n, L) of n photos, n at most `batch`."""

    def look(
        self,
        photos: Sequence[Pixels],
        sizes: Sequence[tuple[int, int]],
        chosen: Sequence[Mapping[str, float]],
        ids: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """`boxes` and `generated_captions` of photos with these tags and of these sizes."""


class BundleScorer:
    """A bundle's model, in onnxruntime where it has a graph, else in torch."""

    unknown: Sequence[str] = ()

    def __init__(self, bundle: Bundle, options: "TaggerOptions") -> None:
        config = bundle.preprocess
        self._runtime = choose_runtime(bundle, options.runtime, options.device, options.dtype)
        dtype = number_format(self._runtime)
        self.label_set = choose_labels(bundle, options.labels, options.threshold, dtype)
        self._usual_batch = bundle.batch_size or DEFAULT_BATCH
        self.batch = options.batch or self._usual_batch
        self.target: int | None = config.size
        self.preprocess = Preprocess(config)
        self._bundle = bundle
        self._options = options
        self._predictor: Predictor | None = None
        self._loading = threading.Lock()

    @property
    def predictor(self) -> Predictor:
        """What runs the model, loaded when the first photo asks for it."""
        with self._loading:
            if self._predictor is None:
                self._predictor = self._open_predictor()
        return self._predictor

    def _open_predictor(self) -> Predictor:
        if self._runtime != TORCH:
            # The workers fill the cores already; more threads a run would wait for each other.
            threads = self._options.threads or 1
            return OnnxPredictor(self._bundle, self._runtime, self.label_set.rows, threads)
        predictor: Predictor = self._open_torch()
        return predictor

    def _open_torch(self) -> Any:
        from ramctl.inference.torch_predictor import TorchPredictor

        options = self._options
        predictor = TorchPredictor(
            self._bundle,
            self.label_set.rows,
            device=options.device,
            dtype=options.dtype,
            threads=options.threads,
            side_by_side=self._is_small and not self._looks,
            captioning=options.caption,
        )
        predictor.say = self._options.say
        return predictor

    @property
    def _is_small(self) -> bool:
        """Whether the preset's batches have several photos on a CPU: their memory is small then."""
        return self._usual_batch > 1

    @property
    def _looks(self) -> bool:
        """Whether boxes or captions are wanted, which one torch model makes in turn."""
        return self._options.boxes or self._options.caption

    @property
    def concurrent(self) -> bool:
        """Whether several threads may score at once; a large torch model takes all cores itself."""
        if self._looks:
            return False
        if self._runtime != TORCH:
            return True
        predictor: Any = self.predictor
        return bool(predictor.side_by_side)

    @property
    def description(self) -> str:
        """Device, runtime and batch size; loads no model."""
        if self._runtime == TORCH:
            return f"torch {self._options.device}, batch {self.batch}"
        return f"cpu, onnxruntime {number_format(self._runtime)}, batch {self.batch}"

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of the bundle and of how it runs."""
        how = f"{self._runtime} {self._options.dtype}"
        return {"model": self._bundle.fingerprint, "runtime": how}

    def prepare(self, photo: Image.Image) -> Pixels:
        """The photo at the model's size (S, S, 3)."""
        return self.preprocess.resize(photo)

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        """Probabilities (n, L) of n resized photos, n at most the batch size."""
        return self.predictor.scores(self._full_batch(photos))[: len(photos)]

    def _full_batch(self, photos: Sequence[Pixels]) -> NDArray[np.float32]:
        """What the model sees (B, 3, S, S): always a full batch, so that no photo's scores depend
        on how many there are.
        """
        size = self.preprocess.config.size
        full = np.zeros((self.batch, size, size, 3), np.uint8)
        full[: len(photos)] = photos
        return self.preprocess.normalise(full)

    @cached_property
    def _looker(self) -> Any:
        from ramctl.inference.annotator import Looker

        model: Any = self.predictor if self._runtime == TORCH else self._open_torch()
        options = self._options
        return Looker(
            model, self._bundle, self.label_set, boxes=options.boxes, caption=options.caption
        )

    def look(
        self,
        photos: Sequence[Pixels],
        sizes: Sequence[tuple[int, int]],
        chosen: Sequence[Mapping[str, float]],
        ids: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """Boxes and captions by the torch model, whatever gives the scores."""
        looked: list[dict[str, Any]] = self._looker.look(
            self._full_batch(photos), sizes, chosen, ids
        )
        return looked


class PeerScorer:
    """Another architecture, `KIND:PATH`, in torch."""

    concurrent = False
    target = None

    def __init__(self, spec: str, options: "TaggerOptions") -> None:
        from ramctl.peers import open_peer

        if options.boxes or options.caption:
            raise UsageProblem(f"--boxes and --caption need a bundle, not {spec}")
        if options.runtime == "onnx":
            raise UsageProblem(f"--runtime onnx needs a bundle, not {spec}")
        words = None if options.labels is None else read_words(options.labels)
        self._peer = open_peer(
            spec, words.tags if words else [], device=options.device, dtype=options.dtype
        )
        self.unknown: Sequence[str] = self._peer.unknown
        self.label_set = peer_label_set(self._peer.labels, self._peer.threshold, options.threshold)
        self.batch = options.batch or max(self._peer.batch, 1)
        self._spec = spec
        self._options = options

    @property
    def description(self) -> str:
        """The spec, its device and batch size."""
        return f"{self._spec}, torch {self._options.device}, batch {self.batch}"

    @property
    def fingerprint(self) -> dict[str, str]:
        """The peer's own hash and its number format."""
        return {"model": self._peer.fingerprint, "runtime": f"torch {self._options.dtype}"}

    def prepare(self, photo: Image.Image) -> Pixels:
        """The photo as it is: each peer has its own way of resizing."""
        return np.array(photo)  # a copy: torch wants arrays that may be written to

    def scores(self, photos: Sequence[Pixels]) -> Scores:
        """The peer's scores (n, L)."""
        return self._peer.scores(photos)

    def look(
        self,
        photos: Sequence[Pixels],
        sizes: Sequence[tuple[int, int]],
        chosen: Sequence[Mapping[str, float]],
        ids: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """Nothing; asking for boxes or captions was refused."""
        return [{} for _ in photos]
