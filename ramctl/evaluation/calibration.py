"""Calibration by judged photos: what a model's scores are worth, told by what is right.

A label's own offset and slope are drawn towards those of all, the more the fewer photos speak for
them: thresholds chosen on few photos of a label say more about luck than about the label. N photos,
L labels.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, CurvePoint, log_odds_of, sigmoid
from ramctl.errors import RunProblem
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN, Counts, Floats, Scores, Truth

FOLDS = 5  # parts of the photos; what is right of a part is told by the others
# What an own offset costs, as much as so many photos that speak against it, and an own slope.
# Chosen on folds of judged_dev (precision at 6 tags a photo 0.945; offsets at 2: 0.929) and halves
# of flickr8k-dev (macro F1 of thresholds by 500 photos 0.326, by 150 0.319; offsets at 2: 0.327,
# 0.314; each label's own best threshold: 0.310, 0.286).
RIDGE = np.array([0.5, 10.0])
LOWEST_SLOPE = 0.1  # a higher score never speaks against a tag
PIVOT = -4.0  # log-odds at which an own slope changes nothing
NEWTON_STEPS = 30
LONGEST_STEP = 2.0  # in log-odds: Newton's method overshoots where a label is nearly certain
CURVE_POINTS = 200
MOST_SCORES = 5_000_000  # that a calibration rests on: more of them cost minutes and say the same


def sampled(scores: Scores, truth: Truth) -> tuple[Floats, Truth]:
    """Photos from all over, so many that they tell as much as all of these (N, L)."""
    some = slice(None, None, -(-scores.size // MOST_SCORES) or None)
    return scores[some].astype(np.float64), truth[some]


def calibrate(
    scores: Floats, truth: Truth, evidence: NDArray[np.bool_], most_share: float = 1.0
) -> Calibration:
    """The calibration that judged photos give: scores and truth are (N, L).

    `evidence` (L,) tells which labels may be given at all; `most_share` is the share of the photos
    above which a label is not given: it would say little. RunProblem when the photos are too few.
    """
    known, right = truth != UNKNOWN, truth == POSITIVE
    if len(scores) < FOLDS or not right[:, evidence].any():
        raise RunProblem(f"{len(scores)} judged photos are too few to choose thresholds by")
    log_odds = log_odds_of(scores)
    held_out = np.full(scores.shape, -np.inf)
    for part in range(FOLDS):
        theirs = np.arange(len(scores)) % FOLDS == part
        fitted = _fit(log_odds[~theirs], right[~theirs], known[~theirs])
        above = scores[theirs] > _floors(scores[~theirs], most_share)
        calibrated = fitted.log_odds(log_odds[theirs])
        held_out[theirs] = np.where(above & known[theirs] & evidence, calibrated, -np.inf)
    fitted = _fit(log_odds, right, known)
    return replace(
        fitted, offsets=np.where(evidence, fitted.offsets, np.nan),
        floors=_floors(scores, most_share), curve=_curve(held_out, right),
    )  # fmt: skip


def thresholds_for(scores: Scores, truth: Truth, precision: float | None) -> Floats:
    """The score (L,) above which each tag is given, so that this share of all given is right.

    Without a precision: for the best F1. Scores (N, L) that are no probabilities are read as
    log-odds, whatever their unit. RunProblem where no threshold reaches the precision, and when
    the photos are too few.
    """
    values, centre, unit = _as_probabilities(scores)
    calibration = calibrate(values, truth, np.ones(scores.shape[1], bool))
    found = calibration.thresholds(precision) if precision else calibration.f1_thresholds(values)[0]
    return found if unit is None else centre + unit * log_odds_of(found)


def expected_f1(scores: Scores, truth: Truth) -> float:
    """Macro F1 of thresholds for the best F1, on photos (N, L) that did not choose them."""
    values, _, _ = _as_probabilities(scores)
    log_odds, right, known = log_odds_of(values), truth == POSITIVE, truth != UNKNOWN
    given = np.zeros(scores.shape, bool)
    for part in range(FOLDS):
        theirs = np.arange(len(scores)) % FOLDS == part
        fitted = _fit(log_odds[~theirs], right[~theirs], known[~theirs])
        given[theirs] = values[theirs] > fitted.f1_thresholds(values[~theirs])[0]
    return float(Counts.of(given, truth).f1[right.any(axis=0)].mean())


def _as_probabilities(scores: Scores) -> tuple[Floats, float, float | None]:
    """Scores between 0 and 1, and the centre and unit that others were brought there by."""
    values: Floats = scores.astype(np.float64)
    if not len(scores) or (values.min() >= 0 and values.max() <= 1):
        return values, 0.0, None
    centre, unit = float(values.mean()), float(values.std()) or 1.0
    return sigmoid((values - centre) / unit), centre, unit


def _fit(log_odds: Floats, right: NDArray[np.bool_], known: NDArray[np.bool_]) -> Calibration:
    """The most likely logistic, by Newton's method; without floors and curve.

    Of each label's log-odds x: (shared + own slope) x + shared + own offset. Two numbers, offset
    and slope, are shared; the Hessian has two of each label, which meet no other label's.
    """
    x = log_odds - PIVOT
    shared, own = np.array([0.0, 1.0]), np.zeros((x.shape[1], 2))
    for _ in range(NEWTON_STEPS):
        offsets, slopes = (shared + own).T
        chance = sigmoid(slopes * x + offsets)
        error = np.where(known, right - chance, 0)
        spread = np.where(known, chance * (1 - chance), 0)
        gradient = np.stack([error.sum(0), (error * x).sum(0)], -1)  # (L, 2)
        own_gradient = gradient - RIDGE * own
        mixed = np.stack([spread.sum(0), *2 * [(spread * x).sum(0)], (spread * x**2).sum(0)], -1)
        mixed = mixed.reshape(-1, 2, 2)
        inverse = np.linalg.inv(mixed + np.diag(RIDGE))
        through = mixed @ inverse
        step = np.linalg.solve(
            (mixed - through @ mixed).sum(0) + 1e-6 * np.eye(2),
            (gradient - (through @ own_gradient[..., None])[..., 0]).sum(0),
        )
        own_step = (inverse @ (own_gradient - mixed @ step)[..., None])[..., 0]
        length = max(abs(step).max(), abs(own_step).max(), LONGEST_STEP) / LONGEST_STEP
        shared, own = shared + step / length, own + own_step / length
    offsets, slopes = (shared + own).T
    slopes = np.maximum(slopes, LOWEST_SLOPE)
    of_all = float(shared[1]), float(shared[0] - shared[1] * PIVOT)
    none = np.zeros(len(slopes))
    return Calibration(*of_all, slopes, offsets - slopes * PIVOT, none, none, ())


def _floors(scores: Floats, most_share: float) -> Floats:
    """The score (L,) that at most that share of the photos exceeds."""
    n_above = int(most_share * len(scores))
    if n_above >= len(scores):
        return np.zeros(scores.shape[1])
    floors: Floats = -np.sort(-scores, axis=0)[n_above]
    return floors


def _curve(calibrated: Floats, right: NDArray[np.bool_]) -> tuple[CurvePoint, ...]:
    """Precision by cut, for calibrated log-odds (N, L); -inf is never given."""
    can_be_given = np.isfinite(calibrated)
    order = np.argsort(-calibrated[can_be_given], kind="stable")
    values, hits = calibrated[can_be_given][order], np.cumsum(right[can_be_given][order])
    ends = np.flatnonzero(np.diff(values, append=-np.inf))
    if not len(ends):
        return ()
    # As many points for the first tag of a photo as for those after the tenth.
    wanted = np.geomspace(1, len(ends), CURVE_POINTS).astype(int) - 1
    return tuple(
        CurvePoint(
            float(sigmoid(values[end])), float(hits[end] / (end + 1)), (end + 1) / len(right)
        )
        for end in ends[np.unique(wanted)].tolist()
    )
