"""Tag selection: from the scores of all labels to the tags that a photo is given."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import log_odds_of
from ramctl.errors import UsageProblem
from ramctl.inference.label_set import LabelSet
from ramctl.labels import LabelSystem
from ramctl.records.files import read_lines
from ramctl.records.record import KINDS
from ramctl.salience import most_allowed

DECIMALS = 4
SORTS = ("salience", "score")


class Choice(NamedTuple):
    """The tags of a photo in their order, with their scores."""

    scores: dict[str, float]  # probabilities, to 4 decimals
    salience: dict[str, float] | None  # chance of each to name a main thing; None: nobody knows
    labels: list[int]  # that gave the photo its tags, in their own order


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """What the user asked for; tags are named as in the label system, by tag or synonym."""

    top: int | None = None  # at most this many of the tags above their thresholds
    include: Collection[str] | None = None  # only these tags
    exclude: Collection[str] = ()
    leaf: bool = False  # drop parent tags (animal) when a child (dog) is given
    language: str | None = None  # of the tags' names, where the label system has them
    kinds: Collection[str] | None = field(default=None, repr=False)  # only tags of these
    sort: str = "salience"  # or score: what comes first

    def check(self) -> None:
        """UsageProblem for an unknown kind, and for a word in the place of several."""
        for name in ("include", "exclude", "kinds"):
            if isinstance(getattr(self, name), str):
                raise UsageProblem(f"{name}: not a list of words")
        if unknown := set(self.kinds or ()) - set(KINDS):
            raise UsageProblem(f"kinds: {min(unknown)!r} is not one of {', '.join(KINDS)}")
        if self.sort not in SORTS:
            raise UsageProblem(f"sort {self.sort!r} is not one of {', '.join(SORTS)}")
        if self.top is not None and self.top < 1:
            raise UsageProblem(f"at most {self.top} tags: less than 1")

    @property
    def key(self) -> str:
        """A text that changes with any option, for `--resume`."""
        return f"{self} kinds {self.kinds and sorted(self.kinds)}"


class TagSelector:
    """Selects the tags of a photo from the scores of all labels."""

    def __init__(self, label_set: LabelSet, options: SelectionOptions) -> None:
        labels = label_set.labels
        self._options = options
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
        self._thresholds, calibration = label_set.thresholds, label_set.calibration
        self._calibration, self._bends = calibration, label_set.bends
        self._salience = None if calibration is None else calibration.salience
        unwanted = np.zeros(len(labels), bool)
        if options.include is not None:
            wanted = _ids(labels, options.include)
            unwanted[[index not in wanted for index in range(len(labels))]] = True
        unwanted[sorted(_ids(labels, options.exclude))] = True
        if options.kinds is not None:
            unwanted[[label.kind not in options.kinds for label in labels]] = True
        self._unwanted = unwanted

    def __call__(self, scores: NDArray[np.float32]) -> Choice:
        """The tags of scores (L,), in their order; ties in label order.

        A tag is given when its probability is greater than its threshold, decided before rounding;
        one that is likely to name a main thing may be less probable. Labels that share a name give
        it their highest score.
        """
        is_given, chances = scores > self._thresholds, None
        if self._salience is not None:
            is_given, chances = self._by_salience(scores, is_given)
        given = np.flatnonzero(is_given & ~self._unwanted)
        order: list[NDArray[Any]] = [-scores[given]]
        if chances is not None and self._options.sort == "salience":
            order.append(-chances[given])
        ids = given[np.lexsort(order)].tolist()
        if self._parents:
            general = frozenset().union(*(self._parents[index] for index in ids))
            ids = [index for index in ids if self._tags[index] not in general]
        selected: dict[str, int] = {}
        for index in ids:
            selected.setdefault(self._names[index], index)
            if self._options.top is not None and len(selected) >= self._options.top:
                break
        rounded = {name: round(float(scores[i]), DECIMALS) for name, i in selected.items()}
        salience = None
        if chances is not None:
            salience = {name: round(float(chances[i]), DECIMALS) for name, i in selected.items()}
        fired = [index for index in sorted(ids) if self._names[index] in selected]
        return Choice(rounded, salience, fired)

    def _by_salience(
        self, scores: NDArray[np.float32], is_given: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which labels are given (L,), and the chance of each to name a main thing (L,)."""
        calibration, salience = self._calibration, self._salience
        assert calibration is not None and salience is not None
        of_scores = log_odds_of(scores.astype(np.float64))
        chances = salience.chances(of_scores, calibration.log_odds(of_scores))
        missing = calibration.slopes * (log_odds_of(self._thresholds) - of_scores)
        can_bend = self._bends & (scores > calibration.floors)
        is_given = is_given | can_bend & (missing < salience.allowances(chances))
        # What is not certain enough to be named more closely is still what it is a kind of.
        likely = can_bend & ~is_given & (missing < most_allowed(chances))
        for index, general in salience.careful.items():
            if likely[index] and can_bend[general]:
                is_given[general] = True
                chances[general] = max(chances[general], chances[index])
        return is_given, chances


def _ids(labels: LabelSystem, texts: Collection[str]) -> set[int]:
    return {index for text in texts for index in labels.ids(text)}


def unknown_tags(labels: LabelSystem, options: SelectionOptions) -> list[str]:
    """The tags that the user named but the label system lacks, in the order given."""
    named = [*(options.include or ()), *options.exclude]
    return [text for text in dict.fromkeys(named) if not labels.ids(text)]


def read_tag_list(path: Path) -> list[str]:
    """The tags of a file, one a line; blank lines and lines that start with `#` are skipped."""
    return [line for line in map(str.strip, read_lines(path)) if line and not line.startswith("#")]
