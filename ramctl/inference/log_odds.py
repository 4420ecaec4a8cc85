"""From logits to log-odds and probabilities; salience, and what a collection changes of them.

Salience is the probability that a tag names one of a photo's main things. Captions name these
first: a label's fraction of the things that captions name first is a softmax of the things'
log-odds and of weights, learnt from captions. Judged photos show how often a thing with such a
fraction is a main one. B photos, C channels of the pooled features, L labels.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.records.labels import Labels

Array = NDArray[Any]
Floats = NDArray[np.float64]
MIN_P = 1e-6  # probabilities are kept this far from 0 and 1
NO_FIRST = -1
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


def log_odds_of(probabilities: NDArray[Any] | float) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    inside = np.clip(probabilities, MIN_P, 1 - MIN_P)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def sigmoid(log_odds: NDArray[Any]) -> NDArray[Any]:
    """The probability with these log-odds."""
    return (1 + np.tanh(log_odds / 2)) / 2


def score_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of a model's logits, without overflow; tiny ones keep their digits."""
    return np.asarray(1 / (1 + np.exp(-np.maximum(logits, np.float32(-80)))), np.float32)


class Probabilities:
    """Logits to probabilities by each label's curve. B photos, L labels."""

    def __init__(self, labels: Labels) -> None:
        self._has_curves = any(label.calibration is not None for label in labels)
        self._slopes, self._offsets = labels.curves.T.astype(np.float32)

    def log_odds(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log-odds (B, L) of logits (B, L), which they are where no label has a curve."""
        return self._slopes * logits + self._offsets if self._has_curves else logits

    def __call__(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (B, L) of logits (B, L)."""
        return score_logits(self.log_odds(logits))


class Collection(NamedTuple):
    """Linear functions of the features, which `ramctl fit` learnt of one owner's photos.

    Photos that are not of the collection are tagged as before. F labels that the fit changes, T
    things that captions begin with. What comes first is in the photo, and so is what it implies.
    """

    labels: Array  # (F,)
    things: Array  # (T,)
    implied: Array  # (M,) these things and the labels above them
    implies: Array  # (T, M) whether a thing is a label, or below it
    # (C + 1, 1 + F + T), the last row is a constant: above 0 for photos of the collection, what is
    # added to the labels' log-odds, and which thing comes first, beside `slope` x log-odds.
    weight: Array
    slope: Array  # ()
    new: Array  # labels that exist in the collection alone
    rows: Array  # of these
    lifted: Array  # labels that the change can make likely: they are always scored

    def values(self, pooled: Array) -> Array:
        """The values (B, 1 + F + T) of the functions by pooled features (B, C)."""
        return pooled @ self.weight[:-1] + self.weight[-1]

    def __call__(self, log_odds: Array, values: Array) -> tuple[Array, Array]:
        """The changed log-odds (B, L), and the labels (B,) that come first, else NO_FIRST."""
        is_own, added, first = np.split(values, [1, 1 + len(self.labels)], axis=1)
        own = is_own[:, 0] > 0
        changed, leads = log_odds.copy(), np.full(len(log_odds), NO_FIRST)
        changed[np.ix_(~own, self.new)] = -np.inf
        changed[np.ix_(own, self.labels)] += added[own]
        if own.any() and len(self.things):
            logits = first[own] + self.slope * log_odds[np.ix_(own, self.things)]
            leads[own] = self.things[logits.argmax(1)]
            odds = np.exp(logits - logits.max(1, keepdims=True))
            there = log_odds_of(odds / odds.sum(1, keepdims=True) @ self.implies)
            places = np.ix_(own, self.implied)
            changed[places] = np.maximum(changed[places], there)
        return changed, leads


@dataclass(frozen=True)
class Salience:
    """The salience of labels; `weights` (L,) are -inf for labels that are not things.

    `main` turns the log-odds of being right and a fraction into the probability of being a main
    thing.
    """

    slope: float
    weights: Floats
    main: tuple[float, float, float] = MAIN

    @classmethod
    def from_bundle(cls, table: dict[str, Any] | None, labels: Labels) -> "Salience | None":
        """The salience of a bundle's `salience` table and its labels' weights; None without."""
        if table is None:
            return None
        certain, fraction, constant = map(float, table["main"])
        weights = labels.numbers("salience", -np.inf)
        return cls(float(table["slope"]), weights, (certain, fraction, constant))

    def inputs(self, log_odds: Floats) -> Floats:
        """The inputs of `main` (..., L, 3), from the log-odds of being right (..., L)."""
        logits = self.slope * log_odds + self.weights
        fractions = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-MAX_LOG_ODDS))
        number = min(N_LIKELIEST, fractions.shape[-1])
        likeliest = np.partition(fractions, -number, axis=-1)[..., -number:]
        total = np.maximum(likeliest.sum(axis=-1, keepdims=True), MIN_FRACTION)
        logs = np.log(fractions / total + MIN_FRACTION)
        certain = np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        return np.stack([certain, logs, np.ones_like(logs)], -1)

    def probabilities(self, inputs: Floats) -> Floats:
        """The probability (..., L) that each label names a main thing; 0 where it is not a thing.

        `inputs` (..., L, 3) come from the method of that name.
        """
        return np.where(np.isfinite(self.weights), sigmoid(inputs @ np.array(self.main)), 0.0)


def allowances(probabilities: Floats) -> Floats:
    """How far below the threshold labels may be, in log-odds, by `probabilities` of being main."""
    return np.log(np.maximum(probabilities, USUAL_PROBABILITY) / USUAL_PROBABILITY)
