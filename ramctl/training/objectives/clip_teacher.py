"""A frozen CLIP model: a teacher of photos, and the encoder of RAM++'s captions.

B photos, S pixels a side, E text width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.errors import RunProblem
from ramctl.model.config import PreprocessConfig


class ClipTeacher(nn.Module):
    """A frozen CLIP model from a local folder in transformers' format.

    It sees the student's crop in its own size and normalisation. Source: the authors distil from
    CLIP ViT-B/16, photo features not normalised, texts normalised (ram_official A4).
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
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def photo_features(self, photos: Tensor) -> Tensor:
        """(B, E) of the student's normalised photos (B, 3, S, S)."""
        photos = photos * self.scale + self.shift
        if photos.shape[-1] != self.size:
            photos = F.interpolate(photos, (self.size, self.size), mode="bicubic", antialias=True)
        pooled = self.clip.vision_model(pixel_values=photos).pooler_output
        return self.clip.visual_projection(pooled)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(len(texts), E), unit length; long texts are cut."""
        device = next(self.clip.parameters()).device
        pieces = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.clip.text_model(**pieces.to(device)).pooler_output
        return F.normalize(self.clip.text_projection(pooled), dim=-1)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)
