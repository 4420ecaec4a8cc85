"""Tag selection: from the scores of all labels to the tags that a photo is given."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import UsageProblem
from ramctl.labels import LabelSystem
from ramctl.records.files import read_lines
from ramctl.records.record import KINDS

DECIMALS = 4


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """What the user asked for; tags are named as in the label system, by tag or synonym."""

    top: int | None = None  # at most this many of the tags above their thresholds
    include: Collection[str] | None = None  # only these tags
    exclude: Collection[str] = ()
    leaf: bool = False  # drop parent tags (animal) when a child (dog) is given
    language: str | None = None  # of the tags' names, where the label system has them
    kinds: Collection[str] | None = field(default=None, repr=False)  # only tags of these

    def check(self) -> None:
        """UsageProblem for an unknown kind, and for a word in the place of several."""
        for name in ("include", "exclude", "kinds"):
            if isinstance(getattr(self, name), str):
                raise UsageProblem(f"{name}: not a list of words")
        if unknown := set(self.kinds or ()) - set(KINDS):
            raise UsageProblem(f"kinds: {min(unknown)!r} is not one of {', '.join(KINDS)}")
        if self.top is not None and self.top < 1:
            raise UsageProblem(f"at most {self.top} tags: less than 1")

    @property
    def key(self) -> str:
        """A text that changes with any option, for `--resume`."""
        return f"{self} kinds {self.kinds and sorted(self.kinds)}"


class TagSelector:
    """Selects the tags of a photo from the scores of all labels."""

    def __init__(
        self, labels: LabelSystem, thresholds: NDArray[np.float64], options: SelectionOptions
    ) -> None:
        self._top = options.top
        code = options.language or ""
        known = sorted({code for label in labels for code in label.names})
        if options.language is not None and code not in known:
            have = f"names in {', '.join(known)}" if known else "no names in other languages"
            raise UsageProblem(f"--lang {code}: the labels have {have}")
        self._names = [label.names.get(code) or label.tag for label in labels]
        self._parents = [frozenset(label.parents) for label in labels] if options.leaf else []
        self._tags = labels.tags
        self.ids: dict[str, int] = {}  # the first label of each name
        for index, name in enumerate(self._names):
            self.ids.setdefault(name, index)
        self.kinds = {name: label.kind for name, label in zip(self._names, labels, strict=True)}
        # An unwanted label is one that no score can reach.
        self._thresholds = thresholds.copy()
        if options.include is not None:
            wanted = _ids(labels, options.include)
            self._thresholds[[index not in wanted for index in range(len(labels))]] = np.inf
        self._thresholds[sorted(_ids(labels, options.exclude))] = np.inf
        if options.kinds is not None:
            self._thresholds[[label.kind not in options.kinds for label in labels]] = np.inf

    def __call__(self, scores: NDArray[np.float32]) -> dict[str, float]:
        """Tags with their scores (4 decimals), highest first, ties in label order.

        A tag is given when its probability is greater than its threshold, decided before rounding.
        Labels that share a name give it their highest score.
        """
        given = np.flatnonzero(scores > self._thresholds)
        given = given[np.argsort(-scores[given], kind="stable")]
        ids = given.tolist()
        if self._parents:
            general = frozenset().union(*(self._parents[index] for index in ids))
            ids = [index for index in ids if self._tags[index] not in general]
        selected: dict[str, float] = {}
        for index in ids:
            selected.setdefault(self._names[index], round(float(scores[index]), DECIMALS))
            if self._top is not None and len(selected) >= self._top:
                break
        return selected

    def fired(self, scores: NDArray[np.float32], given: Collection[str]) -> list[int]:
        """The labels, in their order, that gave the photo its tags."""
        above = np.flatnonzero(scores > self._thresholds).tolist()
        return [index for index in above if self._names[index] in given]


def _ids(labels: LabelSystem, texts: Collection[str]) -> set[int]:
    return {index for text in texts for index in labels.ids(text)}


def unknown_tags(labels: LabelSystem, options: SelectionOptions) -> list[str]:
    """The tags that the user named but the label system lacks, in the order given."""
    named = [*(options.include or ()), *options.exclude]
    return [text for text in dict.fromkeys(named) if not labels.ids(text)]


def read_tag_list(path: Path) -> list[str]:
    """The tags of a file, one a line; blank lines and lines that start with `#` are skipped."""
    return [line for line in map(str.strip, read_lines(path)) if line and not line.startswith("#")]
