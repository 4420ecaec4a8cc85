"""BLIP: by its matching head, or by the cosine in its contrastive space.

B photos, L labels, N image tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import BlipForImageTextRetrieval

from ramctl.checkpoints.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)
from ramctl.inference.peers.peer import (
    Peer,
    Pixels,
    Scores,
    from_cosine,
    pixel_values,
    token_batches,
)
from ramctl.model.device import Runtime


class _BlipPeer(Peer):
    """The common part of both ways of scoring with BLIP."""

    _TEMPLATE = "a picture of {}"  # the prompt that BLIP's captions were trained with

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        self._processor = load_image_processor(folder)
        self._model: Any = load_pretrained(
            BlipForImageTextRetrieval, folder, runtime.device, kinds=("blip",)
        )
        tokenizer, cut = load_tokenizer(folder), {"padding": True, "truncation": True}
        batches = token_batches(tokenizer, self._TEMPLATE, labels, runtime, **cut)
        # Not BERT's third field, the segment ids, which this text encoder does not take.
        names = ("input_ids", "attention_mask")
        self._tokens = [{name: tokens[name] for name in names} for tokens in batches]

    def _image_tokens(self, pixels: Tensor) -> Tensor:
        return self._model.vision_model(pixel_values=pixels).last_hidden_state  # (B, N, width)


class BlipMatchingPeer(_BlipPeer):
    """Score: the matching head's probability that the text fits the photo; L passes per photo."""

    kind = "BlipMatchingPeer"

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        pixels = pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            rows = [self._match(tokens[None]) for tokens in self._image_tokens(pixels)]
        return torch.stack(rows).float().cpu().numpy()

    def _match(self, image: Tensor) -> Tensor:
        """Probabilities (L) of one photo's tokens (1, N, width)."""
        rows = []
        for text in self._tokens:
            n_texts = len(text["input_ids"])
            read = self._model.text_encoder(
                **text,
                encoder_hidden_states=image.expand(n_texts, -1, -1),
                encoder_attention_mask=image.new_ones(n_texts, image.shape[1], dtype=torch.long),
            ).last_hidden_state
            rows.append(self._model.itm_head(read[:, 0]).float().softmax(-1)[:, 1])
        return torch.cat(rows)


class BlipContrastivePeer(_BlipPeer):
    """Score: (1 + cosine) / 2 in BLIP's contrastive space."""

    kind = "BlipContrastivePeer"
    threshold = 0.65  # a cosine of 0.3

    @torch.inference_mode()
    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        read, project = self._model.text_encoder, self._model.text_proj
        with runtime.precision():
            rows = [project(read(**text).last_hidden_state[:, 0]).float() for text in self._tokens]
        self._texts = normalize(torch.cat(rows), dim=-1)  # (L, E)

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        pixels = pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            vectors = self._model.vision_proj(self._image_tokens(pixels)[:, 0])
        return from_cosine(normalize(vectors.float(), dim=-1) @ self._texts.T)
