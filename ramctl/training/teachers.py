"""Teachers: a CLIP model, the embedding of a photo's captions, and the backbone as it was.

B photos, S pixels a side, E text width, K classes of the backbone.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ramctl.errors import RunProblem
from ramctl.model.config import PreprocessConfig
from ramctl.model.ram import RAM
from ramctl.text.encoder import TextEncoder
from ramctl.training.annotations import read_annotation
from ramctl.training.record_file import RecordFile
from ramctl.training.text_vectors import embed_captions

RECORDS_AT_ONCE = 256


def remember_caption_vectors(
    path: Path, records: RecordFile, encoder: TextEncoder, on_done: Callable[[int], None]
) -> NDArray[np.float16]:
    """The mean vector of each record's captions (N, E), kept in `path`; zeros without captions.

    The file only grows: what is there is not computed again. `on_done` may raise to stop.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row_bytes = 2 * encoder.width
    done = path.stat().st_size // row_bytes if path.is_file() else 0
    with path.open("ab") as stream:
        stream.truncate(done * row_bytes)
        for start in range(done, len(records), RECORDS_AT_ONCE):
            block = range(start, min(start + RECORDS_AT_ONCE, len(records)))
            captions = [read_annotation(records[index]).captions for index in block]
            vectors = embed_captions([[c.text for c in texts] for texts in captions], encoder)
            stream.write(vectors.astype(np.float16).tobytes())
            stream.flush()
            on_done(len(block))
    return np.memmap(path, np.float16, "r", shape=(len(records), encoder.width))


class ClipTeacher(nn.Module):
    """A frozen CLIP of a local folder in transformers' format.

    It sees the crop that the student sees, in its own size and normalisation. Source: the authors
    distil from CLIP ViT-B/16, features not normalised, texts normalised (ram_official A4).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, folder: Path, preprocess: PreprocessConfig) -> None:
        super().__init__()
        if not (folder / "config.json").is_file():
            raise RunProblem(
                f"{folder}: no CLIP model there (config.json is missing); "
                "--distill clip:FOLDER takes a folder in transformers' format"
            )
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.clip: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
        self.clip.requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor: Any = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        config: Any = self.clip.config
        self.size = int(config.vision_config.image_size)
        own_mean, own_std = _column(preprocess.mean), _column(preprocess.std)
        mean, std = _column(processor.image_mean), _column(processor.image_std)
        self.register_buffer("scale", own_std / std, persistent=False)
        self.register_buffer("shift", (own_mean - mean) / std, persistent=False)

    def train(self, mode: bool = True) -> "ClipTeacher":
        """Always in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def photo_features(self, photos: Tensor) -> Tensor:
        """(B, E) of the student's normalised photos (B, 3, S, S)."""
        photos = photos * self.scale + self.shift
        if photos.shape[-1] != self.size:
            photos = F.interpolate(photos, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.clip.vision_model(pixel_values=photos).pooler_output
        features: Tensor = self.clip.visual_projection(pooled)
        return features

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), E), unit length; long texts are cut."""
        device = next(self.clip.parameters()).device
        pieces = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.clip.text_model(**pieces.to(device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)


class FormerBackbone(nn.Module):
    """The encoder and its own classifier as they are before training: what must not be forgotten.

    It takes what the encoder takes, photos or what is kept of them.
    """

    def __init__(self, model: RAM) -> None:
        super().__init__()
        assert model.prior is not None
        self.encoder = copy.deepcopy(model.encoder)
        self.prior = copy.deepcopy(model.prior)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FormerBackbone":
        """Always in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """The class-name mixture (B, E) and the classifier's logits (B, K)."""
        features = self.encoder(photos)
        return self.prior.class_mixture(features), self.prior.class_logits(features)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)
