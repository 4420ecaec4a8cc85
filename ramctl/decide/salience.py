"""Salience: the probability that a tag names one of a photo's main things.

Captions know: what they name first is what the photo is of. The fraction of each label among what
captions name is a softmax over the scores of things and a weight of each, which
`fitting.fit_salience` learns. Judged photos say how often a thing of such a fraction is a main one.
L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ramctl.engine.log_odds import Floats

# Weights of the log-odds of being right, of the log fraction, and a constant, before judged photos
# give others.
MAIN = (0.46, 0.53, 0.73)
# Fractions are of so many of the likeliest things: the other labels need no score for them.
N_LIKELIEST = 16
MAX_LOG_ODDS = 8.0  # of being right: higher ones count as this
MIN_FRACTION = 1e-6
USUAL_PROBABILITY = 0.1  # of being a main thing: one that is likelier may be less certain


@dataclass(frozen=True)
class Salience:
    """How likely labels are named first; `weights` (L,) are -inf where they are no things.

    `main` turns a fraction and a certainty into the probability of being a main thing. `careful`
    labels are given for their certainty alone; the more general label that each maps to may be
    given in its place.
    """

    slope: float
    weights: Floats
    main: tuple[float, float, float] = MAIN
    careful: Mapping[int, int] = field(default_factory=dict)

    def _log_fractions(self, score_log_odds: Floats) -> Floats:
        """Log of each label's fraction (..., L) of what captions name."""
        logits = self.slope * score_log_odds + self.weights
        top = logits.max(axis=-1, keepdims=True, initial=-MAX_LOG_ODDS)
        fractions = np.exp(logits - top)
        few = min(N_LIKELIEST, fractions.shape[-1])
        total = np.partition(fractions, -few, axis=-1)[..., -few:].sum(axis=-1, keepdims=True)
        logs: Floats = np.log(fractions / np.maximum(total, MIN_FRACTION) + MIN_FRACTION)
        return logs

    def inputs(self, score_log_odds: Floats, log_odds: Floats) -> Floats:
        """The inputs of `main` (..., L, 3), from the log-odds of scores and of being right."""
        certain = np.clip(np.nan_to_num(log_odds, nan=-MAX_LOG_ODDS), -MAX_LOG_ODDS, MAX_LOG_ODDS)
        fractions = self._log_fractions(score_log_odds)
        return np.stack([certain, fractions, np.ones_like(fractions)], -1)

    def probabilities(self, score_log_odds: Floats, log_odds: Floats) -> Floats:
        """The probability (..., L) that each label names a main thing; 0 where it is no thing.

        The log-odds (..., L) are those of the scores, and those of being right.
        """
        logits = self.inputs(score_log_odds, log_odds) @ np.array(self.main)
        probabilities = (1 + np.tanh(logits / 2)) / 2
        return np.where(np.isfinite(self.weights), probabilities, 0.0)

    def with_shifts(self, shifts: Floats) -> "Salience":
        """The salience of the model once `shifts` (L,) are added to its biases."""
        return replace(self, weights=self.weights - self.slope * shifts)

    def allowances(self, probabilities: Floats) -> Floats:
        """By how much less certain tags may be, in log-odds, for these `probabilities` (..., L)."""
        allowances = allowances_of_things(probabilities)
        allowances[..., list(self.careful)] = 0.0
        return allowances

    def for_labels(self, ids: Sequence[int | None]) -> "Salience":
        """The salience of a list of labels, given as ids of these; None is a new word.

        New words have the median weight of things.
        """
        things = self.weights[np.isfinite(self.weights)]
        usual = float(np.median(things)) if len(things) else 0.0
        weights = [usual if i is None else self.weights[i] for i in ids]
        places = {i: place for place, i in enumerate(ids)}
        kept = (pair for pair in self.careful.items() if places.keys() >= {*pair})
        careful = {places[i]: places[general] for i, general in kept}
        return replace(self, weights=np.array(weights, np.float64), careful=careful)

    def to_json(self) -> dict[str, Any]:
        """The table of a bundle's file; null for a label that is no thing."""
        weights = [round(w, 3) if np.isfinite(w) else None for w in self.weights.tolist()]
        numbers = [round(number, 4) for number in self.main]
        careful = [list(pair) for pair in self.careful.items()]
        slope = round(self.slope, 4)
        return {"slope": slope, "main": numbers, "weights": weights, "careful": careful}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Salience":
        """The salience in such a table; KeyError, TypeError or ValueError where it is damaged."""
        weights = [-np.inf if w is None else float(w) for w in table["weights"]]
        certain, fraction, constant = map(float, table["main"])
        careful = {int(index): int(general) for index, general in table["careful"]}
        if not {*careful, *careful.values()} <= {*range(len(weights))}:
            raise ValueError("careful labels that are none")
        return cls(float(table["slope"]), np.array(weights), (certain, fraction, constant), careful)


def allowances_of_things(probabilities: Floats) -> Floats:
    """The allowances of labels that are not careful ones."""
    return np.log(np.maximum(probabilities, USUAL_PROBABILITY) / USUAL_PROBABILITY)
