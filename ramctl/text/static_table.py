"""A static text embedding: what embeds new label texts without torch or a text encoder.

A table of words and word pieces, distilled from a sentence encoder (``text_distillation.py``): a
text's vector is the sum of its pieces' vectors, scaled to unit length. A row's length is the
piece's weight in the sum. Rows are int8 with one scale each.

Folder: ``table.safetensors`` (``vectors`` int8 (V, E), ``scales`` float16 (V,), ``projection``
float16 (F, E) from the sentence encoder's space into the table's) and ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save
from tokenizers import Tokenizer

from ramctl.errors import RunProblem

TABLE, TOKENIZER = "table.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class StaticTextEmbedding:
    """The table; ``load`` a bundle's ``text/`` folder, then ``encode`` any words."""

    vectors: np.ndarray  # (V, E) int8
    scales: np.ndarray  # (V,) float16
    projection: np.ndarray  # (F, E) float16
    tokenizer_json: str

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.tokenizer_json)

    @cached_property
    def _unknown(self) -> int | None:
        unknown: int | None = self.tokenizer.token_to_id("[UNK]")
        return unknown

    @classmethod
    def load(cls, folder: Path) -> StaticTextEmbedding:
        """Return the embedding kept in ``folder``; RunProblem names a file that is missing."""
        for name in (TABLE, TOKENIZER):
            if not (folder / name).is_file():
                raise RunProblem(f"{folder / name}: missing, so new words cannot be embedded")
        table = load_file(folder / TABLE)
        return cls(
            vectors=table["vectors"],
            scales=table["scales"],
            projection=table["projection"],
            tokenizer_json=(folder / TOKENIZER).read_text(encoding="utf-8"),
        )

    @classmethod
    def quantise(
        cls, rows: np.ndarray, projection: np.ndarray, tokenizer_json: str
    ) -> StaticTextEmbedding:
        """Return the embedding of float rows (V, E), rounded to int8 with one scale a row."""
        scales = (np.abs(rows).max(1) / 127).astype(np.float16)
        scales = np.maximum(scales, np.finfo(np.float16).tiny)
        steps = np.rint(rows / scales.astype(np.float32)[:, None])
        return cls(
            vectors=np.clip(steps, -127, 127).astype(np.int8),
            scales=scales,
            projection=projection.astype(np.float16),
            tokenizer_json=tokenizer_json,
        )

    def save(self, folder: Path) -> None:
        """Write the two files into ``folder``, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "vectors": self.vectors,
            "scales": self.scales,
            "projection": self.projection,
        }
        (folder / TABLE).write_bytes(save(tensors))
        (folder / TOKENIZER).write_text(self.tokenizer_json, encoding="utf-8")

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32 (len(texts), E); a text of unknown signs only is zero."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for row, pieces in enumerate(self.tokenizer.encode_batch(list(texts))):
            ids = np.array([i for i in pieces.ids if i != self._unknown], np.int64)
            if len(ids) == 0:
                continue
            weights = self.scales[ids].astype(np.float32)
            out[row] = weights @ self.vectors[ids].astype(np.float32)
        return unit(out)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Return the sentence encoder's vectors (n, F) in the table's space, unit (n, E)."""
        return unit(vectors @ self.projection.astype(np.float32))


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1, float32; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    scaled: np.ndarray = (rows / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled
