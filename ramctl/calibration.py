"""What a score is worth: the probability that its tag is right, and the thresholds that follow.

A logistic curve for all labels, with an offset and a slope of each that differ little: one cut
through calibrated scores does better than thresholds chosen for each label. N photos, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject

Floats = NDArray[np.float64]
NEVER = 1.0  # the threshold of a label that is not given by default
LARGEST_SHIFT = 5.0  # of a label's bias, in log-odds
CLOSEST = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a cut through the calibrated probabilities gives on photos that did not choose it."""

    cut: float
    precision: float
    tags: float  # per photo


@dataclass(frozen=True)
class Calibration:
    """Scores to log-odds of being right: own slope * log-odds + own offset of each label (L,).

    `slope` and `intercept` are those of all labels together: for words that nothing is known of.
    `offsets` are NaN for labels without evidence, which are never given by default. A label is
    given only above its floor (L,), a score: above it, it stands on few enough photos to say
    something. `curve` falls with the number of tags. `shifts` (L,) are what the model's biases hold
    already, so that a score at the cut is the same of every label.
    """

    slope: float
    intercept: float
    slopes: Floats
    offsets: Floats
    floors: Floats
    shifts: Floats
    curve: tuple[CurvePoint, ...]

    def shifts_for(self, precision: float) -> Floats:
        """What biases (L,) need on top, for one score at that precision's cut of every label."""
        shared = log_odds_of(np.array(self.shared_threshold(precision)))
        wanted = np.nan_to_num(shared - self._log_odds_at(self.cut(precision)))
        # More would leave nothing to tell scores apart by, of a label that is nearly always right.
        return np.clip(wanted, -LARGEST_SHIFT, LARGEST_SHIFT)

    def fold(self, shifts: Floats) -> "Calibration":
        """The calibration of a model to whose biases the shifts were added."""
        return replace(
            self,
            offsets=self.offsets - self.slopes * shifts,
            floors=sigmoid(log_odds_of(self.floors) + shifts),
            shifts=self.shifts + shifts,
        )

    def log_odds(self, of_scores: Floats, labels: NDArray[Any] | slice = slice(None)) -> Floats:
        """Log-odds of being right, of the log-odds of scores of the labels, one each."""
        return self.slopes[labels] * of_scores + self.offsets[labels]

    def probabilities(self, scores: Floats) -> Floats:
        """Of tags being right, (N, L) from scores (N, L); 0 for labels without evidence."""
        return np.where(np.isnan(self.offsets), 0, sigmoid(self.log_odds(log_odds_of(scores))))

    def _log_odds_at(self, probability: float) -> Floats:
        """The log-odds (L,) of the scores that are worth a probability."""
        return (log_odds_of(np.array(probability)) - self.offsets) / self.slopes

    def cut(self, precision: float) -> float:
        """The lowest probability at which the tags above it have the precision asked for.

        RunProblem when no cut reaches it on the photos that were judged.
        """
        reached = [point.cut for point in self.curve if point.precision >= precision]
        if not reached:
            best = max((point.precision for point in self.curve), default=0.0)
            raise RunProblem(f"no threshold reaches precision {precision:g}: at most {best:.3f}")
        return min(reached)

    def shared_threshold(self, precision: float) -> float:
        """The score above which a tag is given of which nothing but its score is known."""
        log_odds = float(log_odds_of(np.array(self.cut(precision))))
        return float(sigmoid(np.array((log_odds - self.intercept) / self.slope)))

    def thresholds(self, precision: float, eager: Sequence[int] = ()) -> Floats:
        """The score (L,) above which each tag is given; 1 for labels without evidence.

        Those of `eager` are given wherever they are more likely right than not.
        """
        wanted = self._log_odds_at(self.cut(precision))
        some = list(eager)
        wanted[some] = np.minimum(wanted[some], self._log_odds_at(0.5)[some])
        return np.where(np.isnan(wanted), NEVER, np.maximum(sigmoid(wanted), self.floors))

    def f1_thresholds(self, scores: Floats) -> tuple[Floats, float]:
        """The score (L,) above which each tag is given for the best F1, and one for all.

        It is the F1 that is to be expected on photos with these scores (N, L), whose truth need not
        be known. Labels without evidence have the curve of all.
        Source: Lipton, Elkan and Naryanaswamy 2014, Optimal Thresholding of Classifiers to Maximize
        F1 Measure: the best cut is half of the F1 that it gives.
        """
        is_known = ~np.isnan(self.offsets)
        slopes = np.where(is_known, self.slopes, self.slope)
        offsets = np.where(is_known, self.offsets, self.intercept)
        log_odds = log_odds_of(scores)
        wanted = (_best_cut(slopes * log_odds + offsets) - offsets) / slopes
        pooled = self.slope * log_odds.reshape(-1, 1) + self.intercept
        shared = (float(_best_cut(pooled)[0]) - self.intercept) / self.slope
        return np.maximum(sigmoid(wanted), self.floors), float(sigmoid(np.array(shared)))

    def write(self, path: Path) -> None:
        """Write the calibration, whole or not at all."""
        table: JsonObject = {
            "slope": round(self.slope, 5),
            "intercept": round(self.intercept, 5),
            "slopes": [round(float(slope), 4) for slope in self.slopes],
            "offsets": [None if np.isnan(o) else round(float(o), 4) for o in self.offsets],
            "floors": [round(float(floor), 4) for floor in self.floors],
            "shifts": [round(float(shift), 4) for shift in self.shifts],
            "curve": [
                [round(p.cut, 5), round(p.precision, 4), round(p.tags, 3)] for p in self.curve
            ],
        }
        write_atomic(path, orjson.dumps(table) + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """A written calibration; RunProblem naming the file where it is damaged."""
        try:
            table = orjson.loads(path.read_bytes())
            slopes, offsets, floors, shifts = (
                np.array([np.nan if value is None else float(value) for value in table[name]])
                for name in ("slopes", "offsets", "floors", "shifts")
            )
            if len({*map(len, (slopes, offsets, floors, shifts))}) > 1:
                raise ValueError("its lists are not equally long")
            curve = tuple(CurvePoint(*map(float, point)) for point in table["curve"])
            shared = float(table["slope"]), float(table["intercept"])
            return cls(*shared, slopes, offsets, floors, shifts, curve)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunProblem(f"{path}: not a calibration: {error}") from error


def _best_cut(log_odds: Floats) -> Floats:
    """The log-odds (L,) of being right above which tags, of these (N, L), have the best F1."""
    ranked = -np.sort(-sigmoid(log_odds), axis=0)
    n_given = np.arange(1, len(ranked) + 1)[:, None]
    f1 = 2 * ranked.cumsum(axis=0) / (n_given + ranked.sum(axis=0))
    return log_odds_of(f1.max(axis=0) / 2)


def log_odds_of(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    inside = np.clip(probabilities, CLOSEST, 1 - CLOSEST)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def sigmoid(log_odds: Floats) -> Floats:
    """The probability with these log-odds."""
    probabilities: Floats = (1 + np.tanh(log_odds / 2)) / 2
    return probabilities
