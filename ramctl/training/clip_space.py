"""CLIP's text space: the label queries that the paper trains with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import UsageProblem
from ramctl.io.hub import local_path
from ramctl.model.clip_text import ClipTextEncoder

PREFIX = "clip:"
ENCODER = "encoder.json"


@dataclass(frozen=True)
class ClipSpace:
    """The text encoder of a CLIP in a local folder, or fetched by an `hf://` name."""

    place: str

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
        """Unit vectors (L, E), each the mean over the authors' prompts."""
        return self._encoder.embed_labels(tags)

    def save(self, folder: Path) -> None:
        """Name the encoder for whoever asks the model for new words."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"kind": "clip", "name": self.place, "prompts": "ram"}
        (folder / ENCODER).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def open_clip_space(place: str, width: int) -> ClipSpace:
    """The space of a CLIP; UsageProblem when its width is not the preset's."""
    space = ClipSpace(place)
    if space.width != width:
        raise UsageProblem(f"model.labels.width is {width}, {place} has {space.width}")
    return space
