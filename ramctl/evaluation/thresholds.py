"""Thresholds that the user gives with `--threshold`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.metrics import Floats
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem, read_thresholds
from ramctl.records.files import read_lines


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
