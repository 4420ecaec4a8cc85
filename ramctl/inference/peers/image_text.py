"""Image-text models: CLIP and SigLIP score a photo against the text of each label.

B photos, L labels, E width of the space that photos and texts share.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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


class ContrastivePeer(peer.Peer):
    """Score: (1 + cosine) / 2 of photo and text, which keeps the cosine's order."""

    model_class: ClassVar[Any]
    model_type: ClassVar[str]
    _texts: Tensor  # unit vectors (L, E)

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        self._processor = load_image_processor(folder)
        kinds = (self.model_type,)
        self._model: Any = load_pretrained(self.model_class, folder, runtime.device, kinds=kinds)

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[peer.Pixels]) -> peer.Scores:
        pixels = peer.pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            vectors = self._embed_photos(pixels)
        return self._from_cosine(normalize(vectors.float(), dim=-1) @ self._texts.T)

    @torch.inference_mode()
    def _embed_labels(self, batches: Iterable[Any], embed: Callable[..., Tensor]) -> Tensor:
        """Unit vectors (L, E) of the labels' tokens, which `embed` makes vectors of any length."""
        with self._runtime.precision():
            rows = [embed(**tokens).float() for tokens in batches]
        return normalize(torch.cat(rows), dim=-1)

    def _embed_photos(self, pixels: Tensor) -> Tensor:
        """The photos in the shared space (B, E), of any length."""
        raise NotImplementedError

    def _from_cosine(self, cosines: Tensor) -> peer.Scores:
        return peer.from_cosine(cosines)


class ClipPeer(ContrastivePeer):
    """CLIP: the cosine of a photo with the text of each label."""

    kind = model_type = "clip"
    model_class: ClassVar[Any] = CLIPModel
    threshold = 0.625  # in OpenAI's models a photo and what it shows have a cosine of about 0.25
    template: ClassVar[str] = "a photo of a {}"
    text_options: ClassVar[Mapping[str, Any]] = {"padding": True, "truncation": True}

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        tokens = peer.token_batches(
            load_tokenizer(folder), self.template, labels, runtime, **self.text_options
        )
        embed = self._model.get_text_features
        self._texts = self._embed_labels(tokens, lambda **inputs: embed(**inputs).pooler_output)

    def _embed_photos(self, pixels: Tensor) -> Tensor:
        return self._model.get_image_features(pixel_values=pixels).pooler_output


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
