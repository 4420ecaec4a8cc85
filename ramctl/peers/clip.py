"""CLIP: the cosine of a photo with the mean of each label's 63 prompts."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ramctl.device import Runtime
from ramctl.peers.base import Peer, Photo, Scores, from_cosine
from ramctl.peers.pixels import middle, pixel_values, usual_batch
from ramctl.pretrained.transformers_folder import fingerprint, load_image_processor, load_pretrained
from ramctl.text.clip import ClipTextEncoder


class ClipPeer(Peer):
    """Score: (1 + cosine) / 2, so that the order of photos and labels is the cosine's."""

    # A photo and a label that it shows have a cosine of about 0.25 in OpenAI's models.
    threshold = 0.625

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        from transformers import CLIPVisionModelWithProjection

        hashed = fingerprint([folder], "clip", labels, runtime.dtype)
        super().__init__(labels, fingerprint=hashed, batch=usual_batch(runtime))
        self._runtime = runtime
        texts = ClipTextEncoder(str(folder), runtime=runtime).embed_names(self.labels)
        self._texts = torch.from_numpy(texts).to(runtime.device)  # (L, E)
        self._processor = load_image_processor(folder)
        self._model = load_pretrained(
            CLIPVisionModelWithProjection, folder, runtime.device, kinds=("clip",)
        )

    @torch.inference_mode()
    def _score(self, photos: Sequence[Photo]) -> Scores:
        if self._processor.do_center_crop:
            photos = [middle(photo) for photo in photos]
        pixels = pixel_values(self._processor, photos, self._runtime)
        with self._runtime.precision():
            vectors = self._model(pixel_values=pixels).image_embeds  # (B, E)
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        return from_cosine((unit @ self._texts.T).cpu().numpy())
