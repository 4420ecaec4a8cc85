"""Shortlists: the labels that the tag decoder scores, where a global branch scores all of them.

The branch takes a fiftieth of the decoder's time. Only labels that the decoder could still lift
above their thresholds need its answer. N photos, L labels.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import HEADROOM, Bundle
from ramctl.inference.label_rows import TEXTS, nearest_means
from ramctl.inference.log_odds import log_odds_of
from ramctl.inference.thresholds import LabelSet

SIZE = 128  # of a bundle's labels
MIN_WORDS = 1000  # of a list that has a shortlist
LIST_SIZE = 512  # of a long list, and of each LABELS_AT_ONCE of a longer one
HEADROOM_QUANTILE = 0.99
THING_ALLOWANCE, WEIGHT = 1.0, 0.5  # log-odds, and how much the weights of salience count
Shortlist = tuple[NDArray[np.float32], int]  # offsets (L,) of the branch's logits; how many labels


def write_headroom(path: Path, scores: NDArray[np.float32], branch: NDArray[np.float32]) -> None:
    """Write how much the decoder adds to each label's logit at most, by probabilities (N, L).

    `scores` are the model's, `branch` those of its global branch alone.
    """
    added = log_odds_of(scores.astype(np.float64)) - log_odds_of(branch.astype(np.float64))
    np.save(path, np.quantile(added, HEADROOM_QUANTILE, axis=0).astype(np.float32))


def read_shortlist(bundle: Bundle, chosen: LabelSet) -> Shortlist | None:
    """The shortlist of a bundle's labels, or of a long list; None where all labels are scored.

    RunProblem for a file that does not fit the bundle's labels.
    """
    is_bundled = chosen.labels.tags == bundle.labels.tags
    # With salience, words of a list would have to be allowed for as labels are below.
    is_long = len(chosen.labels) >= MIN_WORDS and chosen.rows.ndim == 2
    is_long &= not chosen.uses_salience.any()
    if not bundle.has(HEADROOM) or len(chosen.labels) <= SIZE or not (is_bundled or is_long):
        return None
    offsets: NDArray[Any] = bundle.array(HEADROOM).astype(np.float64)
    if not is_bundled:
        texts = bundle.tensors([TEXTS])[TEXTS].astype(np.float32)
        offsets = nearest_means(chosen.rows[:, : texts.shape[1]], texts, offsets.astype(np.float32))
    offsets -= log_odds_of(chosen.thresholds)
    if not is_bundled:
        return offsets.astype(np.float32), LIST_SIZE
    if chosen.calibration is not None and chosen.calibration.salience is not None:
        # Likely main things need less, and how much less depends on the likeliest of them.
        weights = chosen.calibration.salience.weights
        offsets += np.where(np.isfinite(weights), THING_ALLOWANCE + WEIGHT * weights, 0.0)
    return offsets.astype(np.float32), SIZE
