"""CLIP's text encoder: what embeds new words for models whose label queries come from CLIP.

K texts, E text width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.io.hub import local_path
from ramctl.model.prompts import ram_plus_prompt, ram_prompts

ENCODER = "encoder.json"  # in a bundle's text/ folder
CLIP = "hf://openai/clip-vit-base-patch16"
BATCH = 256

Vectors = NDArray[np.float32]


class ClipText:
    """A bundle's named CLIP text encoder, loaded when the first word is asked."""

    def __init__(self, name: str, prompts: str) -> None:
        self.name = name
        self.prompts = prompts
        self._model: Any = None
        self._tokenizer: Any = None

    @classmethod
    def load(cls, folder: Path) -> "ClipText":
        """The encoder that a bundle's `text/encoder.json` names."""
        try:
            facts = orjson.loads((folder / ENCODER).read_bytes())
            return cls(facts["name"], facts["prompts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunProblem(f"{folder / ENCODER}: names no text encoder: {error}") from error

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (K, E): of a name the mean over RAM's prompts, of a sentence its own.

        RAM++ (`prompts` ram-plus) takes sentences, which end with a full stop, as they are.
        """
        if self.prompts == "ram-plus":
            return self._embed([t if t.endswith(".") else ram_plus_prompt(t) for t in texts])
        sets = [ram_prompts(text) for text in texts]
        vectors = self._embed([sentence for prompts in sets for sentence in prompts])
        return _unit(vectors.reshape(len(sets), -1, vectors.shape[1]).mean(1))

    def _embed(self, sentences: Sequence[str]) -> Vectors:
        import torch

        if self._model is None:
            self._open()
        rows = []
        for start in range(0, len(sentences), BATCH):
            inputs = self._tokenizer(
                list(sentences[start : start + BATCH]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                rows.append(self._model(**inputs).text_embeds.float().numpy())
        return _unit(np.concatenate(rows))

    def _open(self) -> None:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast

        path = local_path(self.name)
        try:
            self._tokenizer = CLIPTokenizerFast.from_pretrained(path, local_files_only=True)
            model = CLIPTextModelWithProjection.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunProblem(f"text encoder {self.name}: cannot be loaded: {reason}") from error
        self._model = model.eval()


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return scaled
