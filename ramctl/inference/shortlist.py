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
from ramctl.inference.label_set import TEXTS, LabelSet, of_nearest

# Chosen on 1,200 photos that mini learnt from. Of 15,990 tags of 2,453 evaluation photos 6 differ
# from those that it gives when it is asked about all its labels.
SIZE = 128
# Of a list of so many words, and of each LABELS_AT_ONCE of a longer one. Chosen on flickr8k-dev
# with lists of 2,000 to 100,000 nouns: of 10,259 tags 3 differ, all with the longest.
LONG, SIZE_OF_WORDS = 1000, 512
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
    """The shortlist for a bundle's own labels, or long lists; None where all are asked about.

    RunProblem for a file that is not of the bundle's labels.
    """
    is_own = labels.labels.tags == bundle.labels.tags
    # Where thresholds bend, words of a list would have to be allowed for as labels are below.
    is_long = len(labels.labels) >= LONG and labels.rows.ndim == 2 and not labels.bends.any()
    if not bundle.has(HEADROOM) or len(labels.labels) <= SIZE or not (is_own or is_long):
        return None
    try:
        # Mapped: a header that lies of terabytes is told by the file's size.
        offsets = np.load(bundle.path / HEADROOM, mmap_mode="r").astype(np.float64)
    except (OSError, EOFError, ValueError) as error:
        raise RunProblem(f"{bundle.path / HEADROOM}: {error}") from error
    if offsets.shape != (len(bundle.labels),):
        raise RunProblem(f"{bundle.path / HEADROOM}: not of the bundle's labels")
    if not is_own:
        texts = bundle.tensors([TEXTS])[TEXTS].astype(np.float32)
        offsets = of_nearest(labels.rows[:, : texts.shape[1]], texts, offsets.astype(np.float32))
    offsets -= log_odds_of(labels.thresholds)
    if not is_own:
        return offsets.astype(np.float32), SIZE_OF_WORDS
    if labels.calibration is not None and labels.calibration.salience is not None:
        # Thresholds bend for what captions name, and how far depends on the likeliest of it.
        weights = labels.calibration.salience.weights
        offsets += np.where(np.isfinite(weights), ALLOWANCE + WEIGHT * weights, 0.0)
    return offsets.astype(np.float32), SIZE
