"""Thresholds: those that maximise F1, and those that the user gives with `--threshold`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Floats, Scores, Truth, rank
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem, read_thresholds
from ramctl.records.files import read_lines

Counts = NDArray[np.integer]
# With this many positives, a class's own threshold counts as much as the shared one.
# Chosen on halves of flickr8k-dev with the embedded model: chosen on one half, used on the other,
# macro F1 was 0.312 (1: 0.313, 5: 0.304, 40: 0.267), where one threshold for all had 0.241; with
# 150 photos 0.285 (1: 0.288, 10: 0.266) and 0.239. On flickr8k-test `eval` says 0.354 and 0.276.
SHARED_WEIGHT = 2
FOLDS = 5  # parts of the photos; what to expect of a part is told by thresholds of the others
_CANDIDATES = 500


def max_f1_threshold(scores: Scores, truth: Truth) -> float:
    """The threshold with the best F1 of one class, when tags with a greater score are given.

    It lies midway between two neighbouring scores. Where no score is below 0, one of 0 is never
    given, and the threshold is 0.5 where no positive has more.
    """
    is_signed = bool(scores.min(initial=0) < 0)
    if not is_signed:  # 0 is not given even with a threshold of 0
        ranking = rank(scores, np.where(scores > 0, truth, UNKNOWN).astype(np.int8))
    else:
        ranking = rank(scores, truth)
    if not len(ranking.positives):
        return 0.0 if is_signed else DEFAULT_THRESHOLD
    hits, given = ranking.curve(np.ones((len(scores), 1), np.float32))
    f1 = 2 * hits / (given + np.count_nonzero(truth == POSITIVE))
    best = int(np.argmax(f1))
    lowest = float(scores[ranking.order[int(given[best, 0]) - 1]])
    below = scores[(truth != UNKNOWN) & (scores < lowest)]
    floor = float(scores.min()) - 1 if is_signed else 0.0
    return (lowest + float(below.max(initial=floor))) / 2


def macro_f1_threshold(scores: Scores, truth: Truth) -> float:
    """The single threshold with the best mean F1 of the classes [N, C] that have positives.

    It lies midway between two neighbouring scores; 0.5, or 0 where some scores are below 0, where
    no positive has a score.
    """
    is_signed = bool(scores.min(initial=0) < 0)
    positive = truth == POSITIVE
    candidates = np.unique(scores[positive])
    candidates = candidates if is_signed else candidates[candidates > 0]
    if not len(candidates):
        return 0.0 if is_signed else DEFAULT_THRESHOLD
    if len(candidates) > _CANDIDATES:
        candidates = candidates[np.linspace(0, len(candidates) - 1, _CANDIDATES).astype(int)]
    total = np.zeros(len(candidates))
    for c in np.flatnonzero(positive.any(axis=0)):
        right = at_least(scores[positive[:, c], c], candidates)
        wrong = at_least(scores[truth[:, c] == NEGATIVE, c], candidates)
        total += 2 * right / (right + wrong + positive[:, c].sum())
    lowest = float(candidates[int(np.argmax(total))])
    floor = float(scores.min()) - 1 if is_signed else 0.0
    below = scores.max(initial=floor, where=(truth != UNKNOWN) & (scores < lowest))
    return (lowest + float(below)) / 2


def at_least(scores: Scores, candidates: Scores) -> Floats:
    """How many of the scores are at least as high as each candidate [K]."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates), np.float64)


def shrunk_thresholds(own: Floats, shared: float, n_positives: Counts) -> Floats:
    """Thresholds [C] shrunk towards the shared one, the more the fewer positives they rest on.

    The mean of both log-odds (of both themselves where these are no probabilities), weighted by
    the positives: what is best on a few photos of a class is rarely best on others.
    """
    weight = n_positives / (n_positives + SHARED_WEIGHT)
    both = np.append(own, shared)
    if both.min() < 0 or both.max() > 1:
        linear: Floats = weight * own + (1 - weight) * shared
        return linear
    log_odds = weight * _log_odds(own) + (1 - weight) * _log_odds(np.array(shared))
    shrunk: Floats = 1 / (1 + np.exp(-log_odds))
    return shrunk


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


