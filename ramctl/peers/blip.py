"""BLIP: its image-text matching head, or the cosine of its contrastive space.

B photos, L labels, N image tokens.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ramctl.device import Runtime
from ramctl.peers.base import Peer, Photo, Scores, from_cosine
from ramctl.peers.pixels import pixel_values, usual_batch
from ramctl.pretrained.transformers_folder import (
    fingerprint,
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)

_TEMPLATE = "a picture of {}"  # the prompt that BLIP's captions were trained with
_TEXTS_AT_ONCE = 64


class _Blip(Peer):
    """What both uses of the model share."""

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        from transformers import BlipForImageTextRetrieval

        hashed = fingerprint([folder], type(self).__name__, labels, runtime.dtype)
        super().__init__(labels, fingerprint=hashed, batch=usual_batch(runtime))
        self._runtime = runtime
        self._processor = load_image_processor(folder)
        self._tokenizer = load_tokenizer(folder)
        self._model: Any = load_pretrained(
            BlipForImageTextRetrieval, folder, runtime.device, kinds=("blip",)
        )
        self._tokens = list(self._text_batches())

    def _text_batches(self) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(self.labels), _TEXTS_AT_ONCE):
            some = self.labels[start : start + _TEXTS_AT_ONCE]
            texts = [_TEMPLATE.format(label) for label in some]
            tokens = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            names = ("input_ids", "attention_mask")
            yield {name: tokens[name].to(self._runtime.device) for name in names}

    def _image_tokens(self, photos: Sequence[Photo]) -> torch.Tensor:
        pixels = pixel_values(self._processor, photos, self._runtime)
        tokens: torch.Tensor = self._model.vision_model(pixel_values=pixels).last_hidden_state
        return tokens  # (B, N, width)


class BlipMatchingPeer(_Blip):
    """Score: the matching head's probability that the text fits the photo.

    Each label is read together with the photo, so that the cost grows with photos times labels.
    """

    @torch.inference_mode()
    def _score(self, photos: Sequence[Photo]) -> Scores:
        with self._runtime.precision():
            rows = [self._match(tokens[None]) for tokens in self._image_tokens(photos)]
        scores: Scores = torch.stack(rows).float().cpu().numpy()
        return scores

    def _match(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities (L) of one photo's tokens (1, N, width)."""
        shares = []
        for text in self._tokens:
            n_texts = len(text["input_ids"])
            read = self._model.text_encoder(
                **text,
                encoder_hidden_states=image.expand(n_texts, -1, -1),
                encoder_attention_mask=image.new_ones(n_texts, image.shape[1], dtype=torch.long),
            ).last_hidden_state
            shares.append(self._model.itm_head(read[:, 0]).float().softmax(-1)[:, 1])
        return torch.cat(shares)


class BlipContrastivePeer(_Blip):
    """Score: (1 + cosine) / 2 of photo and text."""

    threshold = 0.65  # a cosine of 0.3

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        self._texts = self._embed()  # (L, E)

    @torch.inference_mode()
    def _embed(self) -> torch.Tensor:
        rows = []
        with self._runtime.precision():
            for text in self._tokens:
                read = self._model.text_encoder(**text).last_hidden_state
                rows.append(self._model.text_proj(read[:, 0]).float())
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    @torch.inference_mode()
    def _score(self, photos: Sequence[Photo]) -> Scores:
        with self._runtime.precision():
            vectors = self._model.vision_proj(self._image_tokens(photos)[:, 0])
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return from_cosine((unit @ self._texts.T).cpu().numpy())
