"""Probabilities, log-odds and logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.records.labels import Labels

Floats = NDArray[np.float64]
MIN_P = 1e-6  # probabilities are kept this far from 0 and 1


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
