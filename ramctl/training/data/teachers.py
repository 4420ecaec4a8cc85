"""Targets of the tag loss: from records, and from taggers as teachers (`--distill scores:FILE`).

N records, L labels, K labels that a teacher knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes, read_map
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Labels
from ramctl.model.preset import TrainingConfig
from ramctl.tagger_scores import PREFIX, TaggerScores, scores_file
from ramctl.training.data.targets import Annotation, Ids, Targets

Floats = NDArray[np.float32]

FORM = "scores:FILE[,weight=W][,map=FILE]"


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
        self, teacher: ScoresTeacher, scores: TaggerScores, labels: Labels, rows: Ids
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


class TagTargets:
    """The targets of the tag loss and their weights, from records and teachers."""

    def __init__(
        self, labels: Targets, config: TrainingConfig, teachers: Sequence[SoftTargets] = ()
    ) -> None:
        self.labels, self.teachers = labels, teachers
        self.absent_weight = config.absent_weight

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
            targets, taught = soft_targets(self.teachers, index, len(self))
            np.copyto(weights, taught, where=taught > 0)
        targets[target.denied], weights[target.denied] = 0, 1
        targets[target.present] = weights[target.present] = 1
        return targets, weights
