"""Fitting: calibrations, salience and thresholds from photos whose tags are known.

N photos, L labels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.inference.calibration import Calibration, CurvePoint
from ramctl.inference.log_odds import Floats, log_odds_of, sigmoid
from ramctl.inference.salience import MAIN, Rival, Salience, allowances
from ramctl.labels import DEFAULT_THRESHOLD, Labels
from ramctl.model.preset import Preset

Flags = NDArray[np.bool_]
FOLDS = 5  # parts of the photos, each calibrated by the others
# The penalties on a label's offset and slope.
RIDGE = np.array([4.0, 30.0])
CORRECTION_RIDGE = 1.0  # the penalty on a person's correction of an offset: expected deviation 1
MAIN_RIDGE = 0.1
MIN_MAIN = 50  # known main things; with fewer, `Salience.main` is not fitted
SALIENCE_RIDGE = (
    1.0  # the penalty on a weight of salience; from 0.05 to 2 it makes little difference
)
SALIENCE_ROUNDS = 60  # of L-BFGS
MIN_RIVALS = 30  # photos of one of two rivals alone
MAX_TAKEN_FOR_OTHER = 0.1  # of the photos of one rival alone, those where the other exceeds it
MIN_SLOPE = 0.1  # a higher score never speaks against a tag
PIVOT = -4.0  # log-odds at which a label's slope changes nothing
NEWTON_STEPS = 30
MIN_STEP = 1e-6  # smaller ones are not halved
CURVE_POINTS = 200
MIN_TAGS = 30  # that a precision must rest on
MAX_SCORES = 5_000_000  # in a calibration: more cost minutes and give the same
THINGS = ("object", "scene")


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


class Judged(NamedTuple):
    """The scores (N, L) of photos, as probabilities, and which of their labels are right."""

    scores: Floats
    right: Flags  # (N, L)
    known: Flags  # (N, L) whether `right` is known
    main: Flags | None = None  # (N, L) the main things, where they are known
    groups: NDArray[Any] | None = None  # (N,) photos of one group are like each other


def sample(scores: NDArray[Any]) -> slice:
    """An even sample of photos with these scores (N, L), of MAX_SCORES at most."""
    return slice(None, None, -(-scores.size // MAX_SCORES) or None)


def calibrate(
    judged: Judged, evidence: Flags, max_fraction: float = 1.0, salience: Salience | None = None
) -> Calibration:
    """The calibration of judged photos; precision is measured on groups that are held out.

    Labels without `evidence` (L,) are never given, others on at most `max_fraction` of the photos.
    `salience` adds a second curve, with lower thresholds for likely main things. RunProblem when
    the photos are too few.
    """
    scores, right, known, main, groups = judged
    if len(scores) < FOLDS or not right[:, evidence].any():
        raise RunProblem(f"{len(scores)} judged photos are too few to choose thresholds by")
    score_log_odds = log_odds_of(scores)
    held_out = np.full(scores.shape, -np.inf)
    for part, others in _folds(score_log_odds, right, known, groups):
        above = scores[part] > _min_scores(scores[~part], max_fraction)
        is_given = above & known[part] & evidence
        held_out[part] = np.where(is_given, others.log_odds(score_log_odds[part]), -np.inf)
    fitted = replace(
        _fit(score_log_odds, right, known),
        min_scores=_min_scores(scores, max_fraction),
        base=float(right[:, evidence].mean()),
        salience=salience,
    )
    fitted = replace(fitted, offsets=np.where(evidence, fitted.offsets, np.nan))
    return with_curves(fitted, score_log_odds, held_out, right, main)


def with_curves(
    calibration: Calibration, score_log_odds: Floats, held_out: Floats,
    right: Flags | Floats, main: Flags | None,
) -> Calibration:  # fmt: skip
    """The calibration with the precision that its thresholds have on photos (N, L).

    `held_out` are the log-odds of being right by a calibration that did not see them, -inf for
    labels that cannot be given; `right` may be probabilities.
    """
    curve, salience = _curve(held_out, right), calibration.salience
    if salience is None:
        return replace(calibration, curve=curve)
    if main is not None:
        salience = fit_main(salience, score_log_odds, held_out, main)
    probabilities = salience.probabilities(salience.inputs(score_log_odds, held_out))
    needed = np.where(salience.unclear(score_log_odds), -np.inf, held_out)
    salient_curve = _curve(needed + allowances(probabilities), right)
    return replace(calibration, curve=curve, salience=salience, salient_curve=salient_curve)


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """The thresholds of labels, and what they rest on."""

    thresholds: Floats  # (L,)
    shared: float  # of labels of which nothing else is known
    calibration: Calibration | None = None
    is_calibrated: bool = False  # the thresholds are the calibration's, for a precision
    note: str = ""  # why they are not those that the preset asks for, and what they give

    @classmethod
    def for_precision(cls, calibration: Calibration, precision: float) -> "ThresholdChoice":
        """The thresholds that reach a precision; RunProblem when none does."""
        shared = calibration.shared_threshold(precision)
        thresholds = calibration.thresholds(precision, salient=True)
        return cls(thresholds, shared, calibration, is_calibrated=True)


def choose_thresholds(
    judged: Judged | None, evidence: Flags, preset: Preset, salience: Salience | None = None
) -> ThresholdChoice:
    """Thresholds for the preset's precision, else for the best F1; 0.5 without photos enough."""
    default = ThresholdChoice(np.full(len(evidence), DEFAULT_THRESHOLD), DEFAULT_THRESHOLD)
    if judged is None:
        return default
    try:
        calibration = calibrate(judged, evidence, preset.most_share, salience)
    except RunProblem as problem:
        return replace(default, note=f"{problem}: they are {DEFAULT_THRESHOLD}")
    note = ""
    if preset.precision:
        try:
            return ThresholdChoice.for_precision(calibration, preset.precision)
        except RunProblem as problem:
            note = f"{problem}: they are those of the best F1; "
    thresholds, shared = calibration.f1_thresholds(judged.scores)
    given = judged.known & (judged.scores > thresholds)
    share = judged.right[given].sum() / max(given.sum(), 1)
    note += f"{given.sum() / len(given):.1f} tags a photo, {share:.0%} of them in the validation "
    note += "records; tag --precision gives surer ones"
    return ThresholdChoice(thresholds, shared, calibration, note=note)


