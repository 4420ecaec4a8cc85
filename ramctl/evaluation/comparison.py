"""Predictions against truth on the photos that both have, and what the figures are based on.

`N` photos, `C` classes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes
from ramctl.errors import RunProblem
from ramctl.evaluation import metrics
from ramctl.evaluation.predictions import PredictionTable
from ramctl.evaluation.truth import TruthTable
from ramctl.records.record import JsonObject
from ramctl.tagger_scores import match

MAX_LISTED_PHOTOS = 20  # of those that only one side has


@dataclass(frozen=True)
class Comparison:
    """Truth, scores and decisions of the photos that both sides have, in the order of the truth."""

    classes: Classes
    photos: list[str]
    truth: metrics.Truth  # [N, C]
    scores: metrics.Scores  # [N, C]
    decided: metrics.Decisions  # [N, C]
    decided_by: str  # the threshold, its file, or the predictions' tags
    known: NDArray[np.bool_]  # [C] classes that some predicted tag counts for
    missing_score: float  # the value of a missing score
    labels_are_stated: bool  # whether `known` is certain
    matched_by: Counter[str]
    only_in_truth: list[str]
    only_in_predictions: list[str]

    @classmethod
    def from_tables(
        cls, truth: TruthTable, predictions: PredictionTable, classes: Classes
    ) -> "Comparison":
        """Match the photos of two tables; RunProblem when there is nothing to compare."""
        pairs, matched_by = match(truth.photos, predictions.photos)
        if not len(pairs):
            if not truth.photos or not predictions.photos:
                empty = "predictions have" if truth.photos else "truth has"
                raise RunProblem(f"nothing to evaluate: the {empty} no photo")
            names = f"predictions name {predictions.photos[0]!r}, the truth {truth.photos[0]!r}"
            raise RunProblem(f"nothing to evaluate: no photo is on both sides ({names})")
        left, right = pairs.T
        coded = truth.code(classes, left)
        if coded.max(initial=metrics.UNKNOWN) < metrics.POSITIVE:
            raise RunProblem("nothing to evaluate: no photo has a tag of the class list")
        scores, decided, decided_by = predictions.select(right)
        return cls(
            classes=classes,
            photos=[truth.photos[t] for t in left],
            truth=coded,
            scores=scores,
            decided=decided,
            decided_by=decided_by,
            known=predictions.reader.known_classes,
            missing_score=predictions.missing_score,
            labels_are_stated=predictions.reader.labels_are_stated,
            matched_by=matched_by,
            only_in_truth=_unmatched(truth.photos, left),
            only_in_predictions=_unmatched(predictions.photos, right),
        )

    @cached_property
    def precisions(self) -> metrics.Floats:
        """The average precision of every class [C]; NaN without positives.

        It is 0 for classes that predictions do not know.
        """
        return self.fill_unknown(metrics.plain_average_precisions(self.scores, self.truth))

    def fill_unknown(self, precisions: metrics.Floats) -> metrics.Floats:
        """0 for the average precisions [..., C] of classes that predictions do not know.

        All photos have the same score for such a class: only its frequency would be measured.
        """
        return np.where(self.known | np.isnan(precisions), precisions, 0.0)

    @cached_property
    def has_positives(self) -> NDArray[np.bool_]:
        """Whether each class [C] is true of some photo."""
        return np.asarray(self.truth.max(axis=0) == metrics.POSITIVE)

    @cached_property
    def counts(self) -> metrics.Counts:
        """The right and wrong decisions about every class."""
        return metrics.Counts.of(self.decided, self.truth)

    def conditions(self) -> JsonObject:
        """Describe photos, classes and thresholds that the figures are based on."""
        names = np.array(self.classes.names, object)
        return {
            "note": "mAP of few photos is higher than of many: compare at equal photos only",
            "averaged_classes": int(self.has_positives.sum()),
            "decided_by": self.decided_by,
            "photos": {
                "compared": len(self.photos),
                "matched_by": dict(self.matched_by),
                "only_in_truth": len(self.only_in_truth),
                "only_in_predictions": len(self.only_in_predictions),
                "only_in_truth_first": self.only_in_truth[:MAX_LISTED_PHOTOS],
                "only_in_predictions_first": self.only_in_predictions[:MAX_LISTED_PHOTOS],
            },
            "classes": {
                "count": len(names),
                "sha256": self.classes.sha256,
                "from": self.classes.origin or "the truth",
                "without_positives": names[~self.has_positives].tolist(),
                "without_tag": names[~self.known].tolist(),
                "names": names.tolist(),
            },
        }


def on_shared_photos(compared: Sequence[Comparison]) -> list[Comparison]:
    """Reduce comparisons to the photos that all have; RunProblem without such a photo."""
    shared = set.intersection(*(set(system.photos) for system in compared))
    if not shared:
        raise RunProblem("nothing to compare: no photo is in all predictions")
    return [_select_photos(system, shared) for system in compared]


def _select_photos(comparison: Comparison, names: set[str]) -> Comparison:
    rows = [i for i, photo in enumerate(comparison.photos) if photo in names]
    if len(rows) == len(comparison.photos):
        return comparison
    return replace(
        comparison,
        photos=[comparison.photos[i] for i in rows],
        truth=comparison.truth[rows],
        scores=comparison.scores[rows],
        decided=comparison.decided[rows],
    )


def _unmatched(photos: Sequence[str], indices: NDArray[np.int64]) -> list[str]:
    remaining = np.setdiff1d(np.arange(len(photos)), indices)
    return [photos[index] for index in remaining.tolist()]
