"""A static text embedding: embeds new label texts without torch or a transformer.

A table of words and tokens, distilled from a sentence encoder (scripts/build_text_table.py): a
text's vector is the sum of its pieces' vectors, scaled to unit length. A row's length is the
piece's weight in the sum. N texts, V rows, E width of the table, F width of the sentence encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ramctl.checkpoints.clip import ClipTextEncoder

Rows = NDArray[np.float32]
TABLE, TOKENIZER = "table.safetensors", "tokenizer.json"
ARRAYS = ("vectors", "scales", "projection")  # in the table


@dataclass(frozen=True)
class StaticTextEncoder:
    """The table: rows of int8 with one scale each, and the projection into its space."""

    vectors: NDArray[np.int8]  # (V, E)
    scales: NDArray[np.float16]  # (V,)
    projection: NDArray[np.float16]  # (F, E)
    tokenizer_json: str
    source: str = ""  # whose table it is, for the user

    @classmethod
    def read(cls, folder: Path, source: str = "") -> "StaticTextEncoder":
        """The table in a folder."""
        table, tokenizer = load_file(folder / TABLE), (folder / TOKENIZER).read_text("utf-8")
        vectors, scales, projection = (table[name] for name in ARRAYS)
        return cls(vectors, scales, projection, tokenizer, source or str(folder))

    def save(self, folder: Path) -> None:
        """Write the table's two files."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_bytes(save({name: getattr(self, name) for name in ARRAYS}))
        (folder / TOKENIZER).write_text(self.tokenizer_json, encoding="utf-8")

    @property
    def name(self) -> str:
        """The name of the encoder in messages."""
        return f"the static table of {self.source}"

    @property
    def width(self) -> int:
        """The width E of the vectors."""
        return int(self.vectors.shape[1])

    def embed_sentences(self, texts: Sequence[str]) -> Rows:
        """Unit vectors (N, E); zeros for a text without a known part."""
        rows = np.zeros((len(texts), self.width), np.float32)
        unknown = self._tokenizer.token_to_id("[UNK]")
        for row, pieces in enumerate(self._tokenizer.encode_batch(list(texts))):
            ids = np.array([i for i in pieces.ids if i != unknown], np.int64)
            if len(ids):
                weights = self.scales[ids].astype(np.float32)
                rows[row] = weights @ self.vectors[ids].astype(np.float32)
        return unit(rows)

    def knows(self, word: str) -> bool:
        """Whether a word has a row of its own, and not only parts of it have."""
        ids = self._tokenizer.encode(word).ids
        return len(ids) == 1 and ids[0] != self._tokenizer.token_to_id("[UNK]")

    def knows_some(self, text: str) -> bool:
        """Whether a word of the text is in the table, or begins with three letters that are."""
        pieces = [piece for piece in self._tokenizer.encode(text).tokens if piece != "[UNK]"]
        starts = [piece for piece in pieces if not piece.startswith("##")]
        return any(len(piece) > 2 for piece in starts) or len(starts) == len(pieces) > 0

    embed_names = embed_sentences  # bare names need no prompt

    def project(self, vectors: Rows) -> Rows:
        """The sentence encoder's vectors (N, F) in the table's space, unit (N, E)."""
        return unit(vectors @ self.projection.astype(np.float32))

    def resized(self, width: int) -> "StaticTextEncoder":
        """The table with its first, most important `width` axes, and zeros where it has fewer."""
        lacks = ((0, 0), (0, max(0, width - self.width)))
        vectors = np.pad(self.vectors[:, :width], lacks)
        return replace(self, vectors=vectors, projection=np.pad(self.projection[:, :width], lacks))

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer  # tagging with known labels does without

        return Tokenizer.from_str(self.tokenizer_json)


def unit(rows: Rows) -> Rows:
    """The rows scaled to length 1; zero rows stay zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)


# A bundle's `text` folder holds `encoder.json`, which names a CLIP, or a static table.
TextEncoder = Union["ClipTextEncoder", StaticTextEncoder]


def read_text_encoder(folder: Path) -> TextEncoder | None:
    """The encoder in a `text` folder, None without (Tag2Text); RunProblem if it is unreadable."""
    if (folder / TABLE).is_file():
        return StaticTextEncoder.read(folder, source=str(folder.parent))
    from ramctl.checkpoints.clip import NAMED_ENCODER, ClipTextEncoder  # not for each search

    return ClipTextEncoder.read(folder) if (folder / NAMED_ENCODER).is_file() else None