def correct_offsets(
    calibration: Calibration, labels: NDArray[np.int64], scores: Floats, right: Flags
) -> Floats:
    """Corrections of a calibration's offsets (L,) after persons kept or refused tags.

    Each tag has its label, its score and whether it is right (n,). The corrections are
    the most likely ones, given a normal distribution of deviation 1.
    """
    has_evidence = ~np.isnan(calibration.offsets[labels])
    labels, right = labels[has_evidence], right[has_evidence]
    log_odds = calibration.log_odds(log_odds_of(scores[has_evidence]), labels)

    def by_label(values: Floats) -> Floats:
        return np.asarray(np.bincount(labels, values, len(calibration.offsets)), np.float64)

    def cost_at(added: Floats) -> Floats:
        logits = log_odds + added[labels]
        loss = by_label(np.logaddexp(0, logits) - right * logits)
        return loss + CORRECTION_RIDGE * added**2 / 2

    def step_at(added: Floats) -> Floats:
        probability = sigmoid(log_odds + added[labels])
        gradient = by_label(right - probability) - CORRECTION_RIDGE * added
        return gradient / (by_label(probability * (1 - probability)) + CORRECTION_RIDGE)

    return newton(np.zeros(len(calibration.offsets)), step_at, cost_at)


def fit_main(
    salience: Salience, score_log_odds: Floats, log_odds: Floats, is_main: Flags
) -> Salience:
    """The salience with `main` as photos (N, L) with known main things give it.

    Without MIN_MAIN main things it stays as it is.
    """
    counts = np.isfinite(log_odds) & np.isfinite(salience.weights)
    is_main_thing = is_main[counts]
    if is_main_thing.sum() < MIN_MAIN:
        return salience
    inputs = salience.inputs(score_log_odds, log_odds)[counts]

    def cost_at(main: Floats) -> float:
        logits = inputs @ main
        loss = np.logaddexp(0, logits) - is_main_thing * logits
        return float(loss.sum() + MAIN_RIDGE * (main**2).sum() / 2)

    def step_at(main: Floats) -> Floats:
        probability = sigmoid(inputs @ main)
        gradient = inputs.T @ (is_main_thing - probability) - MAIN_RIDGE * main
        hessian = (inputs * (probability * (1 - probability))[:, None]).T @ inputs
        return np.asarray(np.linalg.solve(hessian + MAIN_RIDGE * np.eye(3), gradient), np.float64)

    certain, fraction, constant = newton(np.array(MAIN), step_at, cost_at).tolist()
    return replace(salience, main=(certain, fraction, constant))


def fit_salience(
    scores: NDArray[np.float32],
    mentions: NDArray[np.float32],
    labels: Labels,
    general: Sequence[str] = (),
    is_dense: Flags | None = None,
) -> Salience | None:
    """The salience that captioned photos' scores and mentions (N, L) give; None without mentions.

    It is the most likely one, with mentions as fractions of a softmax over all things. Of kinds of
    the `general` labels, two of one set (`one_of`) become rivals; `is_dense` (N,) are photos with
    captions that leave out little.
    """
    import torch

    is_captioned = mentions.any(1)
    things = np.flatnonzero([label.kind in THINGS for label in labels])
    if not is_captioned.any():
        return None
    thing_scores = scores[is_captioned][:, things].astype(np.float64)
    log_odds = torch.from_numpy(log_odds_of(thing_scores)).float()
    fractions = torch.from_numpy(mentions[is_captioned][:, things])
    fractions /= fractions.sum(1, keepdim=True)
    slope = torch.ones((), requires_grad=True)
    weights = torch.zeros(len(things), requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [slope, weights], max_iter=SALIENCE_ROUNDS, line_search_fn="strong_wolfe"
    )

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        likelihood = (fractions * (slope * log_odds + weights).log_softmax(1)).sum()
        loss = (SALIENCE_RIDGE * weights.square().sum() - likelihood) / len(fractions)
        loss.backward()
        return loss.detach()

    optimiser.step(cost)
    all_weights = np.full(len(labels), -np.inf)
    all_weights[things] = weights.detach().numpy()
    score_log_odds, is_mentioned = log_odds_of(scores.astype(np.float64)), mentions > 0
    careful = dict(_rivals(score_log_odds, is_mentioned, labels, general))
    if is_dense is not None:
        careful |= _rivals(score_log_odds[is_dense], is_mentioned[is_dense], labels, general)
    return Salience(float(slope.detach()), all_weights, careful=careful)


