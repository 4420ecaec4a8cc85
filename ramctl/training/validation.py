"""Scores on photos that are not trained on: mAP, and the thresholds they suggest.

N photos, L labels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import (
    NEGATIVE,
    POSITIVE,
    UNKNOWN,
    average_precisions,
    rank,
)
from ramctl.evaluation.thresholds import max_f1_thresholds, steadied_thresholds
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.model.ram import RAM
from ramctl.training.annotations import Targets, read_annotation
from ramctl.training.augmentation import TrainingPhoto
from ramctl.training.batches import CachedFeatures
from ramctl.training.record_file import RecordFile

FEWEST_PHOTOS = 50  # below, thresholds would be guessed: they stay at the default
MOST_PHOTOS = 20_000  # scores of all photos are held in memory
PHOTOS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Records that are scored; `photo` reads them as tagging would."""

    records: RecordFile
    ids: NDArray[np.int64]
    targets: Targets
    photo: TrainingPhoto
    features: CachedFeatures | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities and truth (1, 0, -1: unknown), both (N, L)."""

    scores: NDArray[np.float32]
    truth: NDArray[np.int8]

    @property
    def occurring(self) -> NDArray[np.intp]:
        """Ids of the labels that occur."""
        return np.flatnonzero((self.truth == POSITIVE).any(0))

    def mean_average_precision(self) -> float:
        """Mean over the labels that occur; NaN when none does."""
        ones = np.ones((len(self.scores), 1), np.float32)
        scores = self.scores.astype(np.float64)
        values = [
            float(average_precisions(rank(scores[:, c], self.truth[:, c]), ones)[0])
            for c in self.occurring
        ]
        return float(np.mean(values)) if values else float("nan")

    def thresholds(self) -> tuple[NDArray[np.float64], float]:
        """A threshold for each label and the one for all, by F1.

        The one for all is chosen over the labels that occur: truth may list some classes only.
        Labels with fewer than 10 positives take it, the others are drawn towards it.
        """
        occurring = self.occurring
        if not len(occurring):
            return np.full(self.truth.shape[1], DEFAULT_THRESHOLD), DEFAULT_THRESHOLD
        some, shared = max_f1_thresholds(
            self.scores[:, occurring].astype(np.float64), self.truth[:, occurring]
        )
        own = np.full(self.truth.shape[1], shared)
        positives = (self.truth[:, occurring] == POSITIVE).sum(0)
        own[occurring] = steadied_thresholds(some, shared, positives)
        return own, float(shared)


@torch.inference_mode()
def score(
    model: RAM,
    photos: ValidationSet,
    device: torch.device,
    on_problem: Callable[[int, RecordProblem], None],
) -> Scored:
    """Scores of the validation photos by the model, which is in evaluation mode."""
    prepared = model.prepare_labels(model.labels())
    scores, truth = [], []
    for arrays, rows in _blocks(photos, on_problem):
        batch = torch.from_numpy(np.stack(arrays)).float().to(device)
        logits = model.tag_logits(model.encode(model.encoder(batch)), prepared)
        scores.append(logits.float().sigmoid().cpu().numpy())
        truth.append(np.stack(rows))
    n_labels = len(photos.targets)
    if not scores:
        return Scored(np.zeros((0, n_labels), np.float32), np.zeros((0, n_labels), np.int8))
    return Scored(np.concatenate(scores), np.concatenate(truth))


def _blocks(
    photos: ValidationSet, on_problem: Callable[[int, RecordProblem], None]
) -> Iterator[tuple[list[NDArray[Any]], list[NDArray[np.int8]]]]:
    arrays: list[NDArray[Any]] = []
    rows: list[NDArray[np.int8]] = []
    random = np.random.default_rng(0)
    for index in photos.ids[:MOST_PHOTOS].tolist():
        annotation = read_annotation(photos.records[index])
        try:
            if photos.features is not None:
                row = int(photos.features.rows[index, 0])
                if row < 0:
                    continue
                arrays.append(photos.features.cache[row, 0])
            else:
                arrays.append(photos.photo(annotation, random))
        except RecordProblem as problem:
            on_problem(index, problem)
            continue
        target = photos.targets.of(annotation)
        known = np.full(len(photos.targets), NEGATIVE, np.int8)
        if target.unknown is not None:
            known[target.unknown] = UNKNOWN
        known[target.present] = POSITIVE
        rows.append(known)
        if len(arrays) == PHOTOS_AT_ONCE:
            yield arrays, rows
            arrays, rows = [], []
    if arrays:
        yield arrays, rows
