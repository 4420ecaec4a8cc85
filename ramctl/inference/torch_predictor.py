"""The model in torch: the reference, for GPUs, and for models without a graph."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.folding import fold_batchnorms
from ramctl.checkpoints.load import load_model
from ramctl.device import Runtime, set_up_cpu
from ramctl.errors import RunProblem
from ramctl.inference.predictor import Pixels, Scores
from ramctl.model.ram import Encoded

# Photos of 384 px leave 160 MB each in Swin-L's first layers: three of them, or nine of 224 px.
PIXELS_AT_ONCE = 3 * 384 * 384


class TorchPredictor:
    """Scores photos with the torch model; labels are prepared once.

    With `side_by_side` on a CPU, batches may run in several Python threads with one thread each:
    small operations lose less than to two threads that wait for each other.
    """

    def __init__(
        self,
        bundle: Bundle,
        rows: NDArray[np.float32],
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        side_by_side: bool = False,
        captioning: bool = False,
    ) -> None:
        self.say: Callable[[str], None] = lambda message: None  # tells the user, once
        self._most = sys.maxsize  # photos at a time; less after memory ran out
        self._runtime = Runtime.choose(device, dtype)
        self.device = self._runtime.device
        self.side_by_side = side_by_side and self.device.type == "cpu"
        set_up_cpu(threads or 1 if self.side_by_side else threads)
        self.model = load_model(bundle, captioning=captioning)
        size = bundle.preprocess.size
        fold_batchnorms(self.model.encoder, torch.zeros(1, 3, size, size))
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.inference_mode():
            self.labels = self.model.prepare_labels(torch.from_numpy(rows).to(self.device))
        # The rows were given: a second copy of the descriptions would be a third of RAM++'s memory.
        self.model.labels.text = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    def scores(self, photos: Pixels) -> Scores:
        """Probabilities (B, L) of photos (B, 3, S, S), in smaller batches once memory ran out.

        Raises RunProblem when it runs out with a single photo.
        """
        return self._in_parts(photos, self._score)

    def _in_parts(self, photos: Pixels, score: Callable[[Pixels], Scores]) -> Scores:
        while True:
            size = min(self._most, len(photos))
            try:
                starts = range(0, len(photos), size)
                return np.concatenate([score(photos[i : i + size]) for i in starts])
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise RunProblem(f"{self.device}: not enough memory for one photo") from error
                self._most = size // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.say(f"{self.device}: out of memory with {size} photos, going on with {self._most}")

    def _score(self, photos: Pixels) -> Scores:
        with torch.inference_mode(), self.precision():
            encoded = self.encode(photos)
            logits = self.model.tag_logits(encoded, self.labels)
            scores: Scores = logits.float().sigmoid().cpu().numpy()
        return scores

    def encode(self, photos: Pixels) -> Encoded:
        """The photos as the decoders see them; the encoder takes a few at a time on a CPU."""
        tensor = self.to_device(photos)
        number = len(tensor)
        if self.device.type == "cpu":
            number = max(1, PIXELS_AT_ONCE // (tensor.shape[-1] * tensor.shape[-2]))
        parts = [self.model.encoder(part) for part in tensor.split(max(1, number))]
        return self.model.encode(parts[0] if len(parts) == 1 else torch.cat(parts))

    def to_device(self, photos: Pixels) -> torch.Tensor:
        """The photos as the encoder likes them best."""
        tensor = torch.from_numpy(photos).to(self.device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last)

    def precision(self) -> AbstractContextManager[object]:
        """The context in which the model runs."""
        return self._runtime.precision()
