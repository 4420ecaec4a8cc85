"""CLIP's text space: the label queries that the paper trains with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import UsageProblem
from ramctl.pretrained.hub import local_path
from ramctl.text.clip import ClipTextEncoder
from ramctl.text.spaces import TEXT_FOLDER
from ramctl.text.word_encoder import NAMED_ENCODER as ENCODER
from ramctl.text.word_encoder import read_named_encoder

PREFIX = "clip:"


@dataclass(frozen=True)
class ClipSpace:
    """The text encoder of a CLIP in a local folder, or fetched by an `hf://` name."""

    place: str
    prompts: str  # how names are embedded: "ram", the mean over 63 templates, or "ram-plus"

    @cached_property
    def _encoder(self) -> ClipTextEncoder:
        return ClipTextEncoder(local_path(self.place))

    @property
    def name(self) -> str:
        """What it is, for the user."""
        return f"the CLIP text encoder {self.place}"

    @property
    def width(self) -> int:
        """E."""
        return self._encoder.dim

    @property
    def fingerprint(self) -> str:
        """Changes when the vectors do."""
        return self._encoder.fingerprint[:16]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (len(texts), E); long texts are cut."""
        return self._encoder.encode(texts, truncate=True)

    def encode_labels(self, tags: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (L, E) of names, by the authors' prompts."""
        if self.prompts == "ram-plus":
            return self.encode([f"a photo of a {tag}." for tag in tags])
        return self._encoder.embed_labels(tags)

    def save(self, folder: Path) -> None:
        """Name the encoder for whoever asks the model for new words."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"kind": "clip", "name": self.place, "prompts": self.prompts}
        (folder / ENCODER).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def open_clip_space(place: str, kind: str, width: int) -> ClipSpace:
    """The space of a CLIP for labels of a `kind` (model.labels.kind).

    UsageProblem when its width is not the preset's.
    """
    space = ClipSpace(place, "ram-plus" if kind == "descriptions" else "ram")
    if space.width != width:
        raise UsageProblem(f"model.labels.width is {width}, {place} has {space.width}")
    return space


def inherited_clip_space(init: Bundle) -> ClipSpace | None:
    """The CLIP that a bundle names for new words; None when it names none.

    It is opened at the first new word: the labels of the bundle have their vectors.
    """
    path = init.path / TEXT_FOLDER / ENCODER
    if not path.is_file():
        return None
    words = read_named_encoder(path)
    return ClipSpace(words.name, words.prompts)
