"""Thresholds: those that maximise F1, and those that the user gives with `--threshold`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN, Floats, Scores, Truth, rank
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem, read_thresholds
from ramctl.records.files import read_lines

Counts = NDArray[np.integer]
# With fewer positives than this, a threshold of its own says more about luck than about the tag.
MIN_POSITIVES = 10
# With this many positives, a class's own threshold counts as much as the shared one.
# Chosen on halves of flickr8k-dev: picked on one half and used on the other, micro F1 was 0.393
# instead of 0.362, macro F1 0.089 instead of 0.083; 20 and 80 do nearly as well.
SHARED_WEIGHT = 40


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


def max_f1_thresholds(
    scores: Scores, truth: Truth, min_positives: int = MIN_POSITIVES
) -> tuple[Floats, float]:
    """The best threshold of each class [C] and the best single one shared by all.

    Classes with fewer than `min_positives` positives take the shared one.
    """
    shared = max_f1_threshold(scores.ravel(), truth.ravel())
    own = np.full(scores.shape[1], shared)
    for c in np.flatnonzero((truth == POSITIVE).sum(axis=0) >= min_positives):
        own[c] = max_f1_threshold(scores[:, c], truth[:, c])
    return own, shared


def shrunk_thresholds(own: Floats, shared: float, n_positives: Counts) -> Floats:
    """Thresholds [C] shrunk towards the shared one, the more the fewer positives they rest on.

    The mean of both log-odds, weighted by the positives: what is best on a few photos of a class
    is rarely best on others.
    """
    weight = n_positives / (n_positives + SHARED_WEIGHT)
    log_odds = weight * _log_odds(own) + (1 - weight) * _log_odds(np.array(shared))
    shrunk: Floats = 1 / (1 + np.exp(-log_odds))
    return shrunk


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


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
