"""The text rows of a label system: what a bundle has of it, and what a text space embeds anew.

E text width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.labels import LabelSystem
from ramctl.model.config import LabelConfig
from ramctl.text.spaces import TextSpace, description_vectors

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LabelTexts:
    """Vectors (sum of counts, E) in label order, and how many of them each label has."""

    vectors: Rows
    counts: list[int]


def label_texts(
    labels: LabelSystem,
    config: LabelConfig,
    space: TextSpace,
    init: Bundle | None,
    say: Callable[[str], None],
) -> LabelTexts:
    """The texts of all labels; those of `init` keep theirs, so that only new ones are embedded.

    A bundle whose labels are of another kind or width has nothing to keep.
    """
    stored = [] if init is None else _stored(init, config)
    rows = known_rows(labels, init.labels) if init is not None and stored else [-1] * len(labels)
    new = LabelSystem(label for label, row in zip(labels, rows, strict=True) if row < 0)
    embedded: list[Rows] = []
    if len(new):
        embedded = _embed(new, config, space)
        say(f"queries of {len(new)} labels from {space.name}")
    fresh = iter(embedded)
    texts = [next(fresh) if row < 0 else stored[row] for row in rows]
    return LabelTexts(np.concatenate(texts), [len(text) for text in texts])


def known_rows(labels: LabelSystem, known: LabelSystem) -> list[int]:
    """The row of each label in another system, -1 where it has none.

    A label at the same place is itself: names may occur twice (Tag2Text's do).
    """
    tags = known.tags
    rows = []
    for index, label in enumerate(labels):
        found = known.ids(label.tag)
        same = index < len(tags) and tags[index] == label.tag
        rows.append(index if same else found[0] if found else -1)
    return rows


def _stored(init: Bundle, config: LabelConfig) -> list[Rows]:
    own = init.preset.model.labels
    if (own.kind, own.width) != (config.kind, config.width):
        return []
    tensors = init.tensors(["labels.text", "labels.counts"])
    return _split(tensors["labels.text"].astype(np.float32), tensors["labels.counts"].tolist())


def _embed(labels: LabelSystem, config: LabelConfig, space: TextSpace) -> list[Rows]:
    if config.kind == "descriptions":
        return _split(*description_vectors(labels, space))
    return _split(space.encode_labels(labels.tags), [1] * len(labels))


def _split(vectors: Rows, counts: Sequence[int]) -> list[Rows]:
    return np.split(vectors, np.cumsum(counts)[:-1])
