"""Mask2Former and OneFormer: panoptic segmenters, whose segments' classes are the tags.

They stand for ODISE and SEEM. B photos, Q queries (segments), C classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForUniversalSegmentation

from ramctl.device import Runtime
from ramctl.engine.peers.peer import Pixels, Scores, pixel_values, widen_strip
from ramctl.pretrained.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
    read_config,
)
from ramctl_taggers.closed_set import ClosedSetPeer, class_names


class Mask2FormerPeer(ClosedSetPeer):
    """Score: the highest probability that any segment has for the class.

    One photo at a time: in a batch the smaller photos would be padded, which moves their scores.
    """

    kind, model_type = "Mask2FormerPeer", "mask2former"
    needs_fp32 = True
    processor_options: ClassVar[Mapping[str, Any]] = {}
    processor_inputs: ClassVar[Mapping[str, Any]] = {}  # with every photo

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        names = class_names(read_config(folder), "id2label", folder / "config.json")
        super().__init__(folder, names, labels, runtime, batch=1)
        self._processor = load_image_processor(folder, **self.processor_options)
        self._model: Any = load_pretrained(
            AutoModelForUniversalSegmentation, folder, runtime.device, kinds=(self.model_type,)
        )
        self._model_inputs: dict[str, Any] = {}  # with every photo

    @torch.inference_mode()
    def _class_scores(self, photos: Sequence[Pixels]) -> Scores:
        rows = [self._segment(widen_strip(photo)).float().softmax(-1) for photo in photos]
        shares = torch.stack([row[0, :, :-1].amax(0) for row in rows])  # last class: no object
        return shares.cpu().numpy().astype(np.float32)

    def _segment(self, photo: Pixels) -> torch.Tensor:
        """Class logits (1, Q, C + 1) of one photo's segments."""
        pixels = pixel_values(self._processor, [photo], self._runtime, **self.processor_inputs)
        with self._runtime.precision():
            return self._model(pixel_values=pixels, **self._model_inputs).class_queries_logits


class OneFormerPeer(Mask2FormerPeer):
    """The same with a OneFormer, which is asked for the panoptic task."""

    kind, model_type = "OneFormerPeer", "oneformer"
    # The class names of its training texts would be fetched from the hub; tagging needs none.
    processor_options: ClassVar[Mapping[str, Any]] = {"class_info_file": None}
    processor_inputs: ClassVar[Mapping[str, Any]] = {"task_inputs": ["panoptic"]}

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        task = load_tokenizer(folder)(
            ["the task is panoptic"],
            padding="max_length",
            max_length=self._model.config.task_seq_len,
            truncation=True,
            return_tensors="pt",
        )
        # As the library's processor does it: padding is 0, whatever the tokenizer pads with.
        task_ids = task["input_ids"] * task["attention_mask"]
        self._model_inputs["task_inputs"] = task_ids.to(runtime.device)
