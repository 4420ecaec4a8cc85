"""Targets of the tag loss: from records, and from taggers as teachers (`--distill scores:FILE`).

N records, L labels, K labels that a teacher knows, n pairs of a captioned photo and a label that a
teacher scored on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes, read_map
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.model.preset import TrainingConfig
from ramctl.tagger_scores import PREFIX, TaggerScores, scores_file
from ramctl.training.data.targets import Annotation, Ids, Targets

Floats = NDArray[np.float32]

FORM = "scores:FILE[,weight=W][,map=FILE]"
ROUNDS = 50  # of expectation maximisation
PRIOR_PHOTOS = 5.0  # that the overall rate counts for, beside those of each label
MIN_DIVISOR = 1e-4
NOTICED = 0.1  # a teacher with a score above it has noticed the label


@dataclass(frozen=True, slots=True)
class ScoresTeacher:
    """A tagger's output as a teacher: records with `image` and `scores`.

    `weight` is the weight of its targets beside a caption's; `map` has lines
    `label<TAB>name|name` for labels that it knows by other names.
    """

    path: Path
    weight: float = 1.0
    map: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "ScoresTeacher":
        """The teacher of a value of `--distill`; UsageProblem for another form."""
        form = f"{FORM} with a weight above 0"
        path, options = scores_file("--distill", text.removeprefix(PREFIX), form, "weight", "map")
        try:
            weight = float(options.get("weight", 1))
        except ValueError:
            weight = -1.0
        if not weight > 0:
            raise UsageProblem(f"--distill {text}: expected {form}")
        return cls(path, weight, Path(options["map"]) if "map" in options else None)


def scores_teachers(distill: Sequence[str]) -> list[ScoresTeacher]:
    """The teachers of `--distill` that are files of scores."""
    return [ScoresTeacher.parse(name) for name in distill if name.startswith(PREFIX)]


class SoftTargets:
    """A teacher's scores as targets of the labels that it knows, `known` (K,).

    A label without a score has 0; one that it knows by several names has the greatest score.
    `rows` (N,) are the records' rows in its file, -1 for none.
    """

    def __init__(
        self, teacher: ScoresTeacher, scores: TaggerScores, labels: LabelSystem, rows: Ids
    ) -> None:
        self.weight, self._scores, self._rows = teacher.weight, scores.scores, rows
        classes = Classes(labels, None, read_map(teacher.map))
        pairs = [(n, c) for name, n in scores.names.items() for c in classes.matching_tag(name)]
        if not pairs:
            raise RunProblem(f"{teacher.path}: names none of the labels")
        name_ids, label_ids = np.array(pairs).T
        self.known, columns = np.unique(label_ids, return_inverse=True)
        # The columns of the labels that each name stands for.
        self._columns = [columns[name_ids == n] for n in range(len(scores.names))]

    def of(self, index: int) -> Floats | None:
        """The targets (K,) of a record's photo; None where the teacher has not scored it."""
        row = int(self._rows[index])
        if row < 0:
            return None
        targets = np.zeros(len(self.known), np.float32)
        for name, score in zip(*self._scores[row], strict=True):
            np.maximum.at(targets, self._columns[name], score)
        return targets


def soft_targets(
    teachers: Sequence[SoftTargets], index: int, n_labels: int
) -> tuple[Floats, Floats]:
    """The teachers' targets of a record's photo (L,), and their weights: 0 where none knows it.

    The target of a label that several know is the mean by weight.
    """
    sums, weights = np.zeros(n_labels, np.float32), np.zeros(n_labels, np.float32)
    for teacher in teachers:
        if (targets := teacher.of(index)) is not None:
            sums[teacher.known] += teacher.weight * targets
            weights[teacher.known] += teacher.weight
    return np.divide(sums, weights, out=sums, where=weights > 0), weights


