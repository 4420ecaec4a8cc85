"""What every peer is: labels, and scores of photos against them.

B photos, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.model.preprocess import padded

Photo = NDArray[np.uint8]  # (H, W, 3), RGB
Scores = NDArray[np.float32]  # (B, L)

_BLANK: Photo = np.zeros((32, 32, 3), np.uint8)


class Peer(ABC):
    """A tagger of another architecture with the labels that it was opened with.

    `labels`: the columns of its scores. `unknown`: those that it was not trained on and cannot
    learn from their name; they score 0. `batch`: how many photos go through it at once; a
    photo's scores do not depend on the others. `threshold`: a score above which a label is
    likely enough to be given where the user says nothing. `fingerprint`: a hash of all that its
    scores depend on.
    """

    threshold = 0.5

    def __init__(
        self,
        labels: Sequence[str],
        *,
        fingerprint: str,
        batch: int = 1,
        unknown: Sequence[str] = (),
    ) -> None:
        self.labels = tuple(labels)
        self.unknown = tuple(unknown)
        self.fingerprint = fingerprint
        self.batch = batch

    def scores(self, photos: Sequence[Photo]) -> Scores:
        """A number in [0, 1] a photo and label (B, L); what it means is the peer's to say."""
        rows = np.empty((len(photos), len(self.labels)), np.float32)
        for start in range(0, len(photos), self.batch):
            some = photos[start : start + self.batch]
            scores = self._score(padded(some, self.batch, _BLANK))
            rows[start : start + len(some)] = scores[: len(some)]
        return rows

    @abstractmethod
    def _score(self, photos: Sequence[Photo]) -> Scores:
        """Scores of exactly `batch` photos."""


def folder_of(path: Path) -> Path:
    """The folder that a weights file lies in, or the folder itself."""
    return path if path.is_dir() else path.parent


def from_cosine(cosines: NDArray[np.float32]) -> Scores:
    """Cosines as numbers in [0, 1], in the same order."""
    shares: Scores = np.clip((1 + cosines) / 2, 0, 1).astype(np.float32)
    return shares
