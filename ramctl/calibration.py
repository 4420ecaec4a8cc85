"""What a score is worth: the probability that its tag is right, and the thresholds that follow.

One logistic curve for all labels and an offset for each: a cut through calibrated scores does
better than thresholds chosen for each label alone. N photos, L labels.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject

Floats = NDArray[np.float64]
NEVER = 1.0  # the threshold of a label that is not given by default
CLOSEST = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a cut through the calibrated probabilities gives on photos that did not choose it."""

    cut: float
    precision: float
    tags: float  # per photo


@dataclass(frozen=True)
class Calibration:
    """Scores to probabilities of being right: sigmoid(slope * log-odds + intercept + offset).

    `offsets` (L,) are NaN for labels without evidence, which are never given by default. A label
    is given only above its floor (L,), a score: above it, it stands on few enough photos to say
    something. `curve` falls with the number of tags. Once it is `folded`, the model's biases hold
    intercept and offsets: a score means the same of every label.
    """

    slope: float
    intercept: float
    offsets: Floats
    floors: Floats
    curve: tuple[CurvePoint, ...]
    folded: bool = False

    @property
    def shifts(self) -> Floats:
        """What folding adds to the labels' logits (L,)."""
        return (self.intercept + np.nan_to_num(self.offsets)) / self.slope

    def fold(self) -> "Calibration":
        """The calibration of a model to whose logits the shifts were added."""
        floors = sigmoid(log_odds_of(self.floors) + self.shifts)
        return replace(self, floors=floors, folded=True)

    def probabilities(self, scores: Floats) -> Floats:
        """Of tags being right, (N, L) from scores (N, L); 0 for labels without evidence."""
        log_odds = log_odds_of(scores) + (0 if self.folded else self.shifts)
        return np.where(np.isnan(self.offsets), 0, sigmoid(self.slope * log_odds))

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
        log_odds = float(log_odds_of(np.array(self.cut(precision)))) / self.slope
        shift = 0.0 if self.folded else self.intercept / self.slope
        return float(sigmoid(np.array(log_odds - shift)))

    def thresholds(self, precision: float) -> Floats:
        """The score (L,) above which each tag is given; 1 for labels without evidence."""
        log_odds = log_odds_of(np.array(self.cut(precision))) / self.slope
        scores = sigmoid(log_odds - (0 if self.folded else self.shifts))
        given = np.maximum(np.broadcast_to(scores, self.offsets.shape), self.floors)
        return np.where(np.isnan(self.offsets), NEVER, given)

    def write(self, path: Path) -> None:
        """Write the calibration, whole or not at all."""
        table: JsonObject = {
            "folded": self.folded,
            "slope": round(self.slope, 5),
            "intercept": round(self.intercept, 5),
            "offsets": [None if np.isnan(o) else round(float(o), 4) for o in self.offsets],
            "floors": [round(float(floor), 4) for floor in self.floors],
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
            offsets = np.array([np.nan if o is None else float(o) for o in table["offsets"]])
            floors = np.array([float(floor) for floor in table["floors"]])
            curve = tuple(CurvePoint(*map(float, point)) for point in table["curve"])
            shared = float(table["slope"]), float(table["intercept"])
            return cls(*shared, offsets, floors, curve, folded=table["folded"] is True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunProblem(f"{path}: not a calibration: {error}") from error


def log_odds_of(probabilities: Floats) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    inside = np.clip(probabilities, CLOSEST, 1 - CLOSEST)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def sigmoid(log_odds: Floats) -> Floats:
    """The probability with these log-odds."""
    probabilities: Floats = (1 + np.tanh(log_odds / 2)) / 2
    return probabilities
