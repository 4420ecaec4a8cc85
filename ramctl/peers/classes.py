"""The fixed classes of a trained classifier or segmenter as columns of scores.

B photos, C classes of the model, L labels asked for, M classes that one label may stand for.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.labels import normalise
from ramctl.peers.base import Scores

# How COCO's panoptic classes name what they were put together from.
_SUFFIX = re.compile(r"(-other)?(-merged|-stuff)?$")


@dataclass(frozen=True)
class ClassColumns:
    """Which classes each label stands for; a label scores the maximum of its classes."""

    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    ids: NDArray[np.intp]  # (L, M), filled up with C

    @classmethod
    def match(cls, names: Sequence[str], labels: Sequence[str]) -> "ClassColumns":
        """The columns of `labels` among a model's class names, all classes without labels.

        A class name may hold synonyms between commas and one of COCO's endings ("floor-other-
        merged"); case, hyphens and underscores do not matter. Raises RunProblem when the model
        knows none of the labels.
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
        most = max(map(len, found))
        ids = np.full((len(labels), most), len(names), np.intp)
        for row, classes in enumerate(found):
            ids[row, : len(classes)] = classes
        unknown = [label for label, classes in zip(labels, found, strict=True) if not classes]
        return cls(tuple(labels), tuple(unknown), ids)

    def pick(self, scores: Scores) -> Scores:
        """Scores (B, L) out of those of the classes (B, C); an unknown label scores 0."""
        padded = np.pad(scores, [(0, 0), (0, 1)])  # (B, C + 1)
        picked: Scores = padded[:, self.ids].max(-1).astype(np.float32)
        return picked


def _spellings(name: str) -> list[str]:
    words = [_SUFFIX.sub("", part.strip()) for part in name.split(",")]
    return [word for word in words if word] or [name]
