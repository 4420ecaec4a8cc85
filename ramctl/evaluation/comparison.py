"""One evaluation: predictions against truth, with everything that a reader must know about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RunProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.matching import Photo, match
from ramctl.evaluation.metrics import (
    POSITIVE,
    Counts,
    Floats,
    Ranking,
    Scores,
    Style,
    Truth,
    harmonic_mean,
    interval,
    mean_over_classes,
    plain_average_precisions,
    rank_classes,
    resampled_precisions,
)
from ramctl.evaluation.predictions import PredictionTable
from ramctl.evaluation.reading import TruthTable
from ramctl.records.record import JsonObject, encode_name

NAMED_PHOTOS = 20


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The number of resamples of the photos, and their seed."""

    n: int
    seed: int


@dataclass(frozen=True)
class Comparison:
    """The photos [N] that truth and predictions share, in truth order, with all numbers on them."""

    classes: Classes
    photos: list[Photo]
    truth: Truth
    scores: Scores
    packed: NDArray[np.uint8]  # the decisions, eight classes to a byte
    decided_by: str
    known: NDArray[np.bool_]  # the classes [C] that some tag of the predictions counts for
    unknown_count: bool  # the others count as 0; they are left out where labels are stated
    matched_by: Counter[str]
    only_in_truth: list[Photo]
    only_in_predictions: list[Photo]
    style: Style = "exact"

    @classmethod
    def of(
        cls,
        truth: TruthTable,
        predictions: PredictionTable,
        classes: Classes,
        *,
        key: str | None = None,
        style: Style = "exact",
    ) -> "Comparison":
        """The comparison of two tables, which spends the predictions.

        RunProblem when there is nothing to compare.
        """
        matches = match(truth.photos, predictions.photos, key)
        if not matches.pairs:
            raise RunProblem(_why_nothing(truth, predictions))
        left = [t for t, _ in matches.pairs]
        right = [p for _, p in matches.pairs]
        coded = truth.code(classes.system, left)
        if not (coded == POSITIVE).any():
            raise RunProblem("nothing to evaluate: no photo has a tag of the class list")
        scores, packed, decided_by = predictions.select(right)
        return cls(
            classes=classes,
            photos=[truth.photos[t] for t in left],
            truth=coded,
            scores=scores,
            packed=packed,
            decided_by=decided_by,
            known=predictions.reader.matched,
            unknown_count=style == "ram" or not predictions.reader.are_stated,
            matched_by=matches.by_key,
            only_in_truth=_others(truth.photos, left),
            only_in_predictions=_others(predictions.photos, right),
            style=style,
        )

    @property
    def rankings(self) -> list[Ranking]:
        """The ranking of every class."""
        return rank_classes(self.scores, self.truth, self.style)

    @cached_property
    def precisions(self) -> Floats:
        """Average precision of every class [C]; NaN (`ram`: 0) without positives."""
        plain = plain_average_precisions(self.scores, self.truth, self.style)
        return self.with_unknown(plain, 0.0 if self.unknown_count else np.nan)

    def with_unknown(self, precisions: Floats, value: float) -> Floats:
        """Average precisions [..., C] with a value for classes that predictions do not know.

        Their photos are all tied there: what is measured is how frequent they are.
        """
        return np.where(self.known | ~self.has_positives, precisions, value)

    @cached_property
    def has_positives(self) -> NDArray[np.bool_]:
        """The classes [C] that are true of some photo."""
        return np.asarray((self.truth == POSITIVE).any(axis=0))

    @cached_property
    def counts(self) -> Counts:
        """The right and wrong decisions on every class."""
        return Counts.of_packed(self.packed, self.truth, self.style)

    @cached_property
    def is_averaged(self) -> NDArray[np.bool_]:
        """The classes [C] that a mean over classes includes."""
        if self.style == "ram":
            return np.ones(len(self.classes), bool)
        return self.has_positives & (self.known | self.unknown_count)

    def resampled(self, bootstrap: Bootstrap) -> Floats:
        """Average precision of every class in every resample of the photos [B, C]."""
        n, seed = bootstrap.n, bootstrap.seed
        plain = resampled_precisions(self.rankings, len(self.photos), n, seed)
        return self.with_unknown(plain, 0.0 if self.unknown_count else np.nan)

    def only(self, names: set[str]) -> "Comparison":
        """The same comparison on the photos with these names."""
        rows = [i for i, photo in enumerate(self.photos) if photo.name in names]
        return replace(
            self,
            photos=[self.photos[i] for i in rows],
            truth=self.truth[rows],
            scores=self.scores[rows],
            packed=self.packed[rows],
        )


