"""Grounding DINO: boxes of labels in a photo, and the best box's score as the label's.

Q boxes that the model proposes, T tokens of a prompt (at most 256), L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GroundingDinoForObjectDetection

from ramctl.checkpoints import transformers_folder
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.peers.peer import Peer, Pixels, Scores, is_strip, pixel_values
from ramctl.model.device import Runtime

Box = tuple[float, float, float, float]
NOWHERE: Box = (0.0, 0.0, 1.0, 1.0)

MAX_TOKENS = 256  # of a prompt; fixed in the model
# Where the text encoder cuts a prompt into phrases that do not see each other. transformers' port
# looks for these ids, whatever the tokenizer's are.
_DELIMITERS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
PORTS = "IDEA-Research/grounding-dino-tiny or -base"
_WITHOUT_DELIMITERS = str.maketrans({".": " ", "?": " "})


class Detection(NamedTuple):
    """A label's best box, `[x0, y0, x1, y1]` as fractions of width and height, and its score."""

    box: Box
    score: float


@dataclass(slots=True)
class Prompt:
    """One text for the detector, and what it asks for: `dog. traffic light.`"""

    text: str = ""
    labels: list[int] = field(default_factory=list)  # positions in the list of labels
    # The first token of each and the one after the last, without the full stop.
    spans: list[tuple[int, int]] = field(default_factory=list)


def pack_prompts(labels: Sequence[str], tokenize: Callable[[str], list[int]]) -> list[Prompt]:
    """Prompts, filled up in the order of the labels, that hold every label whole.

    `tokenize` leaves out [CLS] and [SEP]. A label without a token (`...`) is in no prompt; one
    that does not fit into a prompt raises UsageProblem.
    """
    prompts: list[Prompt] = []
    end = MAX_TOKENS  # of the last prompt's tokens
    for index, label in enumerate(labels):
        phrase = " ".join(label.translate(_WITHOUT_DELIMITERS).lower().split())
        n_tokens = len(tokenize(phrase))
        if n_tokens + 3 > MAX_TOKENS:  # with [CLS], its full stop and [SEP]
            raise UsageProblem(f"label {label[:40]!r}...: longer than one prompt of the detector")
        if n_tokens == 0:
            continue
        if end + n_tokens + 2 > MAX_TOKENS:
            prompts.append(Prompt())
            end = 1
        prompt = prompts[-1]
        prompt.text += f" {phrase}." if prompt.text else f"{phrase}."
        prompt.labels.append(index)
        prompt.spans.append((end, end + n_tokens))
        end += n_tokens + 1
    return prompts


class GroundingDino(Peer):
    """Score: the highest of any box: the label's tokens' mean probability, as the authors' on COCO.

    PATH is a folder of transformers' port. Labels that do not fit into one prompt make several,
    each a pass of the model. One photo at a time: padding a smaller one would change its scores.
    """

    kind = "grounding-dino"
    threshold = 0.35  # box_threshold of the authors' demo
    needs_fp32 = True

    def __init__(self, path: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(path, labels, runtime, batch=1)
        if path.is_file() or any(path.glob("*.pth")):
            raise RunProblem(f"{path}: an original checkpoint; its port is hf://{PORTS}")
        self._tokenizer = transformers_folder.load_tokenizer(path)
        if any(self._tokenizer.convert_tokens_to_ids(t) != i for t, i in _DELIMITERS.items()):
            raise RunProblem(f"{path}: the tokenizer is not bert-base-uncased's")
        self._processor = transformers_folder.load_image_processor(path)
        self._model: Any = transformers_folder.load_pretrained(
            GroundingDinoForObjectDetection, path, runtime.device, kinds=("grounding-dino",),
            disable_custom_kernels=True,  # a kernel would be fetched from the hub
        )  # fmt: skip
        self._prompts = pack_prompts(self.labels, self._tokenize)

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def detect(self, photo: Pixels, labels: Sequence[str]) -> list[Detection]:
        """The best box of each label; the whole photo and 0 without a token, and in a strip."""
        return self._detect(photo, pack_prompts(labels, self._tokenize), len(labels))

    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        rows = [self._detect(photo, self._prompts, len(self.labels)) for photo in photos]
        return np.array([[label.score for label in row] for row in rows], np.float32)

    @torch.inference_mode()
    def _detect(self, photo: Pixels, prompts: Sequence[Prompt], n_labels: int) -> list[Detection]:
        found = [Detection(NOWHERE, 0.0)] * n_labels
        if not prompts or is_strip(photo):
            return found
        # Shorter side 800, longer at most 1,333.
        pixels = pixel_values(self._processor, [photo], self._runtime)
        for prompt in prompts:
            tokens = self._tokenizer([prompt.text], return_tensors="pt").to(self._runtime.device)
            with self._runtime.precision():
                outputs = self._model(pixel_values=pixels, **tokens)
            probabilities = outputs.logits[0].sigmoid()  # (Q, T)
            means = [probabilities[:, start:end].float().mean(1) for start, end in prompt.spans]
            scores = torch.stack(means, 1)  # (Q, L)
            best = outputs.pred_boxes[0].float()[scores.argmax(0)]
            centre, size = best.split(2, dim=1)
            corners = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 1)
            values = scores.amax(0).tolist()
            for label, box, value in zip(prompt.labels, corners.tolist(), values, strict=True):
                found[label] = Detection(tuple(box), value)
        return found
