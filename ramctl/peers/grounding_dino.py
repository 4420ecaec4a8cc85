"""Grounding DINO: boxes of labels in a photo, and the best box's score as the label's.

Q boxes that the model proposes, T tokens of a prompt, L labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ramctl.device import Runtime
from ramctl.peers.base import Peer, Photo, Scores
from ramctl.peers.checkpoints import weight_files
from ramctl.peers.pixels import thicken
from ramctl.peers.prompts import Prompt, pack_prompts
from ramctl.pretrained.transformers_folder import fingerprint

Box = tuple[float, float, float, float]
NOWHERE: Box = (0.0, 0.0, 1.0, 1.0)


class Detection(NamedTuple):
    """A label's best box, `[x0, y0, x1, y1]` in shares of width and height, and its score."""

    box: Box
    score: float


class Backend(Protocol):
    """One of the two implementations of the model."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids without [CLS] and [SEP]."""
        ...

    def prepare(self, photo: Photo) -> object:
        """The photo as `detect` takes it: shorter side 800, longer at most 1,333."""
        ...

    def detect(self, prepared: object, text: str) -> tuple[Tensor, Tensor]:
        """Token probabilities (Q, T) and boxes (Q, 4) as centre, width and height in shares."""
        ...


class GroundingDino(Peer):
    """Score: the highest score of any box, which is the mean probability of the label's tokens.

    The mean is what the authors evaluate on COCO with. All labels go into one prompt if they
    fit its 256 tokens, else into several, each a pass; in company of others a label's score
    moves a little, so the grouping is fixed by the labels' order. One photo at a time: padding
    a smaller one would move its scores.
    """

    threshold = 0.35  # box_threshold of the authors' demo

    def __init__(
        self, backend: Backend, path: Path, labels: Sequence[str], runtime: Runtime
    ) -> None:
        hashed = fingerprint([path], "grounding-dino", labels, runtime.dtype)
        super().__init__(labels, fingerprint=hashed)
        self._backend = backend
        self._runtime = runtime
        self._prompts = pack_prompts(self.labels, backend.tokenize)

    @classmethod
    def open(
        cls, path: Path, labels: Sequence[str] = (), runtime: Runtime | None = None
    ) -> "GroundingDino":
        """The detector in a folder of transformers, or in the authors' `.pth` (or its folder).

        `labels` are those of `scores`; `detect` is told its own.
        """
        runtime = runtime or Runtime.choose()
        backend: Backend
        if path.is_file() or any(file.suffix == ".pth" for file in weight_files(path)):
            from ramctl.peers.grounding_dino_original import OriginalBackend

            backend = OriginalBackend(path, runtime)
        else:
            from ramctl.peers.grounding_dino_port import PortBackend

            backend = PortBackend(path, runtime)
        return cls(backend, path, labels, runtime)

    def detect(
        self, photos: Sequence[Photo], labels: Sequence[Sequence[str]]
    ) -> list[list[Detection]]:
        """For each photo and each of its own labels the best box and its score.

        One pass a photo while its labels fit one prompt. A label that cannot be written in the
        model's vocabulary gets the whole photo and 0.
        """
        found = []
        for photo, wanted in zip(photos, labels, strict=True):
            prompts = pack_prompts(wanted, self._backend.tokenize)
            found.append(self._detect(photo, prompts, len(wanted)))
        return found

    def _score(self, photos: Sequence[Photo]) -> Scores:
        n_labels = len(self.labels)
        rows = [self._detect(photo, self._prompts, n_labels) for photo in photos]
        return np.array([[label.score for label in row] for row in rows], np.float32).reshape(
            len(photos), n_labels
        )

    @torch.inference_mode()
    def _detect(self, photo: Photo, prompts: Sequence[Prompt], n_labels: int) -> list[Detection]:
        found = [Detection(NOWHERE, 0.0)] * n_labels
        prepared = self._backend.prepare(thicken(photo)) if prompts else None
        for prompt in prompts:
            with self._runtime.precision():
                tokens, boxes = self._backend.detect(prepared, prompt.text)
            scores = label_scores(tokens.float(), prompt)  # (Q, L)
            best = scores.argmax(0)
            corners = _corners(boxes.float()[best]).cpu().tolist()
            values = scores.amax(0).cpu().tolist()
            for label, box, value in zip(prompt.labels, corners, values, strict=True):
                found[label] = Detection(tuple(box), value)
        return found


def label_scores(tokens: Tensor, prompt: Prompt) -> Tensor:
    """Scores (Q, L) of boxes out of their token probabilities (Q, T)."""
    return torch.stack([tokens[:, start:end].mean(1) for start, end in prompt.spans], 1)


def _corners(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) from centre and size to corners, cut at the photo's border."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 1)
