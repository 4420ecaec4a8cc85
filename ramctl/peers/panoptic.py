"""Mask2Former and OneFormer: panoptic segmenters, whose segments' classes are the tags.

They stand for ODISE and SEEM. B photos, Q queries (segments), C classes.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Mask2FormerForUniversalSegmentation, OneFormerForUniversalSegmentation

from ramctl.device import Runtime
from ramctl.errors import RunProblem
from ramctl.peers.base import Photo, Scores, pixel_values, widen_strip
from ramctl.peers.closed_set import ClosedSetPeer
from ramctl.pretrained.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
    read_config,
)


class _PanopticPeer(ClosedSetPeer):
    """Score: the highest probability that any segment has for the class.

    One photo at a time: in a batch the smaller photos would be padded, which moves their scores.
    """

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, _class_names(folder), labels, runtime, batch=1)

    @torch.inference_mode()
    def _class_scores(self, photos: Sequence[Photo]) -> Scores:
        rows = [self._segment(widen_strip(photo)).float().softmax(-1) for photo in photos]
        shares = torch.stack([row[0, :, :-1].amax(0) for row in rows])  # last class: no object
        return shares.cpu().numpy().astype(np.float32)

    @abstractmethod
    def _segment(self, photo: Photo) -> torch.Tensor:
        """Class logits (1, Q, C + 1) of one photo's segments."""


class Mask2FormerPeer(_PanopticPeer):
    """A Mask2Former of the transformers library."""

    kind = "Mask2FormerPeer"

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        self._processor = load_image_processor(folder)
        self._model: Any = load_pretrained(
            Mask2FormerForUniversalSegmentation, folder, runtime.device, kinds=("mask2former",)
        )

    def _segment(self, photo: Photo) -> torch.Tensor:
        pixels = pixel_values(self._processor, [photo], self._runtime)
        with self._runtime.precision():
            logits: torch.Tensor = self._model(pixel_values=pixels).class_queries_logits
        return logits


class OneFormerPeer(_PanopticPeer):
    """A OneFormer of the transformers library, asked for the panoptic task."""

    kind = "OneFormerPeer"

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        # The class names of its training texts would be fetched from the hub; tagging needs none.
        self._processor = load_image_processor(folder, class_info_file=None)
        self._model: Any = load_pretrained(
            OneFormerForUniversalSegmentation, folder, runtime.device, kinds=("oneformer",)
        )
        task = load_tokenizer(folder)(
            ["the task is panoptic"],
            padding="max_length",
            max_length=self._model.config.task_seq_len,
            truncation=True,
            return_tensors="pt",
        )
        # As the library's processor does it: padding is 0, whatever the tokenizer pads with.
        self._task = (task["input_ids"] * task["attention_mask"]).to(runtime.device)

    def _segment(self, photo: Photo) -> torch.Tensor:
        pixels = self._processor(
            [photo], ["panoptic"], return_tensors="pt", input_data_format="channels_last"
        )["pixel_values"].to(self._runtime.device)
        with self._runtime.precision():
            outputs = self._model(pixel_values=pixels, task_inputs=self._task)
        return outputs.class_queries_logits


def _class_names(folder: Path) -> list[str]:
    """The class names by id; RunProblem when config.json has none."""
    names = read_config(folder).get("id2label")
    if not isinstance(names, dict) or not names:
        raise RunProblem(f"{folder / 'config.json'}: no class names (id2label)")
    return [str(names[key]) for key in sorted(names, key=int)]
