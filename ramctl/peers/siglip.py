"""SigLIP: the model's own probability that a text fits a photo."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ramctl.device import Runtime
from ramctl.peers.base import Peer, Photo, Scores
from ramctl.peers.pixels import pixel_values, usual_batch
from ramctl.pretrained.transformers_folder import (
    fingerprint,
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)

# The template and the fixed text length that transformers' own pipeline uses with this model.
_TEMPLATE = "This is a photo of {}."
_TEXT_TOKENS = 64
_TEXTS_AT_ONCE = 64


class SiglipPeer(Peer):
    """Score: sigmoid(scale * cosine + bias), which SigLIP was trained to make a probability."""

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        from transformers import SiglipModel

        hashed = fingerprint([folder], "siglip", labels, runtime.dtype)
        super().__init__(labels, fingerprint=hashed, batch=usual_batch(runtime))
        self._runtime = runtime
        self._processor = load_image_processor(folder)
        self._model = load_pretrained(SiglipModel, folder, runtime.device, kinds=("siglip",))
        self._texts = self._embed(load_tokenizer(folder))  # (L, E)

    @torch.inference_mode()
    def _embed(self, tokenizer: object) -> torch.Tensor:
        longest = min(_TEXT_TOKENS, self._model.config.text_config.max_position_embeddings)
        rows = []
        for start in range(0, len(self.labels), _TEXTS_AT_ONCE):
            some = self.labels[start : start + _TEXTS_AT_ONCE]
            tokens = tokenizer(  # type: ignore[operator]
                [_TEMPLATE.format(label) for label in some],
                padding="max_length",
                max_length=longest,
                truncation=True,
                return_tensors="pt",
            ).to(self._runtime.device)
            with self._runtime.precision():
                rows.append(self._model.text_model(**tokens).pooler_output.float())
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)

    @torch.inference_mode()
    def _score(self, photos: Sequence[Photo]) -> Scores:
        pixels = pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            vectors = self._model.vision_model(pixel_values=pixels).pooler_output
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        logits = unit @ self._texts.T * self._model.logit_scale.exp() + self._model.logit_bias
        scores: Scores = logits.sigmoid().cpu().numpy()
        return scores
