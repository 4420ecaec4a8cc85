"""What silence says of a label, of captions and of teachers, learnt where one of them speaks.

N records, L labels, n pairs of a captioned photo and a label that a teacher scored on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramctl.training.data.annotations import Annotation
from ramctl.training.data.targets import Targets
from ramctl.training.data.teacher_scores import SoftTargets, soft_targets

Floats = NDArray[np.float32]

ROUNDS = 50
PRIOR = 5.0  # photos' worth of the rate of all labels in the rate of each
LEAST = 1e-4
NOTICED = 0.1  # a teacher with a score above it has noticed the label


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


def mention_rates(
    scores: Floats, cells: NDArray[np.int64], is_named: NDArray[np.bool_], n_cells: int
) -> Floats:
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
