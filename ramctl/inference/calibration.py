"""Calibration: scores to probabilities of being right, and the thresholds that follow.

Each label has a logistic curve. Its offset and slope are shrunk towards those of one curve for all
labels, most where few photos show the label: one threshold on calibrated scores does better than
thresholds chosen label by label. `fitting` makes a calibration of judged photos.
N photos, L labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import CALIBRATION, Bundle
from ramctl.errors import RunProblem
from ramctl.inference.log_odds import Floats, log_odds_of, sigmoid
from ramctl.inference.salience import Salience
from ramctl.records.files import write_atomic
from ramctl.records.record import JsonObject

NEVER = 1.0  # the threshold of a label that is not given by default
MAX_SHIFT = 5.0  # of a label's bias, in log-odds
# The log-odds of being right that a label of a list must reach.
LISTED_LOG_ODDS = 1.5
# The fields that have a number of each label, and their names in the file.
_BY_LABEL = {"slopes": "slopes", "offsets": "offsets", "min_scores": "floors", "shifts": "shifts"}


class CurvePoint(NamedTuple):
    """The effect of a threshold on calibrated probabilities, on photos that did not choose it."""

    probability: float
    precision: float
    tags: float  # per photo


@dataclass(frozen=True)
class Calibration:
    """Scores to log-odds of being right: a slope times their log-odds plus an offset (L,).

    `slope` and `intercept` are those of all labels together, used for new words.
    `offsets` are NaN for labels without evidence, which are never given by default. A label is
    given only above `min_scores` (L,), so that it is not given on most photos. `curve` falls with
    the number of tags. `shifts` (L,) are already part of the model's biases; they give all labels
    the same threshold.
    """

    slope: float
    intercept: float
    slopes: Floats
    offsets: Floats
    min_scores: Floats
    shifts: Floats
    curve: tuple[CurvePoint, ...]
    base: float = 0.5  # the fraction of the photos on which a label is right
    salience: Salience | None = None  # where it was trained on captions
    salient_curve: tuple[CurvePoint, ...] = ()  # with lower thresholds for likely main things
    mention_rates: Floats | None = None  # (L,) P(a dense caption names a label that is there)

    def log_odds(
        self, score_log_odds: Floats, labels: NDArray[Any] | slice = slice(None)
    ) -> Floats:
        """Log-odds of being right, from the log-odds of the labels' scores."""
        return self.slopes[labels] * score_log_odds + self.offsets[labels]

    def for_all(self) -> "Calibration":
        """The calibration with the curve of all labels for those without evidence."""
        offsets = np.where(np.isnan(self.offsets), self.intercept, self.offsets)
        return replace(self, offsets=offsets)

    def _score_log_odds(self, probability: float) -> Floats:
        """The log-odds (L,) of the scores at which each label has this probability."""
        return (log_odds_of(probability) - self.offsets) / self.slopes

    def min_probability(self, precision: float, *, salient: bool = False) -> float:
        """The lowest probability at which tags have the precision; RunProblem when none has it.

        `salient`: with lower thresholds for likely main things.
        """
        curve = (salient and self.salient_curve) or self.curve
        reached = [point.probability for point in curve if point.precision >= precision]
        if not reached:
            best = max((point.precision for point in curve), default=0.0)
            raise RunProblem(f"no threshold reaches precision {precision:g}: at most {best:.3f}")
        return min(reached)

    def shared_threshold(self, precision: float) -> float:
        """The threshold of labels without a calibration of their own: new words."""
        needed = log_odds_of(self.min_probability(precision, salient=True))
        return float(sigmoid((needed - self.intercept) / self.slope))

    def thresholds(self, precision: float, *, salient: bool = False) -> Floats:
        """The labels' thresholds (L,) for a precision; 1 without evidence."""
        needed = self._score_log_odds(self.min_probability(precision, salient=salient))
        return np.where(np.isnan(needed), NEVER, np.maximum(sigmoid(needed), self.min_scores))

    def listed_thresholds(self) -> Floats:
        """The thresholds (L,) of labels that somebody lists.

        On average one label of a list is right for a photo: in a short list each is likelier.
        """
        prior = log_odds_of(1 / max(len(self.slopes), 2))
        gained = max(float(prior - log_odds_of(self.base)), 0.0)
        return sigmoid((LISTED_LOG_ODDS - gained - self.offsets) / self.slopes)

    def f1_thresholds(self, scores: Floats) -> tuple[Floats, float]:
        """The labels' thresholds (L,) for the best F1, and one for all.

        It is the expected F1 on photos with these scores (N, L), whose truth need not be known.
        Labels without evidence have the curve of all.
        """
        has_evidence, log_odds = ~np.isnan(self.offsets), log_odds_of(scores)
        slopes = np.where(has_evidence, self.slopes, self.slope)
        offsets = np.where(has_evidence, self.offsets, self.intercept)
        needed = (_best_f1_log_odds(slopes * log_odds + offsets) - offsets) / slopes
        pooled = self.slope * log_odds.reshape(-1, 1) + self.intercept
        shared = (_best_f1_log_odds(pooled)[0] - self.intercept) / self.slope
        return np.maximum(sigmoid(needed), self.min_scores), float(sigmoid(shared))

    def shifts_for(self, precision: float) -> Floats:
        """Shifts of the biases (L,) that give all labels one threshold at the precision."""
        shared = log_odds_of(self.shared_threshold(precision))
        needed = self._score_log_odds(self.min_probability(precision, salient=True))
        # With larger ones all scores of a label that is nearly always right would be near 1.
        return np.clip(np.nan_to_num(shared - needed), -MAX_SHIFT, MAX_SHIFT)

    def with_shifts(self, shifts: Floats) -> "Calibration":
        """The calibration of the model once `shifts` (L,) are added to its biases."""
        return replace(
            self,
            offsets=self.offsets - self.slopes * shifts,
            min_scores=sigmoid(log_odds_of(self.min_scores) + shifts),
            shifts=self.shifts + shifts,
            salience=self.salience and self.salience.with_shifts(shifts),
        )

    def for_labels(self, ids: Sequence[int | None]) -> "Calibration":
        """The calibration of a list of labels, given as ids of these; None is a new word.

        New words have the slope and the offset of all labels together.
        """
        usual = {"slopes": self.slope, "offsets": self.intercept}
        known = {name: getattr(self, name) for name in _BY_LABEL}
        if self.mention_rates is not None:
            known["mention_rates"] = self.mention_rates
            usual["mention_rates"] = float(np.median(self.mention_rates))
        columns: Any = {
            name: np.array([usual.get(name, 0.0) if i is None else column[i] for i in ids])
            for name, column in known.items()
        }
        return replace(self, **columns, salience=self.salience and self.salience.for_labels(ids))

    def write(self, path: Path) -> None:
        """Write the calibration, whole or not at all."""
        table: JsonObject = {
            name: round(getattr(self, name), 5) for name in ("slope", "intercept", "base")
        }
        for name, key in _BY_LABEL.items():
            table[key] = [round(value, 4) for value in getattr(self, name).tolist()]
        for name in ("curve", "salient_curve"):
            table[name] = [[*map(round, point, (5, 4, 3))] for point in getattr(self, name)]
        if self.salience is not None:
            table["salience"] = self.salience.to_json()
        if self.mention_rates is not None:
            table["mention_rates"] = [round(rate, 3) for rate in self.mention_rates.tolist()]
        write_atomic(path, orjson.dumps(table) + b"\n")  # NaN becomes null

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """A written calibration; RunProblem naming the file where it is damaged."""
        try:
            table = orjson.loads(path.read_bytes())
            slopes, offsets, min_scores, shifts = columns = np.array(
                [table[key] for key in _BY_LABEL.values()], np.float64
            )
            _, n_labels = columns.shape
            curve, salient_curve = (
                tuple(CurvePoint(*map(float, point)) for point in table[name])
                for name in ("curve", "salient_curve")
            )
            shared = float(table["slope"]), float(table["intercept"])
            stored = table.get("salience")
            salience = None if stored is None else Salience.from_json(stored)
            if salience is not None and len(salience.weights) != n_labels:
                raise ValueError(f"{len(salience.weights)} weights for {n_labels} labels")
            base, rates = float(table["base"]), table.get("mention_rates")
            if rates is not None and len(rates := np.array(rates, np.float64)) != n_labels:
                raise ValueError(f"{len(rates)} mention_rates for {n_labels} labels")
            return cls(
                *shared, slopes, offsets, min_scores, shifts, curve, base, salience, salient_curve,
                rates,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunProblem(f"{path}: not a calibration: {error}") from error

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> "Calibration":
        """The calibration of a bundle, for every number format; RunProblem where it has none."""
        path = bundle.path / CALIBRATION
        if not bundle.has(CALIBRATION):
            raise RunProblem(
                f"{bundle.path}: has no {CALIBRATION}: use --threshold instead of --precision"
            )
        calibration = cls.read(path)
        if (n := len(calibration.slopes)) != len(bundle.labels):
            raise RunProblem(f"{path}: has {n} labels, the bundle {len(bundle.labels)}")
        return calibration

    @classmethod
    def if_known(cls, bundle: Bundle) -> "Calibration | None":
        """The calibration of a bundle; None where it has none."""
        return cls.from_bundle(bundle) if bundle.has(CALIBRATION) else None


def _best_f1_log_odds(log_odds: Floats) -> Floats:
    """The log-odds (L,) of being right above which tags, of these (N, L), have the best F1.

    Source: Lipton, Elkan and Naryanaswamy 2014, Optimal Thresholding of Classifiers to Maximize
    F1 Measure: the best threshold is half of the F1 that it gives.
    """
    ranked = -np.sort(-sigmoid(log_odds), axis=0)
    n_given = np.arange(1, len(ranked) + 1)[:, None]
    f1 = 2 * ranked.cumsum(axis=0) / (n_given + ranked.sum(axis=0))
    return log_odds_of(f1.max(axis=0) / 2)
