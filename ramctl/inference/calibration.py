"""Calibration: what a bundle knows of its labels' logits, from photos whose tags are known.

A label's probability is sigmoid(slope x logit + offset). Slopes and offsets are shrunk towards
those of one curve for all labels, most where few photos show the label: one threshold on calibrated
scores does better than thresholds chosen label by label. N photos, L labels.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.inference.class_evidence import ClassEvidence
from ramctl.inference.log_odds import MAIN, Floats, Salience, allowances, sigmoid
from ramctl.inference.thresholds import Precision, choose_threshold
from ramctl.records.labels import DEFAULT_THRESHOLD, Labels
from ramctl.records.record import JsonObject

Flags = NDArray[np.bool_]
MIN_PHOTOS = 50  # judged ones; with fewer, curves would be guesses
MAX_LOGITS = 5_000_000  # in a calibration: more cost minutes and give the same
FOLDS = 5  # parts of the photos, each calibrated by the others
RIDGE = np.array([4.0, 30.0])  # the penalties on a label's offset and slope
MIN_SLOPE = 0.1  # a higher logit never speaks against a label
PIVOT = -4.0  # the logit at which a label's slope changes nothing
NEWTON_STEPS = 30
MIN_STEP = 1e-6  # smaller ones are not halved
MIN_TAGS = 30  # that a precision must rest on
THINGS = ("object", "scene")
SALIENCE_RIDGE = 1.0  # the penalty on a weight; from 0.05 to 2 it makes little difference
ROUNDS = 60  # of L-BFGS
MAIN_RIDGE = 0.1
MIN_MAIN = 50  # known main things; with fewer, `main` is not fitted


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


def fit_main(salience: Salience, log_odds: Floats, is_main: Flags, can_be_given: Flags) -> Salience:
    """The salience with `main` as photos (N, L) with known main things give it.

    Without MIN_MAIN main things it stays as it is. `can_be_given` is (L,).
    """
    counts = can_be_given & np.isfinite(salience.weights)
    is_main_thing = is_main[:, counts].ravel()
    if is_main_thing.sum() < MIN_MAIN:
        return salience
    inputs = salience.inputs(log_odds)[:, counts].reshape(-1, 3)

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
    return replace(salience, main=(certain, fraction, constant))


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
        loss = (SALIENCE_RIDGE * weights.square().sum() - likelihood) / len(fractions)
        loss.backward()
        return loss.detach()

    optimiser.step(cost)
    all_weights = np.full(len(labels), -np.inf)
    all_weights[things] = weights.detach().numpy()
    return Salience(float(slope.detach()), all_weights)


class Judged(NamedTuple):
    """The logits (N, L) of photos, and which of their labels are right."""

    logits: Floats
    right: Flags  # (N, L)
    known: Flags  # (N, L) whether `right` is known
    main: Flags  # (N, L) the main things
    masses: Floats | None = None  # (N, n) of classes, where they are evidence


class Mentioned(NamedTuple):
    """The logits (N, L) of photos, and how early and often their captions name labels."""

    logits: NDArray[np.float32]
    weights: NDArray[np.float32]  # (N, L)
    masses: Floats | None = None  # (N, n)


def calibrate(
    labels: Labels, evidence: Flags, judged: Judged, captioned: Mentioned | None, precision: float,
    classes: ClassEvidence | None = None,
) -> tuple[Labels, JsonObject]:  # fmt: skip
    """The labels with their curves and salience, and the bundle's `meta` of them.

    Labels without `evidence` (L,) are not given; `classes` are evidence for labels. The
    threshold is the one for the `precision`, on photos that the curves did not see; where none
    reaches it, and for 0, that of the best F1. Without photos enough there are no curves, and the
    threshold is 0.5.
    """
    labels = Labels(
        label.changed(validated=bool(known)) for label, known in zip(labels, evidence, strict=True)
    )
    step = -(-judged.logits.size // MAX_LOGITS) or 1
    logits = judged.logits[::step]
    right, known, main = (x[::step] for x in (judged.right, judged.known, judged.main))
    if len(logits) < MIN_PHOTOS or not right[:, evidence].any():
        return labels, {"thresholds": {"threshold": DEFAULT_THRESHOLD}}
    curves = fit_curves(logits, right, known)
    log_odds = held_out_log_odds(logits, right, known)
    salience, meta = None, JsonObject()
    if classes is not None and judged.masses is not None:
        log_odds = classes(log_odds, judged.masses[::step])
    if captioned is not None:
        found = curves.log_odds(captioned.logits)
        if classes is not None and captioned.masses is not None:
            found = classes(found, captioned.masses)
        salience = fit_salience(found, captioned.weights, labels)
    needed = log_odds
    if salience is not None:
        salience = fit_main(salience, log_odds, main, evidence)
        needed = log_odds + allowances(salience.probabilities(salience.inputs(log_odds)))
        numbers = [round(number, 4) for number in salience.main]
        meta["salience"] = {"slope": round(salience.slope, 4), "main": numbers}
        labels = labels.with_numbers("salience", salience.weights, 3)
    table = precision_table(np.where(known & evidence, needed, -np.inf), right)
    meta["precisions"] = [list(row) for row in table]
    meta["thresholds"] = {"threshold": choose_threshold(table, precision, right)}
    slopes_offsets = zip(labels, curves.labels.tolist(), strict=True)
    return Labels(
        label.changed(calibration=(round(slope, 4), round(offset, 4)))
        for label, (slope, offset) in slopes_offsets
    ), meta


def open_curve(logits: Floats, right: Flags, known: Flags) -> list[float]:
    """The slope and offset of all labels together, for words that are no labels."""
    return [round(number, 4) for number in fit_curves(logits, right, known).pooled]