def _rivals(
    score_log_odds: Floats, is_mentioned: Flags, labels: Labels, general: Sequence[str]
) -> Iterator[tuple[int, Rival]]:
    """The rival of each careful label; each of two is as seldom given in place of the other."""
    for tag in filter(labels.ids, general):
        sets: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            for name in label.one_of if tag in label.parents else ():
                sets.setdefault(name, []).append(index)
        pairs = (pair for pair in sets.values() if len(pair) == 2)
        for index, other in itertools.chain.from_iterable(map(itertools.permutations, pairs)):
            is_other = is_mentioned[:, other] & ~is_mentioned[:, index]
            if is_other.sum() < MIN_RIVALS:
                continue
            leads = (score_log_odds[:, index] - score_log_odds[:, other])[is_other]
            margin = float(np.quantile(leads, 1 - MAX_TAKEN_FOR_OTHER))
            yield index, Rival(labels.ids(tag)[0], other, margin)


def folds_of(n_photos: int, groups: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """The fold of each photo (N,); all photos of a group are in one, where groups allow."""
    usual = np.arange(n_photos) % FOLDS
    if groups is None:
        return usual
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    folds, filled = np.zeros(len(sizes), np.int64), np.zeros(FOLDS, np.int64)
    for index in np.argsort(-sizes, kind="stable"):
        folds[index] = filled.argmin()
        filled[folds[index]] += sizes[index]
    return folds[group] if filled.all() else usual


def _folds(
    score_log_odds: Floats, right: Flags, known: Flags, groups: NDArray[Any] | None = None
) -> Iterator[tuple[Flags, Calibration]]:
    """Each part of the photos (N,), and the calibration of the others."""
    folds = folds_of(len(score_log_odds), groups)
    for number in range(FOLDS):
        part = folds == number
        yield part, _fit(score_log_odds[~part], right[~part], known[~part])


def _fit(score_log_odds: Floats, right: Flags, known: Flags) -> Calibration:
    """The most likely logistic curves, without the lowest scores and the curve of precision.

    A label's logit is (shared slope + its slope) x + shared offset + its offset. Parameters
    (1 + L, 2) are offset and slope, first the shared ones. A label's meet no other label's in the
    Hessian, so that each block of two is inverted by itself.
    """
    x = score_log_odds - PIVOT

    def curves(parameters: Floats) -> tuple[Floats, Floats]:
        offsets, slopes = (parameters[0] + parameters[1:]).T
        return offsets, slopes

    def cost_at(parameters: Floats) -> float:
        offsets, slopes = curves(parameters)
        logits = slopes * x + offsets
        loss = np.where(known, np.logaddexp(0, logits) - right * logits, 0)
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
    none = np.zeros(len(slopes))
    intercept = shared_offset - shared_slope * PIVOT
    return Calibration(shared_slope, intercept, slopes, offsets - slopes * PIVOT, none, none, ())


def _min_scores(scores: Floats, max_fraction: float) -> Floats:
    """The score (L,) that at most that fraction of the photos exceeds."""
    n_above = int(max_fraction * len(scores))
    if n_above >= len(scores):
        return np.zeros(scores.shape[1])
    return np.asarray(-np.sort(-scores, axis=0)[n_above])


def _curve(log_odds: Floats, right: Flags | Floats) -> tuple[CurvePoint, ...]:
    """Precision by threshold, for log-odds of being right (N, L); -inf is never given."""
    can_be_given = np.isfinite(log_odds)
    order = np.argsort(-log_odds[can_be_given], kind="stable")
    values, hits = log_odds[can_be_given][order], np.cumsum(right[can_be_given][order])
    ends = np.flatnonzero(np.diff(values, append=-np.inf))
    if not len(ends):
        return ()
    # On a logarithmic scale, so that the most probable tags have as many points as the others.
    ends = ends[np.unique(np.geomspace(1, len(ends), CURVE_POINTS).astype(int) - 1)]
    columns = sigmoid(values[ends]), hits[ends] / (ends + 1), (ends + 1) / len(right)
    return tuple(map(CurvePoint, *(column.tolist() for column in columns)))
