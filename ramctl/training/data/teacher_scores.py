"""Soft targets: what taggers said of the photos (`--distill scores:FILE`).

N records, L labels, K labels that a teacher knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes, read_map
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.tagger_scores import PREFIX, TaggerScores

FORM = "scores:FILE[,weight=W][,map=FILE]"


@dataclass(frozen=True, slots=True)
class ScoresTeacher:
    """A tagger's output as a teacher: records with `image` and `scores`.

    `weight` is that of its targets beside a caption's; `map` has lines `label<TAB>name|name` for
    labels that it knows by names that are neither theirs nor their synonyms'.
    """

    path: Path
    weight: float = 1.0
    map: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files that its targets come from."""
        return [self.path] if self.map is None else [self.path, self.map]

    @classmethod
    def parse(cls, text: str) -> "ScoresTeacher":
        """The teacher that `--distill` names; UsageProblem for another form."""
        path, *settings = text.removeprefix(PREFIX).split(",")
        given = dict(setting.partition("=")[::2] for setting in settings)
        try:
            weight = float(given.pop("weight", 1))
        except ValueError:
            weight = -1.0
        mapping = given.pop("map", None)
        if not path or given or not weight > 0 or mapping == "":
            raise UsageProblem(f"--distill {text}: expected {FORM} with a weight above 0")
        return cls(Path(path), weight, Path(mapping) if mapping else None)


def scores_teachers(distill: Sequence[str]) -> list[ScoresTeacher]:
    """The teachers of `--distill` that are files of scores."""
    return [ScoresTeacher.parse(name) for name in distill if name.startswith(PREFIX)]


class SoftTargets:
    """A teacher's scores as targets of the labels that it knows, `known` (K,).

    Where it is silent on one of them, it scored 0. A label that it knows by several names has the
    greatest score. `rows` (N,) are the records' rows in its file, -1 for none.
    """

    def __init__(
        self,
        teacher: ScoresTeacher,
        scores: TaggerScores,
        labels: LabelSystem,
        rows: NDArray[np.int64],
    ) -> None:
        self.weight, self._scores, self._rows = teacher.weight, scores.scores, rows
        classes = Classes(labels, None, read_map(teacher.map))
        pairs = [(n, c) for name, n in scores.names.items() for c in classes.of_tag(name)]
        if not pairs:
            raise RunProblem(f"{teacher.path}: names none of the labels")
        name_ids, label_ids = np.array(pairs).T
        self.known, columns = np.unique(label_ids, return_inverse=True)
        # The columns of the labels that each name stands for.
        self._columns = [columns[name_ids == n] for n in range(len(scores.names))]

    def of(self, index: int) -> NDArray[np.float32] | None:
        """The targets (K,) of a record's photo; None where the teacher has not seen it."""
        row = int(self._rows[index])
        if row < 0:
            return None
        targets = np.zeros(len(self.known), np.float32)
        for name, score in zip(*self._scores[row], strict=True):
            for column in self._columns[name]:
                targets[column] = max(targets[column], score)
        return targets


def soft_targets(
    seen: Sequence[tuple[SoftTargets, NDArray[np.float32]]], n_labels: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The targets (L,) that teachers give a photo, and their weights: 0 where none knows the label.

    `seen` are the teachers that saw the photo with their targets (K,). Of several that know a label
    the target is the mean by weight.
    """
    sums, weights = np.zeros(n_labels, np.float32), np.zeros(n_labels, np.float32)
    for teacher, targets in seen:
        sums[teacher.known] += teacher.weight * targets
        weights[teacher.known] += teacher.weight
    return np.divide(sums, weights, out=sums, where=weights > 0), weights
