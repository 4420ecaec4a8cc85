"""Text vectors in the label queries' space: of labels, class names and captions.

E text width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, embedded_bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.text.static_table import TABLE, StaticTextEmbedding, unit

if TYPE_CHECKING:
    from ramctl.pretrained.sentence_encoder import SentenceEncoder

TEXT_FOLDER = "text"
SENTENCE_WIDTH = 384  # of the packaged sentence encoder


class TextSpace(Protocol):
    """What embeds texts for a model."""

    @property
    def name(self) -> str:
        """What it is, for the user."""

    @property
    def width(self) -> int:
        """E."""

    @property
    def fingerprint(self) -> str:
        """Changes when the vectors do."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (len(texts), E)."""

    def encode_labels(self, tags: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (L, E) of tags."""

    def save(self, folder: Path) -> None:
        """Write what embeds new words later into a bundle's text folder."""


@dataclass(frozen=True)
class StaticSpace:
    """A static table; texts known while training go through the sentence encoder it stands for.

    `place` says where the table came from. Without the encoder the table embeds all texts.
    """

    table: StaticTextEmbedding
    place: str
    with_encoder: bool

    @property
    def name(self) -> str:
        """What it is, for the user."""
        table = f"the static table of {self.place}"
        return f"the packaged sentence encoder and {table}" if self.with_encoder else table

    @property
    def width(self) -> int:
        """E."""
        return self.table.dim

    @property
    def fingerprint(self) -> str:
        """Changes when the vectors do."""
        digest = hashlib.sha256(self.table.vectors.tobytes() + self.table.scales.tobytes())
        digest.update(self.table.projection.tobytes() + self.table.tokenizer_json.encode())
        return f"{digest.hexdigest()[:16]}-{'encoder' if self.with_encoder else 'table'}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (len(texts), E)."""
        if not self.with_encoder:
            return self.table.encode(texts)
        return self.table.project(self._encoder.encode(texts))

    @cached_property
    def _encoder(self) -> "SentenceEncoder":
        from ramctl.pretrained.sentence_encoder import SentenceEncoder

        return SentenceEncoder.from_package()

    def encode_labels(self, tags: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (L, E) of tags: nothing is put around them."""
        return self.encode(tags)

    def save(self, folder: Path) -> None:
        """Write the table."""
        self.table.save(folder)


def open_text_space(folder: Path | None, init: Bundle | None, width: int) -> StaticSpace:
    """The text space of a run: of the folder named, else of `init`, else of the embedded model.

    A table wider than `width` is cut: its axes are ordered by importance. Raises RunProblem when
    there is none, UsageProblem when it is too narrow.
    """
    place, path = _find_table(folder, init)
    table = StaticTextEmbedding.load(path)
    if table.dim < width:
        raise UsageProblem(
            f"model.labels.width is {width}, the text table of {place} has {table.dim}"
        )
    if table.dim > width:
        table = StaticTextEmbedding(
            np.ascontiguousarray(table.vectors[:, :width]),
            table.scales,
            np.ascontiguousarray(table.projection[:, :width]),
            table.tokenizer_json,
        )
    stands_for_encoder = len(table.projection) == SENTENCE_WIDTH
    return StaticSpace(table, place, stands_for_encoder and _encoder_is_installed())


def _find_table(folder: Path | None, init: Bundle | None) -> tuple[str, Path]:
    if folder is not None:
        return str(folder), folder
    if init is not None and (init.path / TEXT_FOLDER / TABLE).is_file():
        return str(init.path), init.path / TEXT_FOLDER
    embedded = embedded_bundle() / TEXT_FOLDER
    if (embedded / TABLE).is_file():
        return "the embedded model", embedded
    raise RunProblem(
        "no text embedding for the labels: name the folder of a static table with --text "
        "(scripts/build_text_table makes one)"
    )


def _encoder_is_installed() -> bool:
    from ramctl.pretrained.sentence_encoder import PACKAGES

    return any(find_spec(package) for package in PACKAGES)


def description_vectors(
    labels: LabelSystem, space: TextSpace
) -> tuple[NDArray[np.float32], list[int]]:
    """Unit vectors of all descriptions in label order, and how many each label has.

    Every label has the sentence "a photo of a TAG." first, as the authors' do.
    Source: authors' generate_tag_des_llm.py, ram_official A2.
    """
    texts = [[f"a photo of a {label.tag}.", *label.descriptions] for label in labels]
    flat = [text for group in texts for text in group]
    return space.encode(flat), [len(group) for group in texts]


def class_name_vectors(names: Sequence[str], space: TextSpace) -> NDArray[np.float32]:
    """Unit vectors (K, E) of a backbone's classes, each the mean over its names ("a, b")."""
    split = [[part.strip() for part in name.split(",")] for name in names]
    vectors = space.encode([part for parts in split for part in parts])
    ends = np.cumsum([len(parts) for parts in split])
    means = [vectors[e - len(p) : e].mean(0) for e, p in zip(ends, split, strict=True)]
    return unit(np.stack(means))


def caption_vectors(captions: Sequence[Sequence[str]], space: TextSpace) -> NDArray[np.float32]:
    """Mean unit vectors (N, E) of each photo's captions; zeros where it has none."""
    flat = [text for texts in captions for text in texts]
    means = np.zeros((len(captions), space.width), np.float32)
    vectors = space.encode(flat) if flat else means[:0]
    start = 0
    for row, texts in enumerate(captions):
        if texts:
            means[row] = vectors[start : start + len(texts)].mean(0)
        start += len(texts)
    return unit(means)