def headline(comparison: Comparison) -> JsonObject:
    """mAP, and precision, recall and F1 of the decisions: averaged over classes and pooled."""
    counts, over = comparison.counts, comparison.is_averaged
    pooled = counts.among(comparison.known | comparison.unknown_count).pooled
    precision, recall = (float(v[over].mean()) for v in (counts.precision, counts.recall))
    pooled_precision, pooled_recall = float(pooled.precision[0]), float(pooled.recall[0])
    pooled_f1 = harmonic_mean(pooled_precision, pooled_recall)
    left_out, as_zero = (
        float(mean_over_classes(comparison.with_unknown(comparison.precisions, value)))
        for value in (np.nan, 0.0)
    )
    return {
        "mAP": float(mean_over_classes(comparison.precisions)),
        "mAP_unknown_left_out": left_out,
        "mAP_unknown_zero": as_zero,
        "CP": precision,
        "CR": recall,
        "CF1": harmonic_mean(precision, recall),
        "OP": pooled_precision,
        "OR": pooled_recall,
        "OF1": pooled_f1,
        "macro": {"precision": precision, "recall": recall, "f1": float(counts.f1[over].mean())},
        "micro": {"precision": pooled_precision, "recall": pooled_recall, "f1": pooled_f1},
    }


def conditions(comparison: Comparison) -> JsonObject:
    """What the figures are based on."""
    names = np.array(comparison.classes.names, object)
    is_ram = comparison.style == "ram"
    return {
        "metric_style": comparison.style,
        "averaging": (
            "all classes, 0 for one without positives" if is_ram else "classes with positives"
        ),
        "unknown_classes": "0" if comparison.unknown_count else "left out",
        "averaged_classes": int(comparison.is_averaged.sum()),
        "decided_by": comparison.decided_by,
        "photos": {
            "compared": len(comparison.photos),
            "matched_by": dict(comparison.matched_by),
            "only_in_truth": len(comparison.only_in_truth),
            "only_in_predictions": len(comparison.only_in_predictions),
            "only_in_truth_first": _names(comparison.only_in_truth),
            "only_in_predictions_first": _names(comparison.only_in_predictions),
        },
        "classes": {
            "count": len(names),
            "sha256": comparison.classes.sha256,
            "from": comparison.classes.origin or "the truth",
            "without_positives": names[~comparison.has_positives].tolist(),
            "without_tag": names[~comparison.known].tolist(),
            "names": names.tolist(),
        },
    }


def group_figures(
    comparison: Comparison, groups: dict[str, list[int]], resampled: Floats | None
) -> JsonObject:
    """mAP of each named group of classes, with its interval where there are resamples."""
    figures = {}
    for name, ids in groups.items():
        mean = float(mean_over_classes(comparison.precisions[ids]))
        averaged = int(comparison.is_averaged[ids].sum())
        figure: JsonObject = {"mAP": mean, "classes": len(ids), "averaged_classes": averaged}
        if resampled is not None:
            figure["mAP_ci"] = interval(mean, mean_over_classes(resampled[:, ids]))
        figures[name] = figure
    return figures


def difference(ours: Comparison, theirs: Comparison, bootstrap: Bootstrap) -> JsonObject:
    """The difference of two models' mAP on the photos of both, on the same resamples (paired)."""
    our_names, their_names = ({photo.name for photo in side.photos} for side in (ours, theirs))
    shared = our_names & their_names
    if not shared:
        raise RunProblem("nothing to compare: --baseline has no photo in common")
    ours, theirs = ours.only(shared), theirs.only(shared)
    here, there = (float(mean_over_classes(side.precisions)) for side in (ours, theirs))
    gains = mean_over_classes(ours.resampled(bootstrap)) - mean_over_classes(
        theirs.resampled(bootstrap)
    )
    return {
        "mAP": there,
        "mAP_here": here,
        "difference": here - there,
        "difference_ci": interval(here - there, gains, lowest=-1.0),
        "photos": len(shared),
        "only_in_one": len(our_names ^ their_names),
    }


def _others(photos: Sequence[Photo], indices: list[int]) -> list[Photo]:
    used = set(indices)
    return [photo for index, photo in enumerate(photos) if index not in used]


def _names(photos: list[Photo]) -> list[Any]:
    return [encode_name(photo.name) for photo in photos[:NAMED_PHOTOS]]


def _why_nothing(truth: TruthTable, predictions: PredictionTable) -> str:
    if not truth.photos:
        return "nothing to evaluate: the truth has no photo"
    if not predictions.photos:
        return "nothing to evaluate: the predictions have no photo"
    here, there = predictions.photos[0].name, truth.photos[0].name
    example = f"predictions name {here!r}, the truth {there!r}"
    return f"nothing to evaluate: no photo is on both sides ({example}; see --key)"
