"""Peers whose classes are fixed by training, and how labels are matched to those classes.

B photos, C classes of the model, L labels asked for, M classes that one label may stand for.
"""

import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.inference.peers.peer import Peer, Pixels, Scores
from ramctl.model.device import Runtime
from ramctl.records.labels import normalise
from ramctl.records.record import JsonObject

# How COCO's panoptic classes name what they were put together from.
_SUFFIX = re.compile(r"(-other)?(-merged|-stuff)?$")


class ClosedSetPeer(Peer):
    """A peer that scores its own classes; a label is scored as the classes of its name."""

    is_closed = True

    def __init__(
        self,
        path: Path,
        class_names: Sequence[str],
        labels: Sequence[str],
        runtime: Runtime,
        *,
        batch: int = 0,
    ) -> None:
        # The fingerprint is that of the labels as asked for: none for all classes.
        super().__init__(path, labels, runtime, batch=batch)
        self._columns = ClassColumns.match(class_names, labels)
        self.labels, self.unknown = self._columns.labels, self._columns.unknown

    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        return self._columns.pick(self._class_scores(photos))

    @abstractmethod
    def _class_scores(self, photos: Sequence[Pixels]) -> Scores:
        """Probabilities (B, C) of the model's own classes."""


@dataclass(frozen=True)
class ClassColumns:
    """Which classes each label stands for; a label scores the maximum of its classes."""

    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    ids: NDArray[np.intp]  # (L, M), padded with C

    @classmethod
    def match(cls, names: Sequence[str], labels: Sequence[str]) -> "ClassColumns":
        """The columns of `labels`, if any, else of all classes; RunProblem when none is known.

        A class name may hold synonyms between commas and one of COCO's endings ("floor-other-
        merged"); case, hyphens and underscores do not matter.
        """
        spellings = [_spellings(name) for name in names]
        if not labels:
            labels = [words[0] for words in spellings]
        by_word: dict[str, list[int]] = defaultdict(list)
        for index, words in enumerate(spellings):
            for word in dict.fromkeys(normalise(word) for word in [names[index], *words]):
                by_word[word].append(index)
        found = [by_word.get(normalise(label), []) for label in labels]
        if not any(found):
            raise RunProblem(f"the model knows none of the {len(labels)} labels")
        ids = np.full((len(labels), max(map(len, found))), len(names), np.intp)
        for row, classes in enumerate(found):
            ids[row, : len(classes)] = classes
        unknown = [label for label, classes in zip(labels, found, strict=True) if not classes]
        return cls(tuple(labels), tuple(unknown), ids)

    def pick(self, scores: Scores) -> Scores:
        """Scores (B, L) out of those of the classes (B, C); an unknown label scores 0."""
        padded = np.pad(scores, [(0, 0), (0, 1)])  # (B, C + 1)
        return padded[:, self.ids].max(-1).astype(np.float32)


def class_names(facts: JsonObject, field: str, where: Path) -> list[str]:
    """The class names that a table gives by number; RunProblem when it is not there."""
    names = facts.get(field)
    if not isinstance(names, dict) or not names:
        raise RunProblem(f"{where}: no class names ({field})")
    return [str(names[key]) for key in sorted(names, key=int)]


def _spellings(name: str) -> list[str]:
    words = [_SUFFIX.sub("", part.strip()) for part in name.split(",")]
    return [word for word in words if word] or [name]
