"""Scores of held-out photos, their mAP and the thresholds that suit them.

N photos, L labels.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, Flags, Judged, calibrate, sample
from ramctl.device import Runtime
from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, mean_average_precision
from ramctl.inference.torch_engine import TorchEngine
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.model.config import Preset
from ramctl.model.ram import RAM
from ramctl.records.parallel import chunks
from ramctl.salience import Salience
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.features import CachedFeatures
from ramctl.training.data.record_file import RecordFile
from ramctl.training.data.targets import Annotation, Targets, read_annotation
from ramctl.training.distributed import World
from ramctl.training.salience import main_things

MOST_PHOTOS = 20_000  # scores of all photos are held in memory
PHOTOS_AT_ONCE = 32
Problem = tuple[int, str, str]  # a record's number, and the code and message of its reject
OnProblem = Callable[[int, RecordProblem], None]
Photo = TypeVar("Photo")


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
    ) -> "Scored | None":  # fmt: skip
        """Scores of the photos by the model, which is in evaluation mode.

        Each process scores some of them; the first has all, and is told all problems. None in the
        others.
        """
        engine, read, problems = TorchEngine(model, runtime), list[int](), list[Problem]()
        ids = self.ids[:MOST_PHOTOS][world.rank :: world.size].tolist()
        scored = score_blocks(
            self._photos(ids, read, problems),
            lambda arrays: scores_of(engine, np.stack(arrays).astype(np.float32)),
            PHOTOS_AT_ONCE,
            len(self.targets),
        )
        parts = world.collected((read, scored, problems))
        if parts is None:
            return None
        for index, code, message in (problem for part in parts for problem in part[2]):
            on_problem(index, RecordProblem(message, code=code))
        rows = np.concatenate([part[0] for part in parts]).astype(np.int64)
        scores = np.concatenate([part[1].scores for part in parts])
        truth = np.concatenate([part[1].truth for part in parts])
        order = np.argsort(rows, kind="stable")
        return Scored(scores[order], truth[order], rows[order])

    def judged(self, scored: "Scored") -> Judged:
        """The scored photos with all that their records say."""
        some = sample(scored.scores)
        notes = [read_annotation(self.records[index]) for index in scored.rows[some].tolist()]
        main, truth = np.zeros((len(notes), len(self.targets)), bool), scored.truth[some]
        for row, note in zip(main, notes, strict=True):
            row[main_things(note, self.targets)] = True
        groups = np.array([note.group for note in notes], object)
        return Judged(
            scored.scores[some].astype(np.float64), truth == POSITIVE, truth != UNKNOWN, main,
            None if None in groups else groups.astype(str),
        )  # fmt: skip

    def _photos(
        self, ids: list[int], read: list[int], problems: list[Problem]
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.int8]]]:
        """Photos with their truth; `read` and `problems` say what became of each of the `ids`."""
        random = np.random.default_rng(0)
        for index in ids:
            annotation = read_annotation(self.records[index])
            photo: NDArray[Any]
            try:
                if self.features is None:
                    photo = self.photo(annotation, random)
                elif self.features.rows[index, 0] >= 0:
                    photo = self.features.of(index)
                else:
                    continue
            except RecordProblem as problem:
                problems.append((index, problem.code, problem.message))
                continue
            read.append(index)
            yield photo, truth_of(annotation, self.targets)


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities and truth (1, 0, -1: unknown), both (N, L), of the records `rows` (N,)."""

    scores: NDArray[np.float32]
    truth: NDArray[np.int8]
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

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


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """The thresholds of the labels (L,), the one for all, and what they rest on."""

    own: NDArray[np.float64]
    shared: float  # of a label that nothing else is known of
    calibration: Calibration | None = None  # what scores are worth, where photos can tell
    is_calibrated: bool = False  # the thresholds are the calibration's, for a precision
    why_not: str | None = None  # why they are not those that the preset asks for

    @classmethod
    def of(cls, calibration: Calibration, precision: float) -> "ThresholdChoice":
        """Those of a precision; RunProblem when none reaches it."""
        shared = calibration.shared_threshold(precision)
        own = calibration.thresholds(precision, salient=True)
        return cls(own, shared, calibration, is_calibrated=True)


def choose_thresholds(
    judged: Judged | None, evidence: Flags, preset: Preset, salience: Salience | None = None
) -> ThresholdChoice:
    """For the preset's precision, else for the best F1; 0.5 without photos enough."""
    default = ThresholdChoice(np.full(len(evidence), DEFAULT_THRESHOLD), DEFAULT_THRESHOLD)
    if judged is None:
        return default
    try:
        calibration = calibrate(judged, evidence, preset.most_share, salience)
    except RunProblem as problem:
        return replace(default, why_not=f"{problem}: they are {DEFAULT_THRESHOLD}")
    why_not = None
    if preset.precision:
        try:
            return ThresholdChoice.of(calibration, preset.precision)
        except RunProblem as problem:
            why_not = f"{problem}: they are those of the best F1"
    return ThresholdChoice(*calibration.f1_thresholds(judged.scores), calibration, why_not=why_not)


def score_blocks(
    photos: Iterable[tuple[Photo, NDArray[np.int8]]],
    scores: Callable[[list[Photo]], NDArray[np.float32]],
    size: int,
    n_labels: int,
) -> Scored:
    """Scores of photos that come with their truth (L), computed for `size` photos at a time."""
    blocks, truth = [np.zeros((0, n_labels), np.float32)], [np.zeros((0, n_labels), np.int8)]
    for block in chunks(photos, size):
        blocks.append(scores([photo for photo, _ in block]))
        truth.append(np.stack([row for _, row in block]))
    return Scored(np.concatenate(blocks), np.concatenate(truth))


def truth_of(annotation: Annotation, targets: Targets) -> NDArray[np.int8]:
    """What is known of each label in a photo: 1, 0, or -1 where nothing is (L)."""
    target = targets.of(annotation)
    known = np.full(len(targets), NEGATIVE, np.int8)
    known[target.unknown] = UNKNOWN
    known[target.present] = POSITIVE
    return known
