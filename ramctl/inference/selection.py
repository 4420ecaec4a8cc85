"""Tag selection: from the probabilities of all labels to the tags that a photo is given."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import UsageProblem
from ramctl.inference.log_odds import FIRST, NO_FIRST, allowances, log_odds_of
from ramctl.inference.vocabulary import Vocabulary
from ramctl.records.labels import NEVER

DECIMALS = 4
MIN_TAGS = 6  # a photo with fewer gets more things, of those that are more likely right than wrong
MIN_FIRST = 0.3  # score of what a photo is most likely of, which is always given


class Choice(NamedTuple):
    """The tags of a photo in their order, with their scores."""

    scores: dict[str, float]  # probabilities, to 4 decimals
    labels: list[int]  # the ids behind the tags, in id order


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """How many tags are given, and in which language."""

    top: int | None = None  # at most this many of the tags above their thresholds
    lang: str | None = None  # of the tags' names, where the labels have them

    def check(self) -> None:
        """UsageProblem for a number of tags below 1."""
        if self.top is not None and self.top < 1:
            raise UsageProblem(f"top {self.top} is less than 1")


class TagSelector:
    """Selects the tags of a photo from the probabilities of all labels."""

    def __init__(self, vocabulary: Vocabulary, options: SelectionOptions) -> None:
        labels, self._vocabulary, self._options = vocabulary.labels, vocabulary, options
        self.language = code = labels.language_code(options.lang)
        self._names = [label.names.get(code) or label.tag for label in labels]
        self._has_evidence = can_be_given = vocabulary.thresholds < NEVER
        if vocabulary.listed is not None:
            can_be_given = can_be_given & np.isin(
                np.arange(len(labels)), [i for _, i in vocabulary.listed]
            )
            for word, index in reversed(vocabulary.listed):
                self._names[index] = labels[index].names.get(code) or word
        self._can_be_given = can_be_given
        self._is_part = np.array([bool(label.part_of) for label in labels], bool)
        # The first label of each name.
        self.ids = dict(zip(reversed(self._names), range(len(labels) - 1, -1, -1), strict=True))

    def __call__(self, scores: NDArray[np.float32], first: int = NO_FIRST) -> Choice:
        """The tags of probabilities (L,), in their order; ties in label order.

        A tag is given when its probability is greater than its threshold, decided before rounding.
        The threshold falls with the probability that the tag names a main thing. The label `first`
        is given, and first. Labels that share a name give it their highest score.
        """
        vocabulary, salience = self._vocabulary, self._vocabulary.salience
        is_given = scores > vocabulary.thresholds
        order: list[NDArray[Any]] = [-scores]
        if salience is not None:
            log_odds = log_odds_of(scores.astype(np.float64))
            inputs = salience.inputs(log_odds)
            main = salience.probabilities(inputs)
            if vocabulary.allows:
                is_given |= log_odds + allowances(main) > log_odds_of(vocabulary.thresholds)
            # Things come before their parts, a cat before its eyes; then all else.
            groups = np.where(main > 0, self._is_part, 2)
            order += [-main, groups]
            leads = inputs @ np.array(FIRST)
            wholes = self._has_evidence & (groups == 0) & (scores > MIN_FIRST)
            if vocabulary.fills_up and wholes.any():
                is_given[np.where(wholes, leads, -np.inf).argmax()] = True
            lacking = MIN_TAGS - int((is_given & self._has_evidence).sum())
            if vocabulary.fills_up and lacking > 0:
                likely = self._has_evidence & ~is_given & (main > 0) & (log_odds > 0)
                is_given[np.flatnonzero(likely)[np.argsort(-main[likely])[:lacking]]] = True
        if vocabulary.allows:  # a part comes only beside what it may be part of
            labels = vocabulary.labels
            whole = np.flatnonzero(is_given & self._has_evidence).tolist()
            present = {x for i in whole for x in (labels[i].tag, *labels[i].parents)}
            for index in np.flatnonzero(is_given & self._is_part).tolist():
                is_given[index] = not present.isdisjoint(labels[index].part_of)
        if first != NO_FIRST:
            is_given[first] = True
        given = np.flatnonzero(is_given & self._can_be_given)
        if salience is not None and len(given):
            if first != NO_FIRST:
                leads[first] = np.inf
            leads[(groups != 0) | ~(is_given & self._can_be_given)] = -np.inf
            is_first = np.zeros(len(scores), bool)
            is_first[leads.argmax()] = leads.max() > -np.inf
            order.append(~is_first)
        ids = given[np.lexsort([key[given] for key in order])].tolist()
        selected: dict[str, int] = {}
        for index in ids:
            selected.setdefault(self._names[index], index)
            if self._options.top is not None and len(selected) >= self._options.top:
                break
        return Choice(
            {name: round(float(scores[i]), DECIMALS) for name, i in selected.items()},
            [index for index in sorted(ids) if self._names[index] in selected],
        )
