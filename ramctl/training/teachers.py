"""Teachers of the global image feature: a CLIP model, and the embedding of a photo's captions.

B photos, S pixels a side, E text width.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from ramctl.errors import RunProblem
from ramctl.io.files import replacing
from ramctl.model.config import PreprocessConfig
from ramctl.training.records import RecordFile
from ramctl.training.samples import read_annotation
from ramctl.training.texts import TextSpace, caption_vectors

RECORDS_AT_ONCE = 512


def remember_caption_vectors(
    path: Path, records: RecordFile, space: TextSpace, on_done: Callable[[int], None]
) -> NDArray[np.float16]:
    """The mean vector of each record's captions (N, E), kept in `path`; zeros without captions."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            part = Path(stream.name)
            vectors: Any = None
            for start, captions in _caption_blocks(records):
                block = caption_vectors(captions, space)
                if vectors is None:
                    vectors = open_memmap(part, "w+", np.float16, (len(records), block.shape[1]))
                vectors[start : start + len(block)] = block
                on_done(len(block))
            vectors.flush()
    loaded: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return loaded


def _caption_blocks(records: RecordFile) -> Iterator[tuple[int, list[list[str]]]]:
    for start in range(0, len(records), RECORDS_AT_ONCE):
        block = range(start, min(start + RECORDS_AT_ONCE, len(records)))
        yield (
            start,
            [
                [caption.text for caption in read_annotation(records[index]).captions]
                for index in block
            ],
        )


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


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values)).view(1, -1, 1, 1)
