"""Scores of held-out photos, their mAP and the thresholds that suit them.

N photos, L labels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.device import Runtime
from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, mean_average_precision
from ramctl.inference.fitting import Flags, Judged, sample
from ramctl.inference.runner import Runner
from ramctl.inference.torch_engine import TorchEngine
from ramctl.model.ram import RAM
from ramctl.records.parallel import chunks
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.features import CachedFeatures
from ramctl.training.data.record_file import RecordFile
from ramctl.training.data.targets import Annotation, Targets, main_things, read_annotation
from ramctl.training.distributed import World

MAX_PHOTOS = 20_000  # scores of all photos are held in memory
PHOTOS_AT_ONCE = 32
OnProblem = Callable[[int, RecordProblem], None]
PhotoArray = NDArray[Any]  # a photo's pixels, or its features
PhotoScores = tuple[NDArray[np.float32], NDArray[np.int8]]  # (L,) and their truth (L,)


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Records to score; `photo` prepares them as tagging would."""

    records: RecordFile
    ids: NDArray[np.int64]
    targets: Targets
    photo: TrainingPhoto
    features: CachedFeatures | None

    def __len__(self) -> int:
        return len(self.ids)

    def score(
        self, model: RAM, runtime: Runtime, world: World, on_problem: OnProblem,
        scores_of: Callable[[TorchEngine, NDArray[np.float32]], NDArray[np.float32]]
        = TorchEngine.scores,
    ) -> "Scored":  # fmt: skip
        """Scores of the photos by the model, which is in evaluation mode.

        Each process scores some of them; the first gets all scores and problems, the others none.
        """
        engine = TorchEngine(model, runtime)

        def work(photos: list[tuple[PhotoArray, NDArray[np.int8]]]) -> Iterator[PhotoScores]:
            arrays, truth = zip(*photos, strict=True)
            scores = scores_of(engine, np.stack(arrays).astype(np.float32))
            return zip(scores, truth, strict=True)

        ids = self.ids[:MAX_PHOTOS][world.rank :: world.size].tolist()
        if self.features is not None:  # others were rejected when they were made
            ids = [index for index in ids if self.features.rows[index, 0] >= 0]
        outcomes = chain.from_iterable(Runner().run(chunks(ids, PHOTOS_AT_ONCE), self._photo, work))
        scored: dict[int, PhotoScores] = {}
        parts = world.collected(list(zip(ids, outcomes, strict=True)))
        for index, outcome in chain.from_iterable(parts):
            if isinstance(outcome, RecordProblem):
                on_problem(index, outcome)
            else:
                scored[index] = outcome
        rows = sorted(scored)
        return Scored.of([scored[row] for row in rows], self.targets, rows)

    def judged(self, scored: "Scored") -> Judged:
        """The scored photos with what their records know of them."""
        rows = sample(scored.scores)
        notes = [read_annotation(self.records[index]) for index in scored.rows[rows].tolist()]
        return judged_photos(notes, self.targets, scored.scores[rows], scored.truth[rows])

    def _photo(self, index: int) -> tuple[PhotoArray, NDArray[np.int8]]:
        """A record's photo or its features, and the truth."""
        annotation = read_annotation(self.records[index])
        photo: PhotoArray
        if self.features is None:
            photo = self.photo(annotation, np.random.default_rng(0))
        else:
            photo = self.features.of(index)
        return photo, truth_of(annotation, self.targets)


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities and truth (1, 0, -1: unknown), both (N, L), of the records `rows` (N,)."""

    scores: NDArray[np.float32]
    truth: NDArray[np.int8]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(
        cls, photos: Sequence[PhotoScores], targets: Targets, rows: Sequence[int] = ()
    ) -> "Scored":
        """The photos' scores and truth together."""
        scores, truth = zip(*photos, strict=True) if photos else ((), ())
        shape = len(photos), len(targets)
        return cls(
            np.array(scores, np.float32).reshape(shape), np.array(truth, np.int8).reshape(shape),
            np.array(rows, np.int64),
        )  # fmt: skip

    @property
    def occurring(self) -> NDArray[np.intp]:
        """Ids of the labels that occur."""
        return np.flatnonzero((self.truth == POSITIVE).any(0))

    def mean_average_precision(self, among: Flags | None = None) -> float:
        """Mean over the labels that occur, of those `among` (L,); NaN when none does."""
        ids = self.occurring
        if among is not None:
            ids = ids[among[ids]]
        return mean_average_precision(self.scores[:, ids].astype(np.float64), self.truth[:, ids])


def judged_photos(
    notes: Sequence[Annotation], targets: Targets, scores: NDArray[Any], truth: NDArray[np.int8]
) -> Judged:
    """Annotated photos with their scores and truth (N, L), as thresholds are chosen by them."""
    main = np.zeros(truth.shape, bool)
    for row, note in zip(main, notes, strict=True):
        row[main_things(note, targets)] = True
    groups = np.array([note.group for note in notes], object)
    return Judged(
        scores.astype(np.float64), truth == POSITIVE, truth != UNKNOWN, main,
        None if None in groups else groups.astype(str),
    )  # fmt: skip


def truth_of(annotation: Annotation, targets: Targets) -> NDArray[np.int8]:
    """The truth of each label in a photo (L): 1, 0, or -1 where it is unknown."""
    target = targets.of(annotation)
    known = np.full(len(targets), NEGATIVE, np.int8)
    known[target.unknown] = UNKNOWN
    known[target.present] = POSITIVE
    return known
