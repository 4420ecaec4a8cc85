"""Calibration: curves from logits to probabilities of being right, fitted to judged photos.

A label's probability is sigmoid(slope x logit + offset). Slopes and offsets are shrunk towards
those of one curve for all labels, most where few photos show the label: one threshold on calibrated
scores does better than thresholds chosen label by label. N photos, L labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.inference.log_odds import Floats, sigmoid

Flags = NDArray[np.bool_]
FOLDS = 5  # parts of the photos, each calibrated by the others
RIDGE = np.array([4.0, 30.0])  # the penalties on a label's offset and slope
MIN_SLOPE = 0.1  # a higher logit never speaks against a label
PIVOT = -4.0  # the logit at which a label's slope changes nothing
NEWTON_STEPS = 30
MIN_STEP = 1e-6  # smaller ones are not halved
MIN_TAGS = 30  # that a precision must rest on


class Curves(NamedTuple):
    """The curves of labels, and the one of all of them together, for words that are no labels."""

    labels: Floats  # (L, 2) slope and offset
    pooled: tuple[float, float]

    def log_odds(self, logits: NDArray[Any]) -> Floats:
        """The log-odds of being right of logits (N, L)."""
        slopes, offsets = self.labels.T
        return slopes * logits + offsets


def newton(
    start: Floats,
    step_at: Callable[[Floats], Floats],
    cost_at: Callable[[Floats], NDArray[Any] | float],
) -> Floats:
    """The parameters at which a convex cost is lowest, by Newton's method from `start`.

    A step that raises the cost is halved; if `cost_at` returns a cost for each parameter, each
    parameter's step is halved by itself.
    """
    here = start
    for _ in range(NEWTON_STEPS):
        step, before = step_at(here), cost_at(here)
        while (worse := (cost_at(here + step) > before) & (abs(step) > MIN_STEP)).any():
            step = np.where(worse, step / 2, step)
        here = here + step
    return here


def fit_curves(logits: Floats, right: Flags, known: Flags) -> Curves:
    """The most likely curves of logits (N, L), by which of the labels are right where it is known.

    A label's log-odds are (shared slope + its slope) x + shared offset + its offset. Parameters
    (1 + L, 2) are offset and slope, first the shared ones. A label's meet no other label's in the
    Hessian, so that each block of two is inverted by itself.
    """
    x = logits - PIVOT

    def curves(parameters: Floats) -> tuple[Floats, Floats]:
        offsets, slopes = (parameters[0] + parameters[1:]).T
        return offsets, slopes

    def cost_at(parameters: Floats) -> float:
        offsets, slopes = curves(parameters)
        log_odds = slopes * x + offsets
        loss = np.where(known, np.logaddexp(0, log_odds) - right * log_odds, 0)
        return float(loss.sum() + (RIDGE * parameters[1:] ** 2).sum() / 2)

    def step_at(parameters: Floats) -> Floats:
        offsets, slopes = curves(parameters)
        probability = sigmoid(slopes * x + offsets)
        error = np.where(known, right - probability, 0)
        spread = np.where(known, probability * (1 - probability), 0)
        gradient = np.stack([error.sum(0), (error * x).sum(0)], -1)  # (L, 2)
        label_gradient = gradient - RIDGE * parameters[1:]
        mixed = np.stack([spread.sum(0), *2 * [(spread * x).sum(0)], (spread * x**2).sum(0)], -1)
        mixed = mixed.reshape(-1, 2, 2)
        inverse = np.linalg.inv(mixed + np.diag(RIDGE))
        through = mixed @ inverse
        shared_step = np.linalg.solve(
            (mixed - through @ mixed).sum(0) + 1e-6 * np.eye(2),
            (gradient - (through @ label_gradient[..., None])[..., 0]).sum(0),
        )
        label_steps = (inverse @ (label_gradient - mixed @ shared_step)[..., None])[..., 0]
        return np.concatenate([shared_step[None], label_steps])

    start = np.zeros((1 + x.shape[1], 2))
    start[0, 1] = 1.0
    parameters = newton(start, step_at, cost_at)
    shared_offset, shared_slope = parameters[0].tolist()
    offsets, slopes = curves(parameters)
    slopes = np.maximum(slopes, MIN_SLOPE)
    labels = np.stack([slopes, offsets - slopes * PIVOT], -1)
    return Curves(labels, (shared_slope, shared_offset - shared_slope * PIVOT))


def held_out_log_odds(logits: Floats, right: Flags, known: Flags) -> Floats:
    """The log-odds (N, L) of being right, each fold of the photos by the curves of the others."""
    found = np.empty(logits.shape)
    for fold in range(FOLDS):
        part = np.arange(len(logits)) % FOLDS == fold
        found[part] = fit_curves(logits[~part], right[~part], known[~part]).log_odds(logits[part])
    return found


class Precision(NamedTuple):
    """The effect of a threshold on photos that did not choose it."""

    threshold: float
    precision: float
    tags: float  # a photo


def precision_table(log_odds: Floats, right: Flags) -> list[Precision]:
    """The precision of tags by threshold, rising, in steps of half a percent, for log-odds (N, L).

    `log_odds` contain the allowance of likely main things; -inf is never given.
    """
    can_be_given = np.isfinite(log_odds)
    order = np.argsort(-log_odds[can_be_given], kind="stable")
    values, hits = log_odds[can_be_given][order], np.cumsum(right[can_be_given][order])
    number = np.arange(1, len(values) + 1)
    precision, table = hits / number, []
    for goal in np.arange(0.5, 1, 0.005):
        reached = np.flatnonzero((precision >= goal) & (number >= MIN_TAGS))
        if len(reached):
            last = reached[-1]
            row = sigmoid(values[last]), precision[last], number[last] / len(right)
            table.append(Precision(*(round(float(x), 4) for x in row)))
    return sorted(set(table))
