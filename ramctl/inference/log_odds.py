"""Probabilities, log-odds and logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MIN_P = 1e-6  # probabilities are kept this far from 0 and 1


def log_odds_of(probabilities: NDArray[Any] | float) -> Floats:
    """log(p / (1 - p)), finite for 0 and 1 too."""
    inside = np.clip(probabilities, MIN_P, 1 - MIN_P)
    odds: Floats = np.log(inside / (1 - inside))
    return odds


def sigmoid(log_odds: Floats) -> Floats:
    """The probability with these log-odds."""
    return (1 + np.tanh(log_odds / 2)) / 2


def score_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of a model's logits, without overflow; tiny ones keep their digits."""
    return np.asarray(1 / (1 + np.exp(-np.maximum(logits, np.float32(-80)))), np.float32)
