"""Predictions against truth on the photos that both have, and the figures of that.

`N` photos, `C` classes, `B` resamples of the photos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.evaluation import metrics
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.metrics import interval, mean_over_classes
from ramctl.evaluation.predictions import PredictionTable, Statement, code_truth
from ramctl.evaluation.tagger_scores import match
from ramctl.records.record import JsonObject

MAX_LISTED_PHOTOS = 20  # of those that only one side has


@dataclass(frozen=True)
class Comparison:
    """Truth, scores and decisions of the photos that both sides have, in the order of the truth."""

    classes: Classes
    photos: list[str]
    truth: metrics.Truth  # [N, C]
    scores: metrics.Scores  # [N, C]
    decided: metrics.Decisions  # [N, C]
    known: NDArray[np.bool_]  # [C] classes that some predicted tag counts for
    labels_are_stated: bool  # whether `known` is certain
    matching: JsonObject  # how photos were matched, and those without a match

    @classmethod
    def from_tables(
        cls,
        statements: dict[str, Statement],
        predictions: PredictionTable,
        classes: Classes,
        threshold: NDArray[np.float32] | None = None,
    ) -> "Comparison":
        """Match the photos of both sides; RunProblem when there is nothing to compare."""
        sides = {"truth": list(statements), "predictions": predictions.photos}
        pairs, matched_by = match(*sides.values())
        if not len(pairs):
            first = ", ".join(f"{side}: {(names or ['none'])[0]}" for side, names in sides.items())
            raise RunProblem(f"nothing to evaluate: no photo is on both sides ({first})")
        left, right = pairs.T
        photos = [sides["truth"][t] for t in left]
        coded = code_truth([statements[photo] for photo in photos], classes)
        if coded.max(initial=metrics.UNKNOWN) < metrics.POSITIVE:
            raise RunProblem("nothing to evaluate: no photo has a tag of the class list")
        matching: JsonObject = {"compared": len(pairs), "matched_by": dict(matched_by)}
        for (side, names), found in zip(sides.items(), pairs.T, strict=True):
            others = np.setdiff1d(np.arange(len(names)), found)
            matching[f"only_in_{side}"] = len(others)
            matching[f"only_in_{side}_first"] = [names[n] for n in others[:MAX_LISTED_PHOTOS]]
        scores, decided = predictions.scores, predictions.decide(threshold)
        if not np.array_equal(right, np.arange(len(scores))):  # else without a copy
            scores, decided = scores[right], decided[right]
        known, stated = predictions.known, predictions.labels_are_stated
        return cls(classes, photos, coded, scores, decided, known, stated, matching)

    def average_precisions(self, weights: metrics.Weights | None = None) -> metrics.Floats:
        """The average precision of every class [C], or [B, C] by photo weights [N, B].

        NaN without positives; 0 for classes that predictions do not know: all photos have the same
        score there, and only the frequency of the class would be measured.
        """
        found = metrics.average_precisions(self.scores, self.truth, weights)
        return np.where(self.known | np.isnan(found), found, 0.0)

    @cached_property
    def precisions(self) -> metrics.Floats:
        """The average precision of every class [C] on all photos."""
        return self.average_precisions()

    def resampled_means(self) -> metrics.Floats:
        """The mAP [B] of resamples of the photos."""
        return mean_over_classes(self.average_precisions(metrics.resamples(len(self.photos))))

    @cached_property
    def has_positives(self) -> NDArray[np.bool_]:
        """Whether each class [C] is true of some photo."""
        return np.asarray(self.truth.max(axis=0) == metrics.POSITIVE)

    @cached_property
    def counts(self) -> metrics.Counts:
        """The right and wrong decisions about every class."""
        return metrics.Counts.of(self.decided, self.truth)

    @property
    def figures(self) -> dict[str, float]:
        """mAP, and precision, recall and F1 of the decisions."""
        return {"mAP": float(mean_over_classes(self.precisions)), **self.counts.figures}


def compare_systems(by_name: dict[str, Comparison]) -> JsonObject:
    """The figures of systems on the same photos, and by how much the first has a higher mAP.

    Differences are paired: all systems see the same resamples.
    """
    first, *others = by_name
    resampled = {name: comparison.resampled_means() for name, comparison in by_name.items()}
    differences = {}
    for name in others:
        difference = by_name[first].figures["mAP"] - by_name[name].figures["mAP"]
        ends = interval(difference, resampled[first] - resampled[name], lowest=-1.0)
        differences[name] = {"mAP": difference, "ci": ends}
    return {
        "photos": len(by_name[first].photos),
        "systems": {name: comparison.figures for name, comparison in by_name.items()},
        "first_minus": differences,
    }


def on_shared_photos(compared: Sequence[Comparison]) -> Iterator[Comparison]:
    """Reduce comparisons to the photos that all have; RunProblem without such a photo."""
    shared = set.intersection(*(set(system.photos) for system in compared))
    if not shared:
        raise RunProblem("nothing to compare: no photo is in all predictions")
    for system in compared:
        rows = [i for i, photo in enumerate(system.photos) if photo in shared]
        if len(rows) < len(system.photos):
            arrays = {name: getattr(system, name)[rows] for name in ("truth", "scores", "decided")}
            system = replace(system, photos=[system.photos[i] for i in rows], **arrays)
        yield system