@dataclass(frozen=True, slots=True)
class MentionRates:
    """How often labels that are shown are mentioned, so that a missing mention can be weighed."""

    by_captions: Floats  # (2, L): where people wrote one caption, and where several
    by_teachers: Floats  # (L,) of labels that captions name

    @classmethod
    def neutral(cls, n_labels: int) -> "MentionRates":
        """Rates that change nothing: for training without teachers."""
        return cls(np.zeros((2, n_labels), np.float32), np.ones(n_labels, np.float32))

    @classmethod
    def learn(
        cls,
        annotations: Iterable[tuple[int, Annotation]],
        targets: Targets,
        teachers: Sequence[SoftTargets],
    ) -> "MentionRates":
        """The rates of numbered records: those with captions whose photo a teacher scored."""
        n_labels = len(targets)
        scores, cells, is_named = [], [], []
        n_named, n_noticed = np.zeros(n_labels), np.zeros(n_labels)
        for index, annotation in annotations:
            soft, known = soft_targets(teachers, index, n_labels)
            if not known.any() or not annotation.n_human_captions:
                continue
            target = targets.of(annotation)
            present = np.zeros(n_labels, bool)
            present[target.present] = True
            present &= known > 0
            soft[target.implied] = 0  # captions may or may not name these
            ids = np.flatnonzero(soft)
            n_named += present
            n_noticed += present & (soft > NOTICED)
            scores.append(soft[ids])
            cells.append(ids + n_labels * (annotation.n_human_captions > 1))
            is_named.append(present[ids])
        if not scores:
            return cls.neutral(n_labels)
        rates = fit_mention_rates(
            np.concatenate(scores), np.concatenate(cells), np.concatenate(is_named), 2 * n_labels
        )
        overall = n_noticed.sum() / max(n_named.sum(), 1)
        noticed = (n_noticed + PRIOR_PHOTOS * overall) / (n_named + PRIOR_PHOTOS)
        return cls(rates.reshape(2, n_labels), noticed.astype(np.float32))


class TagTargets:
    """The targets of the tag loss and their weights, from records and teachers.

    `rates` are those learnt from the `teachers`.
    """

    def __init__(
        self,
        labels: Targets,
        config: TrainingConfig,
        teachers: Sequence[SoftTargets] = (),
        rates: MentionRates | None = None,
    ) -> None:
        self.labels, self.teachers = labels, teachers
        self.absent_weight = config.absent_weight
        self.single_mention_weight = config.single_mention_weight
        self.rates = rates or MentionRates.neutral(len(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, index: int, annotation: Annotation) -> tuple[Floats, Floats]:
        """The targets (L,) of a record by its number, and their weights (L,).

        A target comes from the record, else from teachers, else it is absence at a low weight.
        """
        target = self.labels.of(annotation)
        targets = np.zeros(len(self), np.float32)
        weights = np.full_like(targets, self.absent_weight)
        if self.absent_weight != 1:
            # A caption that names a dog does not name an animal: that is no negative.
            weights[target.implied] = 0
        weights[target.unknown] = 0
        if self.teachers:
            shown, taught = soft_targets(self.teachers, index, len(self))
            # A low score is weak evidence from a teacher that overlooks most hats.
            overlooked = np.where(shown > NOTICED, 0, 1 - self.rates.by_teachers)
            trust = taught - overlooked * np.maximum(taught - self.absent_weight, 0)
            if annotation.n_human_captions:
                rates = self.rates.by_captions[int(annotation.n_human_captions > 1)].copy()
                rates[target.implied] = 0  # a caption that names the dog implies the animal
                shown = if_unmentioned(shown, rates)
            targets = shown
            np.copyto(weights, trust, where=taught > 0)
        targets[target.denied], weights[target.denied] = 0, 1
        targets[target.present] = weights[target.present] = 1
        weights[target.doubtful] = self.single_mention_weight
        return targets, weights


def fit_mention_rates(
    scores: Floats, cells: Ids, is_named: NDArray[np.bool_], n_cells: int,
    usual: Floats | None = None,
) -> Floats:  # fmt: skip
    """P(named | shown) of each cell (n_cells), from n scores, taken as P(shown), and their cells.

    Maximum likelihood of P(named) = P(named | shown) P(shown) by expectation maximisation, with
    cells of few pairs drawn to the `usual` rates (n_cells), or to the overall rate.
    """
    n_named = np.bincount(cells, is_named, n_cells)
    unnamed_cells, unnamed_scores = cells[~is_named], scores[~is_named]
    rates = np.full(n_cells, 0.5, np.float32)
    for _ in range(ROUNDS):
        unnamed = np.bincount(
            unnamed_cells, if_unmentioned(unnamed_scores, rates[unnamed_cells]), n_cells
        )
        overall = n_named.sum() / max(n_named.sum() + unnamed.sum(), MIN_DIVISOR)
        prior = overall if usual is None else usual
        rates = ((n_named + PRIOR_PHOTOS * prior) / (n_named + unnamed + PRIOR_PHOTOS)).astype(
            np.float32
        )
    return rates


def if_unmentioned(shown: Floats, rates: Floats) -> Floats:
    """P(shown | no caption names it), from P(shown) and P(named | shown), by Bayes' rule.

    Captions nearly always name a dog, so one without it is evidence against a dog; few name the
    sky, so one without it is little evidence.
    """
    unnamed: Floats = shown * (1 - rates)
    return unnamed / np.maximum(unnamed + 1 - shown, MIN_DIVISOR)
