"""Tag selection: from the scores of all labels to the tags that a photo is given."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import UsageProblem
from ramctl.inference.log_odds import log_odds_of
from ramctl.inference.salience import FIRST, allowances
from ramctl.inference.thresholds import LabelSet
from ramctl.labels import Labels
from ramctl.records.files import read_lines
from ramctl.records.record import KINDS

DECIMALS = 4
_PART = "a part"  # the set of all parts
MIN_TAGS = 4  # a photo with fewer gets more, of those that are more likely right than wrong


class Choice(NamedTuple):
    """The tags of a photo in their order, with their scores."""

    scores: dict[str, float]  # probabilities, to 4 decimals
    salience: dict[str, float] | None  # probability that each names a main thing; None: unknown
    labels: list[int]  # the ids behind the tags, in id order


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """Which tags are given; they are named by tag, synonym or name in the language `lang`."""

    top: int | None = None  # at most this many of the tags above their thresholds
    include: Collection[str] | None = None  # only these tags
    exclude: Collection[str] = ()
    leaf: bool = False  # drop parent tags (animal) when a child (dog) is given
    lang: str | None = None  # of the tags' names, where the label system has them
    kinds: Collection[str] | None = field(default=None, repr=False)  # only tags of these

    def check(self) -> None:
        """UsageProblem for an unknown kind, and for one word instead of a list."""
        for name in ("include", "exclude", "kinds"):
            if isinstance(getattr(self, name), str):
                raise UsageProblem(f"{name}: not a list of words")
        if unknown := set(self.kinds or ()) - set(KINDS):
            raise UsageProblem(f"kinds: {min(unknown)!r} is not one of {', '.join(KINDS)}")
        if self.top is not None and self.top < 1:
            raise UsageProblem(f"top {self.top} is less than 1")

    @property
    def key(self) -> str:
        """A text that changes with any option, for `--resume`."""
        return f"{self} kinds {self.kinds and sorted(self.kinds)}"


class TagSelector:
    """Selects the tags of a photo from the scores of all labels."""

    def __init__(self, label_set: LabelSet, options: SelectionOptions) -> None:
        labels = label_set.labels
        self._options = options
        self.language = code = labels.language_code(options.lang)
        self._names = [label.names.get(code) or label.tag for label in labels]
        self._parents = [frozenset(label.parents) for label in labels]
        self._sets = [frozenset(label.one_of) for label in labels]
        self._wholes = [frozenset(label.part_of) for label in labels]
        self._is_part = np.array([bool(label.part_of) for label in labels], bool)
        self._tags = labels.tags
        self.ids: dict[str, int] = {}  # the first label of each name
        for index, name in enumerate(self._names):
            self.ids.setdefault(name, index)
        self.kinds = {name: label.kind for name, label in zip(self._names, labels, strict=True)}
        self._thresholds, calibration = label_set.thresholds, label_set.calibration
        self._calibration, self._uses_salience = calibration, label_set.uses_salience
        self._fills_up = label_set.fills_up
        self._salience = None if calibration is None else calibration.salience
        excluded = np.zeros(len(labels), bool)
        if options.include is not None:
            included = _ids(labels, options.include, code)
            excluded[[index not in included for index in range(len(labels))]] = True
        excluded[sorted(_ids(labels, options.exclude, code))] = True
        if options.kinds is not None:
            excluded[[label.kind not in options.kinds for label in labels]] = True
        self._excluded = excluded

    def __call__(self, scores: NDArray[np.float32]) -> Choice:
        """The tags of scores (L,), in their order; ties in label order.

        A tag is given when its probability is greater than its threshold, decided before rounding;
        one that is likely to name a main thing may be less probable. Labels that share a name give
        it their highest score.
        """
        is_given, probabilities, inputs = scores > self._thresholds, None, None
        if self._salience is not None:
            is_given, probabilities, inputs = self._by_salience(scores, is_given)
        given = np.flatnonzero(is_given & ~self._excluded)
        order: list[NDArray[Any]] = [-scores[given]]
        if probabilities is not None and inputs is not None:
            likely = probabilities[given]
            # Things come before their parts, a cat before its eyes; then all else.
            groups = np.where(likely > 0, self._is_part[given], 2)
            first = np.where(groups == 0, inputs[given] @ np.array(FIRST), -np.inf)
            order += [-likely, groups, first < first.max(initial=-np.inf)]
        ids = self._once(given[np.lexsort(order)].tolist())
        if self._options.leaf:
            general = frozenset().union(*(self._parents[index] for index in ids))
            ids = [index for index in ids if self._tags[index] not in general]
        selected: dict[str, int] = {}
        for index in ids:
            selected.setdefault(self._names[index], index)
            if self._options.top is not None and len(selected) >= self._options.top:
                break
        rounded = {name: round(float(scores[i]), DECIMALS) for name, i in selected.items()}
        salience = None
        if probabilities is not None:
            salience = {
                name: round(float(probabilities[i]), DECIMALS) for name, i in selected.items()
            }
        labels = [index for index in sorted(ids) if self._names[index] in selected]
        return Choice(rounded, salience, labels)

    def _by_salience(
        self, scores: NDArray[np.float32], is_given: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
        """Which labels are given, their probabilities of naming a main thing (L,), its inputs."""
        calibration, salience = self._calibration, self._salience
        assert calibration is not None and salience is not None
        score_log_odds = log_odds_of(scores.astype(np.float64))
        log_odds = calibration.log_odds(score_log_odds)
        inputs = salience.inputs(score_log_odds, log_odds)
        probabilities = salience.probabilities(inputs)
        missing = calibration.slopes * (log_odds_of(self._thresholds) - score_log_odds)
        may_need_less = self._uses_salience & (scores > calibration.min_scores)
        is_given = is_given | may_need_less & (missing < allowances(probabilities))
        unclear = salience.unclear(score_log_odds) & self._uses_salience
        for index in np.flatnonzero(unclear & is_given).tolist():
            general = salience.careful[index].general
            if may_need_less[general]:
                is_given[general] = True
                probabilities[general] = max(probabilities[general], probabilities[index])
        is_given, may_need_less = is_given & ~unclear, may_need_less & ~unclear
        lacking = MIN_TAGS - int((is_given & ~self._excluded).sum())
        if self._fills_up and lacking > 0:
            likely = may_need_less & ~is_given & ~self._excluded & (probabilities > 0)
            likely &= log_odds > 0
            most = np.argsort(np.where(likely, -probabilities, 0), kind="stable")[:lacking]
            is_given[most[likely[most]]] = True
        return is_given, probabilities, inputs

    def _once(self, ids: list[int]) -> list[int]:
        """The labels without a second one of a set, a second part, and parts of nothing given.

        Labels whose thresholds a user chose stay.
        """
        present = {name for index in ids for name in (self._tags[index], *self._parents[index])}
        kept, sets = [], set[str]()
        for index in ids:
            if self._uses_salience[index]:
                wholes = self._wholes[index]
                own_sets = self._sets[index] | ({_PART} if wholes else frozenset())
                if own_sets & sets or (wholes and not wholes & present):
                    continue
                sets |= own_sets
            kept.append(index)
        return kept


def _ids(labels: Labels, texts: Collection[str], language: str) -> set[int]:
    return {index for text in texts for index in labels.by_name(text, language)}


def unknown_tags(labels: Labels, options: SelectionOptions) -> list[str]:
    """The tags of `include` and `exclude` that the label system lacks, in order."""
    tags = [*(options.include or ()), *options.exclude]
    code = labels.language_code(options.lang)
    return [text for text in dict.fromkeys(tags) if not labels.by_name(text, code)]


def read_tag_list(path: Path) -> list[str]:
    """The tags of a file, one a line; blank lines and lines that start with `#` are skipped."""
    return [line for line in map(str.strip, read_lines(path)) if line and not line.startswith("#")]
