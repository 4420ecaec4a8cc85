"""Text encoders: what turns label names, descriptions and captions into vectors.

A bundle's `text` folder holds one of two: `encoder.json`, which names a CLIP, or a static table
(`table.safetensors` and `tokenizer.json`). N texts, E width of their vectors.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ramctl.text.clip import NAMED_ENCODER, ClipTextEncoder
from ramctl.text.static_table import TABLE, StaticTextEncoder

Rows = NDArray[np.float32]


class TextEncoder(Protocol):
    """Embeds texts for a model; what is large is loaded for the first text that needs it."""

    @property
    def name(self) -> str:
        """What it is, in words for the user."""

    @property
    def width(self) -> int:
        """E."""

    @property
    def fingerprint(self) -> str:
        """Another one where the vectors differ."""

    def embed_names(self, names: Sequence[str]) -> Rows:
        """Unit vectors (N, E) of labels, with the prompts that the model is used to."""

    def embed_sentences(self, texts: Sequence[str]) -> Rows:
        """Unit vectors (N, E) of texts as they are; a table gives zeros for unknown words."""

    def save(self, folder: Path) -> None:
        """Write a bundle's `text` folder."""


def read_text_encoder(folder: Path) -> TextEncoder | None:
    """The encoder in a `text` folder, None without (Tag2Text); RunProblem if it is unreadable."""
    if (folder / NAMED_ENCODER).is_file():
        return ClipTextEncoder.read(folder)
    if (folder / TABLE).is_file():
        return StaticTextEncoder.read(folder, source=str(folder.parent))
    return None
