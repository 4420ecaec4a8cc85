"""Models of open_clip: CLIP and SigLIP in its own format, by a folder or a repository of the hub.

B photos, L labels, E width of the space that photos and texts share.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.nn.functional import normalize

from ramctl.device import Runtime
from ramctl.engine.peers.peer import Peer, Pixels, Scores, crop_strip, from_cosine
from ramctl.errors import RunProblem
from ramctl.text.clip import label_prompts


class OpenClipPeer(Peer):
    """Score: (1 + cosine) / 2 of a photo and the mean of a label's 63 prompts.

    Of a model that was trained with a sigmoid loss it is the probability that this makes of the
    cosine. PATH holds `open_clip_config.json` and the weights beside it.
    """

    kind = "open-clip"
    threshold = 0.625  # in OpenAI's models a photo and what it shows have a cosine of about 0.25

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        super().__init__(folder, labels, runtime)
        if not (folder / "open_clip_config.json").is_file():
            raise RunProblem(f"{folder}: no open_clip_config.json in it")
        name, device = f"local-dir:{folder}", runtime.device
        try:
            model: Any
            model, _, self._preprocess = open_clip.create_model_and_transforms(name, device=device)
            self._tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, SafetensorError, ValueError, KeyError) as error:
            raise RunProblem(f"{folder}: {str(error).splitlines()[0]}") from error
        self._model = model.eval()
        with torch.inference_mode(), runtime.precision():
            self._texts = torch.stack([self._embed_label(label) for label in labels])  # (L, E)

    def _embed_label(self, label: str) -> torch.Tensor:
        tokens = self._tokenize(label_prompts(label)).to(self._runtime.device)
        vectors = normalize(self._model.encode_text(tokens).float(), dim=-1)
        return normalize(vectors.mean(0), dim=0)

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        pictures = [self._preprocess(Image.fromarray(crop_strip(photo))) for photo in photos]
        pixels = torch.stack(pictures).to(self._runtime.device)
        with self._runtime.precision():
            vectors = self._model.encode_image(pixels)
        cosines = normalize(vectors.float(), dim=-1) @ self._texts.T
        bias = getattr(self._model, "logit_bias", None)
        if bias is None:
            return from_cosine(cosines)
        probabilities = (cosines * self._model.logit_scale.exp() + bias).sigmoid()
        return probabilities.float().cpu().numpy().astype(np.float32)
