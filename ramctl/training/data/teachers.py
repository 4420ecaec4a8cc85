"""Taggers as teachers (`--distill scores:FILE`), and what the silence of captions and taggers says.

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
from ramctl.tagger_scores import PREFIX, TaggerScores, scores_file
from ramctl.training.data.targets import Annotation, Ids, Targets

Floats = NDArray[np.float32]

FORM = "scores:FILE[,weight=W][,map=FILE]"
ROUNDS = 50  # of expectation maximisation
PRIOR = 5.0  # photos' worth of the rate of all labels in the rate of each
LEAST = 1e-4  # divisor
NOTICED = 0.1  # a teacher with a score above it has noticed the label


@dataclass(frozen=True, slots=True)
class ScoresTeacher:
    """A tagger's output as a teacher: records with `image` and `scores`.

    `weight` is that of its targets beside a caption's; `map` has lines `label<TAB>name|name` for
    labels that it knows by names that are neither theirs nor their synonyms'.
    """

    path: Path
    weight: float = 1.0
    map: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "ScoresTeacher":
        """The teacher that `--distill` names; UsageProblem for another form."""
        form = f"{FORM} with a weight above 0"
        path, options = scores_file("--distill", text, form, "weight", "map")
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

    Where it is silent on one of them, it scored 0. A label that it knows by several names has the
    greatest score. `rows` (N,) are the records' rows in its file, -1 for none.
    """

    def __init__(
        self, teacher: ScoresTeacher, scores: TaggerScores, labels: LabelSystem, rows: Ids
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

    def of(self, index: int) -> Floats | None:
        """The targets (K,) of a record's photo; None where the teacher has not seen it."""
        row = int(self._rows[index])
        if row < 0:
            return None
        targets = np.zeros(len(self.known), np.float32)
        for name, score in zip(*self._scores[row], strict=True):
            np.maximum.at(targets, self._columns[name], score)
        return targets


def soft_targets(
    seen: Sequence[tuple[SoftTargets, Floats]], n_labels: int
) -> tuple[Floats, Floats]:
    """The targets (L,) that teachers give a photo, and their weights: 0 where none knows the label.

    `seen` are the teachers that saw the photo with their targets (K,). Of several that know a label
    the target is the mean by weight.
    """
    sums, weights = np.zeros(n_labels, np.float32), np.zeros(n_labels, np.float32)
    for teacher, targets in seen:
        sums[teacher.known] += teacher.weight * targets
        weights[teacher.known] += teacher.weight
    return np.divide(sums, weights, out=sums, where=weights > 0), weights


@dataclass(frozen=True, slots=True)
class Silence:
    """How often captions name what is shown, and teachers notice what captions name.

    `mentioned` (2, L) is for photos with one written caption, and with several.
    """

    mentioned: Floats
    noticed: Floats  # (L,)

    @classmethod
    def of_nobody(cls, n_labels: int) -> "Silence":
        """Without teachers."""
        return cls(np.zeros((2, n_labels), np.float32), np.ones(n_labels, np.float32))

    @classmethod
    def learn(
        cls,
        annotations: Iterable[tuple[int, Annotation]],
        targets: Targets,
        teachers: Sequence[SoftTargets],
    ) -> "Silence":
        """From records with their numbers: those with captions whose photo a teacher saw."""
        n_labels = len(targets)
        scores, cells, is_named = [], [], []
        n_named, n_noticed = np.zeros(n_labels), np.zeros(n_labels)
        for index, annotation in annotations:
            seen = [(t, of) for t in teachers if (of := t.of(index)) is not None]
            if not seen or not annotation.n_written:
                continue
            soft, known = soft_targets(seen, n_labels)
            target = targets.of(annotation)
            named = np.zeros(n_labels, bool)
            named[target.present] = True
            named &= known > 0
            soft[target.implied] = 0  # whether captions name these is anyone's guess
            ids = np.flatnonzero(soft)
            n_named += named
            n_noticed += named & (soft > NOTICED)
            scores.append(soft[ids])
            cells.append(ids + n_labels * (annotation.n_written > 1))
            is_named.append(named[ids])
        if not scores:
            return cls.of_nobody(n_labels)
        rates = mention_rates(
            np.concatenate(scores), np.concatenate(cells), np.concatenate(is_named), 2 * n_labels
        )
        of_all = n_noticed.sum() / max(n_named.sum(), 1)
        noticed = (n_noticed + PRIOR * of_all) / (n_named + PRIOR)
        return cls(rates.reshape(2, n_labels), noticed.astype(np.float32))


def mention_rates(scores: Floats, cells: Ids, is_named: NDArray[np.bool_], n_cells: int) -> Floats:
    """P(named | shown) of each cell (n_cells), from n scores, taken as P(shown), and their cells.

    The greatest likelihood of P(named) = P(named | shown) P(shown) by expectation maximisation,
    drawn to the rate of all cells where there are few pairs.
    """
    named = np.bincount(cells, is_named, n_cells)
    silent_cells, silent_scores = cells[~is_named], scores[~is_named]
    rates = np.full(n_cells, 0.5, np.float32)
    for _ in range(ROUNDS):
        unnamed = np.bincount(silent_cells, unsaid(silent_scores, rates[silent_cells]), n_cells)
        of_all = named.sum() / max(named.sum() + unnamed.sum(), LEAST)
        rates = ((named + PRIOR * of_all) / (named + unnamed + PRIOR)).astype(np.float32)
    return rates


def unsaid(shown: Floats, rates: Floats) -> Floats:
    """P(shown | no caption names it), from P(shown) and P(named | shown), by Bayes' rule.

    Captions that would have named a dog and do not are evidence against the dog; that they do not
    name the sky says little.
    """
    silent: Floats = shown * (1 - rates)
    return silent / np.maximum(silent + 1 - shown, LEAST)
