"""What embeds words that a bundle did not learn: a static table, or the CLIP that it names.

N texts, E width of the text embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem

if TYPE_CHECKING:
    from ramctl.text.clip import ClipTextEncoder
    from ramctl.text.static_table import StaticTextEmbedding

Rows = NDArray[np.float32]
NAMED_ENCODER = "encoder.json"
PROMPTS = ("ram", "ram-plus")  # the mean over 63 templates, or one fixed sentence


class WordEncoder(Protocol):
    """Names of labels and sentences about them become vectors in different ways."""

    def names(self, names: Sequence[str]) -> Rows:
        """(N, E) of bare names."""

    def descriptions(self, texts: Sequence[str]) -> Rows:
        """(N, E) of sentences, taken as they are."""


def word_encoder(bundle: Bundle) -> WordEncoder:
    """What embeds new words for this bundle; RunProblem when it names no text encoder."""
    from ramctl.text.static_table import TABLE, StaticTextEmbedding

    folder = bundle.path / "text"
    if (folder / NAMED_ENCODER).is_file():
        return read_named_encoder(folder / NAMED_ENCODER)
    if not (folder / TABLE).is_file():
        raise RunProblem(f"{bundle.path}: has no text encoder, so it cannot take new words")
    return TableWords(StaticTextEmbedding.load(folder))


@dataclass(frozen=True, slots=True)
class TableWords:
    """A static table: names and sentences alike."""

    table: "StaticTextEmbedding"

    def names(self, names: Sequence[str]) -> Rows:
        """(N, E); zeros where no part of a name is known."""
        return self.table.encode(names)

    descriptions = names


@dataclass(frozen=True)
class ClipWords:
    """The CLIP text encoder `name`, a folder or an hf:// name; `prompts` is one of PROMPTS."""

    name: str
    prompts: str

    def names(self, names: Sequence[str]) -> Rows:
        """(N, E) unit vectors, through the model's prompts.

        Source: RAM's label is the mean of its templates, RAM++'s first description is fixed.
        """
        if self.prompts == "ram-plus":
            return self.descriptions([f"a photo of a {name}." for name in names])
        return self._encoder.embed_labels(names)

    def descriptions(self, texts: Sequence[str]) -> Rows:
        """(N, E) unit vectors; long sentences are cut."""
        return self._encoder.encode(texts, truncate=True)

    @cached_property
    def _encoder(self) -> "ClipTextEncoder":
        from ramctl.pretrained.hub import local_path
        from ramctl.text.clip import ClipTextEncoder

        return ClipTextEncoder(local_path(self.name))  # only when a word is new: it is large


def read_named_encoder(path: Path) -> ClipWords:
    """The encoder that a bundle's encoder.json names, with the prompts that go with it."""
    try:
        facts = orjson.loads(path.read_bytes())
        name, prompts = facts["name"], facts["prompts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunProblem(f"{path}: names no text encoder: {error}") from error
    if prompts not in PROMPTS:
        raise RunProblem(f"{path}: prompts must be one of {', '.join(PROMPTS)}, not {prompts!r}")
    return ClipWords(name, prompts)
