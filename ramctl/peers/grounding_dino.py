"""Grounding DINO: boxes of labels in a photo, and the best box's score as the label's.

Q boxes that the model proposes, T tokens of a prompt (at most 256), L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from ramctl.checkpoints.weights import weight_files
from ramctl.device import Runtime
from ramctl.errors import RunProblem, UsageProblem
from ramctl.peers.base import Peer, Photo, Scores, pixel_values, widen_strip
from ramctl.pretrained.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)

if TYPE_CHECKING:
    from ramctl.peers.grounding_dino_original import OriginalBackend

Box = tuple[float, float, float, float]
NOWHERE: Box = (0.0, 0.0, 1.0, 1.0)

MAX_TOKENS = 256  # of a prompt; fixed in the model
# Where the text encoder cuts a prompt into phrases that do not see each other. transformers' port
# looks for these ids, whatever the tokenizer says.
_DELIMITERS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
_WITHOUT_DELIMITERS = str.maketrans({".": " ", "?": " "})


class Detection(NamedTuple):
    """A label's best box, `[x0, y0, x1, y1]` as shares of width and height, and its score."""

    box: Box
    score: float


@dataclass(slots=True)
class Prompt:
    """One text for the detector, and what it asks for: `dog. traffic light.`"""

    text: str = ""
    labels: list[int] = field(default_factory=list)  # positions in the list of labels
    # The first token of each and the one after the last, without the full stop.
    spans: list[tuple[int, int]] = field(default_factory=list)
    n_tokens: int = 1  # [CLS]

    def has_room(self, n_tokens: int) -> bool:
        """Whether a phrase of so many tokens fits, with its full stop and [SEP]."""
        return self.n_tokens + n_tokens + 2 <= MAX_TOKENS

    def add(self, label: int, phrase: str, n_tokens: int) -> None:
        """Ask for one more label."""
        self.text += f" {phrase}." if self.text else f"{phrase}."
        self.labels.append(label)
        self.spans.append((self.n_tokens, self.n_tokens + n_tokens))
        self.n_tokens += n_tokens + 1


def pack_prompts(labels: Sequence[str], tokenize: Callable[[str], list[int]]) -> list[Prompt]:
    """Prompts, filled up in the order of the labels, that hold every label whole.

    `tokenize` leaves out [CLS] and [SEP]. A label without a token (`...`) is in no prompt; one
    that does not fit into a prompt raises UsageProblem.
    """
    prompts: list[Prompt] = []
    for index, label in enumerate(labels):
        phrase = " ".join(label.translate(_WITHOUT_DELIMITERS).lower().split())
        n_tokens = len(tokenize(phrase))
        if not Prompt().has_room(n_tokens):
            raise UsageProblem(f"label {label[:40]!r}...: longer than one prompt of the detector")
        if n_tokens == 0:
            continue
        if not prompts or not prompts[-1].has_room(n_tokens):
            prompts.append(Prompt())
        prompts[-1].add(index, phrase, n_tokens)
    return prompts


class GroundingDino(Peer):
    """Score: the highest of any box: the label's tokens' mean probability, as the authors' on COCO.

    Labels that do not fit into one prompt make several, each a pass of the model. One photo at a
    time: padding a smaller one would change its scores.
    """

    kind = "grounding-dino"
    threshold = 0.35  # box_threshold of the authors' demo
    needs_fp32 = True
    _backend: "PortBackend | OriginalBackend"

    def __init__(self, path: Path, labels: Sequence[str], runtime: Runtime) -> None:
        """`path`: a folder of transformers, or the authors' `.pth` or its folder."""
        super().__init__(path, labels, runtime, batch=1)
        if path.is_file() or any(file.suffix == ".pth" for file in weight_files(path)):
            from ramctl.peers.grounding_dino_original import OriginalBackend

            self._backend = OriginalBackend(path, runtime)
        else:
            self._backend = PortBackend(path, runtime)
        self._prompts = pack_prompts(self.labels, self._tokenize)

    def _tokenize(self, text: str) -> list[int]:
        return self._backend.tokenizer(text, add_special_tokens=False)["input_ids"]

    def detect(
        self, photos: Sequence[Photo], labels: Sequence[Sequence[str]]
    ) -> list[list[Detection]]:
        """The best box of each of a photo's own labels; the whole photo and 0 without a token."""
        return [
            self._detect(photo, pack_prompts(wanted, self._tokenize), len(wanted))
            for photo, wanted in zip(photos, labels, strict=True)
        ]

    def score_batch(self, photos: Sequence[Photo]) -> Scores:
        rows = [self._detect(photo, self._prompts, len(self.labels)) for photo in photos]
        return np.array([[label.score for label in row] for row in rows], np.float32)

    @torch.inference_mode()
    def _detect(self, photo: Photo, prompts: Sequence[Prompt], n_labels: int) -> list[Detection]:
        found = [Detection(NOWHERE, 0.0)] * n_labels
        if not prompts:
            return found
        prepared = self._backend.prepare(widen_strip(photo))
        for prompt in prompts:
            with self._runtime.precision():
                tokens, boxes = self._backend.detect(prepared, prompt.text)
            means = [tokens[:, start:end].float().mean(1) for start, end in prompt.spans]
            scores = torch.stack(means, 1)  # (Q, L)
            best = scores.argmax(0)
            corners = _corners(boxes.float()[best]).cpu().tolist()
            values = scores.amax(0).cpu().tolist()
            for label, box, value in zip(prompt.labels, corners, values, strict=True):
                found[label] = Detection(tuple(box), value)
        return found


def _corners(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) from centre and size to corners, cut at the photo's border."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    return torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 1)


class PortBackend:
    """transformers' own port: a folder of `GroundingDinoForObjectDetection`."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self.tokenizer = load_tokenizer(folder)
        if any(self.tokenizer.convert_tokens_to_ids(t) != i for t, i in _DELIMITERS.items()):
            raise RunProblem(f"{folder}: the tokenizer is not bert-base-uncased's")
        self._processor = load_image_processor(folder)
        self._model: Any = load_pretrained(
            GroundingDinoForObjectDetection,
            folder,
            runtime.device,
            kinds=("grounding-dino",),
            disable_custom_kernels=True,  # a kernel would be fetched from the hub
        )

    def prepare(self, photo: Photo) -> Tensor:
        """The photo as `detect` takes it: shorter side 800, longer at most 1,333."""
        return pixel_values(self._processor, [photo], self._runtime)

    def detect(self, prepared: Tensor, text: str) -> tuple[Tensor, Tensor]:
        """Token probabilities (Q, T) and boxes (Q, 4) as centre, width and height in shares."""
        tokens = self.tokenizer([text], return_tensors="pt").to(self._runtime.device)
        outputs = self._model(pixel_values=prepared, **tokens)
        return outputs.logits[0].sigmoid(), outputs.pred_boxes[0]
