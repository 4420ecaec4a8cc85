"""Which labels the tag decoder is asked about, where a model's global branch scores them as well.

The branch scores all labels in a fiftieth of the time that the decoder takes. Only labels that the
decoder could still lift above their thresholds need its answer. N photos, L labels.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import log_odds_of
from ramctl.checkpoints.bundle import HEADROOM, Bundle
from ramctl.errors import RunProblem
from ramctl.inference.label_set import LabelSet

# Chosen on 1,200 photos that mini learnt from. Of 15,990 tags of 2,453 evaluation photos 6 differ
# from those that it gives when it is asked about all its labels.
SIZE = 128
HIGHEST = 0.99
ALLOWANCE, WEIGHT = 1.0, 0.5  # log-odds of things, and how much the weights of salience count
Shortlist = tuple[NDArray[np.float32], int]  # offsets (L,) of the branch's logits; how many labels


def write_headroom(path: Path, scores: NDArray[np.float32], branch: NDArray[np.float32]) -> None:
    """Write the most that the decoder adds to each label's logit, by photos' probabilities (N, L).

    `scores` are the model's, `branch` those of its global branch alone.
    """
    added = log_odds_of(scores.astype(np.float64)) - log_odds_of(branch.astype(np.float64))
    np.save(path, np.quantile(added, HIGHEST, axis=0).astype(np.float32))


def read_shortlist(bundle: Bundle, labels: LabelSet) -> Shortlist | None:
    """The shortlist for a bundle's own labels; None where all of them are asked about.

    RunProblem for a file that is not of these labels.
    """
    if not bundle.has(HEADROOM) or len(labels.labels) <= SIZE:
        return None
    try:
        # Mapped: a header that lies of terabytes is told by the file's size.
        offsets = np.load(bundle.path / HEADROOM, mmap_mode="r").astype(np.float64)
    except (OSError, EOFError, ValueError) as error:
        raise RunProblem(f"{bundle.path / HEADROOM}: {error}") from error
    if offsets.shape != labels.thresholds.shape:
        raise RunProblem(f"{bundle.path / HEADROOM}: not of the bundle's labels")
    offsets -= log_odds_of(labels.thresholds)
    if labels.calibration is not None and labels.calibration.salience is not None:
        # Thresholds bend for what captions name, and how far depends on the likeliest of it.
        weights = labels.calibration.salience.weights
        offsets += np.where(np.isfinite(weights), ALLOWANCE + WEIGHT * weights, 0.0)
    return offsets.astype(np.float32), SIZE
