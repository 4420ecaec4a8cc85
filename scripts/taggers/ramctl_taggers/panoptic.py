"""Mask2Former: a panoptic segmenter, whose segments' classes are the tags.

It stands for ODISE and SEEM. B photos, Q queries (segments), C classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForUniversalSegmentation

from ramctl.checkpoints.transformers_folder import (
    load_image_processor,
    load_pretrained,
    read_config,
)
from ramctl.inference.peers.peer import Pixels, Scores, pixel_values
from ramctl.model.device import Runtime
from ramctl_taggers.closed_set import ClosedSetPeer, class_names


class Mask2FormerPeer(ClosedSetPeer):
    """Score: the highest probability that any segment has for the class.

    One photo at a time: in a batch the smaller photos would be padded, which moves their scores.
    """

    kind = "Mask2FormerPeer"
    needs_fp32 = True

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        names = class_names(read_config(folder), "id2label", folder / "config.json")
        super().__init__(folder, names, labels, runtime, batch=1)
        self._processor = load_image_processor(folder)
        self._model: Any = load_pretrained(
            AutoModelForUniversalSegmentation, folder, runtime.device, kinds=("mask2former",)
        )

    @torch.inference_mode()
    def _class_scores(self, photos: Sequence[Pixels]) -> Scores:
        rows = [self._segment(photo).float().softmax(-1) for photo in photos]
        shares = torch.stack([row[0, :, :-1].amax(0) for row in rows])  # last class: no object
        return shares.cpu().numpy().astype(np.float32)

    def _segment(self, photo: Pixels) -> torch.Tensor:
        """Class logits (1, Q, C + 1) of one photo's segments."""
        pixels = pixel_values(self._processor, [photo], self._runtime)
        with self._runtime.precision():
            return self._model(pixel_values=pixels).class_queries_logits
