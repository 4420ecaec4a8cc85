"""Salience: the probability that a tag names one of a photo's main things.

Captions name a photo's main things first. A label's fraction of the things that captions name first
is a softmax of the things' log-odds and of weights, learnt from captions. Judged photos show how
often a thing with such a fraction is a main one. N photos, L labels.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.inference.calibration import Flags, newton
from ramctl.inference.log_odds import Floats, sigmoid
from ramctl.records.labels import Labels

THINGS = ("object", "scene")
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
RIDGE = 1.0  # the penalty on a weight; from 0.05 to 2 it makes little difference
ROUNDS = 60  # of L-BFGS
MAIN_RIDGE = 0.1
MIN_MAIN = 50  # known main things; with fewer, `main` is not fitted


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

    def fitted(self, log_odds: Floats, is_main: Flags, can_be_given: Flags) -> "Salience":
        """The salience with `main` as photos (N, L) with known main things give it.

        Without MIN_MAIN main things it stays as it is. `can_be_given` is (L,).
        """
        counts = can_be_given & np.isfinite(self.weights)
        is_main_thing = is_main[:, counts].ravel()
        if is_main_thing.sum() < MIN_MAIN:
            return self
        inputs = self.inputs(log_odds)[:, counts].reshape(-1, 3)

        def cost_at(main: Floats) -> float:
            logits = inputs @ main
            loss = np.logaddexp(0, logits) - is_main_thing * logits
            return float(loss.sum() + MAIN_RIDGE * (main**2).sum() / 2)

        def step_at(main: Floats) -> Floats:
            probability = sigmoid(inputs @ main)
            gradient = inputs.T @ (is_main_thing - probability) - MAIN_RIDGE * main
            hessian = (inputs * (probability * (1 - probability))[:, None]).T @ inputs
            return np.asarray(np.linalg.solve(hessian + MAIN_RIDGE * np.eye(3), gradient))

        certain, fraction, constant = newton(np.array(MAIN), step_at, cost_at).tolist()
        return replace(self, main=(certain, fraction, constant))


def fit_salience(
    log_odds: Floats, mentions: NDArray[np.float32], labels: Labels
) -> Salience | None:
    """The salience that captioned photos' log-odds and mentions (N, L) give; None without mentions.

    It is the most likely one, with mentions as fractions of a softmax over all things.
    """
    import torch

    things = np.flatnonzero([label.kind in THINGS for label in labels])
    is_captioned = mentions[:, things].any(1)
    if not is_captioned.any():
        return None
    inputs = torch.from_numpy(log_odds[is_captioned][:, things]).float()
    fractions = torch.from_numpy(mentions[is_captioned][:, things])
    fractions /= fractions.sum(1, keepdim=True)
    slope = torch.ones((), requires_grad=True)
    weights = torch.zeros(len(things), requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        likelihood = (fractions * (slope * inputs + weights).log_softmax(1)).sum()
        loss = (RIDGE * weights.square().sum() - likelihood) / len(fractions)
        loss.backward()
        return loss.detach()

    optimiser.step(cost)
    all_weights = np.full(len(labels), -np.inf)
    all_weights[things] = weights.detach().numpy()
    return Salience(float(slope.detach()), all_weights)


def allowances(probabilities: Floats) -> Floats:
    """How far below the threshold labels may be, in log-odds, by `probabilities` of being main."""
    return np.log(np.maximum(probabilities, USUAL_PROBABILITY) / USUAL_PROBABILITY)
