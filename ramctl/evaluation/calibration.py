"""Calibration by judged photos: what a model's scores are worth, told by what is right.

Offsets are drawn towards none, the more the fewer photos speak for them: thresholds chosen on few
photos of a label say more about luck than about the label. N photos, L labels.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, CurvePoint, log_odds_of, sigmoid
from ramctl.errors import RunProblem
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN, Floats, Scores, Truth

FOLDS = 5  # parts of the photos; what is right of a part is told by the others
# Chosen on folds of judged_dev: 0.3 and 3 do as well within 0.002 of precision.
RIDGE = 1.0  # what an offset costs: as much as one photo that speaks against it
NEWTON_STEPS = 30
LONGEST_STEP = 2.0  # in log-odds: Newton's method overshoots where a label is nearly certain
CURVE_POINTS = 200


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
        slope, intercept, offsets = _fit(log_odds[~theirs], right[~theirs], known[~theirs])
        above = scores[theirs] > _floors(scores[~theirs], most_share)
        calibrated = slope * log_odds[theirs] + intercept + offsets
        held_out[theirs] = np.where(above & known[theirs] & evidence, calibrated, -np.inf)
    slope, intercept, offsets = _fit(log_odds, right, known)
    return Calibration(
        slope, intercept, np.where(evidence, offsets, np.nan), _floors(scores, most_share),
        _curve(held_out, right),
    )  # fmt: skip


def thresholds_for(scores: Scores, truth: Truth, precision: float) -> Floats:
    """The score (L,) above which each tag is given, so that this share of all given is right.

    Scores (N, L) that are no probabilities are read as log-odds, whatever their unit. RunProblem
    where no threshold reaches the precision, and when the photos are too few.
    """
    evidence = np.ones(scores.shape[1], bool)
    values: Floats = scores.astype(np.float64)
    if not len(scores) or (values.min() >= 0 and values.max() <= 1):
        return calibrate(values, truth, evidence).thresholds(precision)
    centre, unit = float(values.mean()), float(values.std()) or 1.0
    found = calibrate(sigmoid((values - centre) / unit), truth, evidence).thresholds(precision)
    log_odds: Floats = centre + unit * log_odds_of(found)
    return log_odds


def _fit(
    log_odds: Floats, right: NDArray[np.bool_], known: NDArray[np.bool_]
) -> tuple[float, float, Floats]:
    """Slope, intercept and offsets (L,) of the most likely logistic, by Newton's method."""
    shared, offsets = np.array([1.0, 0.0]), np.zeros(log_odds.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = sigmoid(shared[0] * log_odds + shared[1] + offsets)
        error = np.where(known, right - chance, 0)
        spread = np.where(known, chance * (1 - chance), 0)
        gradient = np.array([(error * log_odds).sum(), error.sum()])
        own_gradient = error.sum(0) - RIDGE * offsets
        # The Hessian has 2 x 2 shared numbers, and a diagonal: an offset meets no other offset.
        mixed = np.stack([(spread * log_odds).sum(0), spread.sum(0)])  # (2, L)
        diagonal = spread.sum(0) + RIDGE
        corner = np.array([(spread * log_odds**2).sum(), mixed[0].sum(), mixed[1].sum()])
        hessian = corner[[[0, 1], [1, 2]]] + RIDGE * 1e-6 * np.eye(2)
        step = np.linalg.solve(
            hessian - (mixed / diagonal) @ mixed.T, gradient - mixed @ (own_gradient / diagonal)
        )
        own_step = (own_gradient - step @ mixed) / diagonal
        length = max(abs(step).max(), abs(own_step).max(), LONGEST_STEP) / LONGEST_STEP
        shared, offsets = shared + step / length, offsets + own_step / length
    return float(shared[0]), float(shared[1]), offsets


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
