"""One threshold for all classes, chosen by what it gives on the photos that are evaluated.

`N` photos, `C` classes, `K` candidates.
"""

from dataclasses import dataclass

import numpy as np

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import decision_figures
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, Counts, Floats, Scores, row_blocks

_CANDIDATES = 2000
_SAMPLED = 1 << 21  # numbers of which the first candidates are drawn


@dataclass(frozen=True, slots=True)
class Goal:
    """`best`: the highest OF1; else the lowest threshold at which CP is at least `precision`."""

    precision: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> "Goal | None":
        """The goal that `--threshold` names, if any; UsageProblem for a precision that is none."""
        name, _, value = (text or "").partition("=")
        if text == "best":
            return cls()
        if name != "match-precision":
            return None
        try:
            precision = float(value)
        except ValueError:
            precision = 0.0
        if not 0 < precision <= 1:
            raise UsageProblem(f"--threshold {text}: a precision is above 0 and at most 1")
        return cls(precision)

    def __str__(self) -> str:
        return "best" if self.precision is None else f"match-precision={self.precision:g}"

    def decide(self, comparison: Comparison) -> Comparison:
        """The comparison with the tags that the chosen threshold gives."""
        score = self._choose(comparison)
        threshold = f"{_midway_down(comparison, score):.6g}"
        return comparison.from_score(score, f"{threshold} ({self} on these photos)")

    def _choose(self, comparison: Comparison) -> float:
        """The score from which on a tag is given; RunProblem where no precision is enough."""
        scores = comparison.scores
        step = 1 + scores.size // _SAMPLED
        candidates = np.unique(scores[::step])
        candidates = _thinned(candidates[candidates > comparison.score_of_none])
        if not len(candidates):
            raise RunProblem(f"no score to choose a threshold from ({self})")
        place = self._best_of(comparison, candidates)
        if scores.size > len(candidates):  # look closer, at the scores around it
            low, high = (
                candidates[max(place - 1, 0)],
                candidates[min(place + 1, len(candidates) - 1)],
            )
            near = [
                np.unique(block[(block >= low) & (block <= high)])
                for block in (scores[part] for part in row_blocks(scores))
            ]
            candidates = _thinned(np.unique(np.concatenate([candidates[place : place + 1], *near])))
            place = self._best_of(comparison, candidates)
        return float(candidates[place])

    def _best_of(self, comparison: Comparison, candidates: Scores) -> int:
        found = decision_figures(
            counts_at(comparison, candidates), comparison.is_averaged, comparison.counted
        )
        if self.precision is None:
            return int(np.argmax(found["OF1"]))
        enough = np.flatnonzero(found["CP"] >= self.precision)
        if not len(enough):
            most = f"at most {found['CP'].max():.3f}"
            raise RunProblem(f"no threshold reaches precision {self.precision:g}: {most}")
        return int(enough[0])


def _midway_down(comparison: Comparison, score: float) -> float:
    """The middle between a score and the next lower one."""
    lower = comparison.score_of_none
    for part in row_blocks(comparison.scores):
        block = comparison.scores[part]
        lower = max(lower, float(block.max(initial=lower, where=block < score)))
    return (score + lower) / 2


def _thinned(ascending: Scores) -> Scores:
    """At most so many of the scores, closer to each other where they are higher."""
    if len(ascending) <= _CANDIDATES:
        return ascending
    places = len(ascending) - np.geomspace(1, len(ascending), _CANDIDATES).astype(np.intp)
    return ascending[np.unique(places)]


def counts_at(comparison: Comparison, candidates: Scores) -> Counts:
    """The counts [K, C] of what scores at least as much as each candidate."""
    shape = len(candidates), len(comparison.classes)
    right, false, missed = (np.zeros(shape) for _ in range(3))
    for c in np.flatnonzero(comparison.counted):
        scores, truth = comparison.scores[:, c], comparison.truth[:, c]
        right[:, c] = _at_least(scores[truth == POSITIVE], candidates)
        false[:, c] = _at_least(scores[truth == NEGATIVE], candidates)
        missed[:, c] = (truth == POSITIVE).sum() - right[:, c]
    return Counts(right, false, missed, comparison.style)


def _at_least(scores: Scores, candidates: Scores) -> Floats:
    """How many of the scores are at least as high as each candidate [K]."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates), np.float64)
