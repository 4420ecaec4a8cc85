"""Salience: the probability that a tag names one of a photo's main things.

Captions name a photo's main things first. A label's fraction of the things that captions name is
a softmax of the things' scores and of weights that `fitting.fit_salience` learns. Judged photos
show how often a thing with such a fraction is a main one.
L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.inference.log_odds import Floats

# Weights of the log-odds of being right, of the log fraction, and a constant, before judged photos
# give others.
MAIN = (0.46, 0.53, 0.73)
# The same weights for what a photo is of, which captions begin with: often something special, and
# less sure. The first weight may be from 0.1 to 0.5.
FIRST = (0.3, 1.0, 0.0)
# The softmax is over the likeliest things alone, so that other labels need no score.
N_LIKELIEST = 16
MAX_LOG_ODDS = 8.0  # of being right: higher ones count as this
MIN_FRACTION = 1e-6
USUAL_PROBABILITY = 0.1  # of being a main thing; a likelier one has a lower threshold


class Rival(NamedTuple):
    """A label that is easily taken for another, as a man for a woman."""

    general: int  # the label that is given where it is not clear which of the two is right
    other: int
    margin: float  # by which the log-odds of its score must exceed those of the other


@dataclass(frozen=True)
class Salience:
    """The salience of labels; `weights` (L,) are -inf for labels that are not things.

    `main` turns the log-odds of being right and a fraction into the probability of being a main
    thing. `careful` labels are only given where they exceed their rivals.
    """

    slope: float
    weights: Floats
    main: tuple[float, float, float] = MAIN
    careful: Mapping[int, Rival] = field(default_factory=dict)

    def inputs(self, score_log_odds: Floats, log_odds: Floats) -> Floats:
        """The inputs of `main` (..., L, 3), from the log-odds of scores and of being right."""
        certain = np.clip(np.nan_to_num(log_odds, nan=-MAX_LOG_ODDS), -MAX_LOG_ODDS, MAX_LOG_ODDS)
        # Each label's fraction of what captions name.
        logits = self.slope * score_log_odds + self.weights
        top = logits.max(axis=-1, keepdims=True, initial=-MAX_LOG_ODDS)
        fractions = np.exp(logits - top)
        number = min(N_LIKELIEST, fractions.shape[-1])
        likeliest = np.partition(fractions, -number, axis=-1)[..., -number:]
        total = likeliest.sum(axis=-1, keepdims=True)
        logs = np.log(fractions / np.maximum(total, MIN_FRACTION) + MIN_FRACTION)
        return np.stack([certain, logs, np.ones_like(logs)], -1)

    def probabilities(self, inputs: Floats) -> Floats:
        """The probability (..., L) that each label names a main thing; 0 where it is not a thing.

        `inputs` (..., L, 3) come from the method of that name.
        """
        probabilities = (1 + np.tanh(inputs @ np.array(self.main) / 2)) / 2
        return np.where(np.isfinite(self.weights), probabilities, 0.0)

    def with_shifts(self, shifts: Floats) -> "Salience":
        """The salience of the model once `shifts` (L,) are added to its biases."""
        careful = {
            index: rival._replace(
                margin=rival.margin + float(shifts[index]) - float(shifts[rival.other])
            )
            for index, rival in self.careful.items()
        }
        return replace(self, weights=self.weights - self.slope * shifts, careful=careful)

    def unclear(self, score_log_odds: Floats) -> NDArray[np.bool_]:
        """The careful labels (..., L) that do not exceed their rivals."""
        unclear = np.zeros(score_log_odds.shape, bool)
        for index, (_, other, margin) in self.careful.items():
            lead = score_log_odds[..., index] - score_log_odds[..., other]
            unclear[..., index] = lead < margin
        return unclear

    def for_labels(self, ids: Sequence[int | None]) -> "Salience":
        """The salience of a list of labels, given as ids of these; None is a new word.

        New words have the median weight of things.
        """
        things = self.weights[np.isfinite(self.weights)]
        usual = float(np.median(things)) if len(things) else 0.0
        weights = [usual if i is None else self.weights[i] for i in ids]
        places = {i: place for place, i in enumerate(ids)}
        careful = {
            places[i]: Rival(places[general], places[other], margin)
            for i, (general, other, margin) in self.careful.items()
            if places.keys() >= {i, general, other}
        }
        return replace(self, weights=np.array(weights, np.float64), careful=careful)

    def to_json(self) -> dict[str, Any]:
        """The table of a bundle's file; null for a label that is not a thing."""
        weights = [round(w, 3) if np.isfinite(w) else None for w in self.weights.tolist()]
        numbers = [round(number, 4) for number in self.main]
        careful = [[i, *rival[:2], round(rival.margin, 3)] for i, rival in self.careful.items()]
        slope = round(self.slope, 4)
        return {"slope": slope, "main": numbers, "weights": weights, "careful": careful}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Salience":
        """The salience in such a table; KeyError, TypeError or ValueError where it is damaged."""
        weights = [-np.inf if w is None else float(w) for w in table["weights"]]
        certain, fraction, constant = map(float, table["main"])
        careful = {
            int(index): Rival(int(general), int(other), float(margin))
            for index, general, other, margin in (row for row in table["careful"] if len(row) > 2)
        }  # pairs: of version 0.1
        if not {i for index, rival in careful.items() for i in (index, *rival[:2])} <= {
            *range(len(weights))
        }:
            raise ValueError("careful labels that do not exist")
        return cls(float(table["slope"]), np.array(weights), (certain, fraction, constant), careful)


def allowances(probabilities: Floats) -> Floats:
    """How far below their thresholds labels may be, in log-odds, by `probabilities`."""
    return np.log(np.maximum(probabilities, USUAL_PROBABILITY) / USUAL_PROBABILITY)
