"""Image-text models: CLIP and SigLIP score a photo against the text of each label.

B photos, L labels, E width of the space that photos and texts share.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, SiglipModel

from ramctl.checkpoints.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)
from ramctl.inference.peers import peer
from ramctl.model.device import Runtime


class ClipPeer(peer.Peer):
    """Score: (1 + cosine) / 2 of a photo and the text of each label, in the cosine's order."""

    kind = model_type = "clip"
    model_class: ClassVar[Any] = CLIPModel
    threshold = 0.625  # in OpenAI's models a photo and what it shows have a cosine of about 0.25
    template: ClassVar[str] = "a photo of a {}"
    text_options: ClassVar[Mapping[str, Any]] = {"padding": True, "truncation": True}

    @torch.inference_mode()
    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        self._processor, tokenizer = load_image_processor(folder), load_tokenizer(folder)
        kinds = (self.model_type,)
        self._model: Any = load_pretrained(self.model_class, folder, runtime.device, kinds=kinds)
        with runtime.precision():
            rows = [
                self._model.get_text_features(**tokens).pooler_output.float()
                for tokens in peer.token_batches(
                    tokenizer, self.template, labels, runtime, **self.text_options
                )
            ]
        self._texts = normalize(torch.cat(rows), dim=-1)  # (L, E)

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[peer.Pixels]) -> peer.Scores:
        pixels = peer.pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            vectors = self._model.get_image_features(pixel_values=pixels).pooler_output
        return self._from_cosine(normalize(vectors.float(), dim=-1) @ self._texts.T)

    def _from_cosine(self, cosines: Tensor) -> peer.Scores:
        return peer.from_cosine(cosines)


class SiglipPeer(ClipPeer):
    """Score: sigmoid(scale * cosine + bias), which SigLIP was trained to make a probability."""

    kind = model_type = "siglip"
    model_class = SiglipModel
    threshold = 0.5
    # As transformers' own pipeline has them for this model.
    template = "This is a photo of {}."
    text_options: ClassVar[Mapping[str, Any]] = {
        "padding": "max_length", "max_length": 64, "truncation": True,
    }  # fmt: skip

    def _from_cosine(self, cosines: Tensor) -> peer.Scores:
        logits = cosines * self._model.logit_scale.exp() + self._model.logit_bias
        return logits.sigmoid().cpu().numpy()