@dataclass(frozen=True, slots=True)
class F1Thresholds:
    """A threshold for each class [C] and one for all, and what to expect of both.

    Macro F1 is counted on photos that did not choose the thresholds; NaN where there are too few.
    """

    own: Floats
    shared: float
    macro_f1: float
    macro_f1_shared: float

    @classmethod
    def choose(cls, scores: Scores, truth: Truth) -> "F1Thresholds":
        """Those of the best F1 on photos [N, C]: each class's own, drawn towards that for all.

        What a class's own is worth grows with its positives.
        """
        own, shared = _chosen(scores, truth)
        positive = truth == POSITIVE
        right, wrong = np.zeros((2, 2, truth.shape[1]))
        for part in range(FOLDS):
            theirs = np.arange(len(scores)) % FOLDS == part
            for kind, thresholds in enumerate(_chosen(scores[~theirs], truth[~theirs])):
                given = scores[theirs] > thresholds
                right[kind] += (given & positive[theirs]).sum(axis=0)
                wrong[kind] += (given & (truth[theirs] == NEGATIVE)).sum(axis=0)
        found = positive.any(axis=0)
        if len(scores) < FOLDS or not found.any():
            return cls(own, shared, float("nan"), float("nan"))
        f1 = 2 * right / np.maximum(right + wrong + positive.sum(axis=0), 1)
        expected, expected_shared = f1[:, found].mean(axis=1).tolist()
        return cls(own, shared, expected, expected_shared)

    @property
    def gains(self) -> bool:
        """Whether the classes' own thresholds are expected to do better than the one for all."""
        return self.macro_f1 > self.macro_f1_shared

    @property
    def best(self) -> Floats:
        """The thresholds [C] that are expected to do better."""
        return self.own if self.gains else np.full(len(self.own), self.shared)


def _chosen(scores: Scores, truth: Truth) -> tuple[Floats, float]:
    n_positives = (truth == POSITIVE).sum(axis=0)
    shared = macro_f1_threshold(scores, truth)
    own = np.full(scores.shape[1], shared)
    for c in np.flatnonzero(n_positives):
        own[c] = max_f1_threshold(scores[:, c], truth[:, c])
    return shrunk_thresholds(own, shared, n_positives), shared


@dataclass(frozen=True, slots=True)
class Cut:
    """What `--threshold` says: a number for all, a file by class or by tag, or nothing.

    A file is JSONL, or a bare list of numbers in the order of the classes or of the tags. A score
    passes when it is greater; with `inclusive`, as the authors' evaluation has it, when it is equal
    too.
    """

    value: float | None = None
    path: Path | None = None
    inclusive: bool = False

    @classmethod
    def parse(cls, text: str | None, *, inclusive: bool = False) -> "Cut":
        """What an option's text says; UsageProblem when it is neither a number nor a file."""
        if text is None:
            return cls(inclusive=inclusive)
        try:
            value = float(text)
        except ValueError:
            path = Path(text)
            if not path.is_file():
                raise UsageProblem(f"--threshold {text}: neither a number nor a file") from None
            return cls(path=path, inclusive=inclusive)
        if not math.isfinite(value):
            raise UsageProblem(f"--threshold {text}: not a finite number")
        return cls(value, inclusive=inclusive)

    def require_probability(self) -> None:
        """UsageProblem when the number given is none, for scores that are probabilities."""
        if self.value is not None and not 0 <= self.value <= 1:
            raise UsageProblem(f"--threshold {self.value:g}: a probability is between 0 and 1")

    def passed_by(self, scores: Any, thresholds: Any) -> Any:
        """Whether scores pass thresholds, for numbers or arrays that fit each other."""
        return scores >= thresholds if self.inclusive else scores > thresholds

    @property
    def is_default(self) -> bool:
        """Whether the option was not given."""
        return self.value is None and self.path is None

    @property
    def description(self) -> str:
        """The number or the name of the file."""
        if self.path is not None:
            return str(self.path)
        return str(DEFAULT_THRESHOLD if self.value is None else self.value)

    def for_classes(self, classes: LabelSystem, n_listed: int | None) -> Floats:
        """A threshold for each class [C]; NaN where those of its tags decide.

        A line that names a class wins over lines for its tags. A bare list of numbers is in class
        order if there are as many as classes that the user listed (`n_listed`, None without).
        """
        if self.path is None or self._n_numbers not in (None, n_listed):
            return np.full(len(classes), np.nan if self.value is None else self.value)
        return np.array(read_thresholds(self.path, classes, float("nan")))

    def for_tags(self, tags: LabelSystem, n_listed: int | None, *, in_order: bool = True) -> Floats:
        """A threshold for each tag of a label system, 0.5 for tags that the file does not name.

        A bare list of numbers that is not in class order is in the order of the label system;
        RunProblem when it does not fit that either, or tags are not `in_order`.
        """
        numbers = self._n_numbers
        if self.path is None or (numbers is not None and numbers == n_listed):
            return np.full(len(tags), DEFAULT_THRESHOLD)
        if numbers is not None and not in_order:
            message = f"{numbers} thresholds for labels that are not known (see --labels)"
            raise RunProblem(f"{self.path}: {message}")
        if numbers not in (None, len(tags)):
            message = f"{numbers} thresholds fit neither the classes nor the {len(tags)} tags"
            raise RunProblem(f"{self.path}: {message}")
        return np.array(read_thresholds(self.path, tags, DEFAULT_THRESHOLD))

    @property
    def _n_numbers(self) -> int | None:
        """The length of a bare list; None for JSONL, and without a file."""
        lines = [] if self.path is None else [x for x in read_lines(self.path) if x.strip()]
        return len(lines) if lines and not lines[0].lstrip().startswith("{") else None
