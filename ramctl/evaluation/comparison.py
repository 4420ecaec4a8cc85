"""One evaluation: predictions against truth, with everything that a reader must know about it.

`N` photos, `C` classes, `B` resamples of the photos.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes
from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation import metrics
from ramctl.evaluation.predictions import PredictionTable
from ramctl.readers.caption_formats import read_predictions
from ramctl.records.fields import FOR_TRUTH
from ramctl.records.record import (
    Item,
    JsonObject,
    decided_tags,
    encode_name,
    is_tagged,
    listed,
)
from ramctl.records.report import Rejects
from ramctl.tagger_scores import Photo, PhotoList, match

NAMED_PHOTOS = 20


class Statement(NamedTuple):
    """What a record says is true, uncertain and, None where it says nothing of it, not true."""

    tags: tuple[str, ...]
    uncertain: tuple[str, ...]
    negatives: tuple[str, ...] | None

    @classmethod
    def of(cls, fields: JsonObject) -> "Statement":
        """The statement of a record; RecordProblem without `tags`.

        Where a person decided on a model's tags, the others of these are nobody's statement.
        """
        decided = decided_tags(fields)
        if fields.get("tags") is None and decided is None:
            raise RecordProblem("no tags field", code="missing_field")
        negatives = None if fields.get("negatives") is None else _few(fields, "negatives")
        tags = _few(fields, "tags") if decided is None or is_tagged(fields) else ()
        if decided is not None:
            kept, refused = (tuple(map(sys.intern, names)) for names in decided)
            tags, negatives = (*tags, *kept), (*(negatives or ()), *refused)
        return cls(tags, _few(fields, "uncertain"), negatives)


def _few(fields: JsonObject, name: str) -> tuple[str, ...]:
    """The strings of a list, each kept once however many records have it."""
    return tuple(map(sys.intern, listed(fields, name)))


class TruthTable(NamedTuple):
    """The photos of a truth file with what it says about each."""

    photos: PhotoList
    statements: list[Statement]

    @classmethod
    def read(cls, name: str, rejects: Rejects) -> "TruthTable":
        """The table of a file or, for `-`, of standard input."""
        return cls.of(read_predictions(name, rejects.report.command, forms=FOR_TRUTH), rejects)

    @classmethod
    def of(cls, items: Iterable[Item], rejects: Rejects) -> "TruthTable":
        """The table of records."""
        table = cls(PhotoList(), [])
        table.photos.fill(items, rejects, Statement.of, table.statements.append)
        return table

    def named(self) -> list[str]:
        """Every tag that the table names in any way, sorted."""
        named = ((*one.tags, *one.uncertain, *(one.negatives or ())) for one in self.statements)
        return sorted({name for names in named for name in names})

    def code(self, classes: Classes, rows: NDArray[np.int64]) -> metrics.Truth:
        """Positive, negative or unknown for some of the photos and each class [N, C].

        A record with `negatives` says nothing about other classes; one without is complete.
        """
        truth = np.full((len(rows), len(classes)), metrics.NEGATIVE, np.int8)
        for row, statement in zip(truth, (self.statements[row] for row in rows), strict=True):
            if statement.negatives is not None:
                row[:] = metrics.UNKNOWN
            # Later ones win: a tag that is positive and uncertain is positive.
            for value, tags in (
                (metrics.NEGATIVE, statement.negatives or ()),
                (metrics.UNKNOWN, statement.uncertain),
                (metrics.POSITIVE, statement.tags),
            ):
                for tag in tags:
                    row[list(classes.system.ids(tag))] = value
        return truth


@dataclass(frozen=True)
class Comparison:
    """The photos [N] that truth and predictions share, in truth order, with all numbers on them."""

    classes: Classes
    photos: list[Photo]
    truth: metrics.Truth
    scores: metrics.Scores
    packed: metrics.Packed
    decided_by: str
    known: NDArray[np.bool_]  # the classes [C] that some tag of the predictions counts for
    score_of_none: float  # what a tag without a score has
    labels_are_stated: bool  # so that it is certain which classes the predictions do not know
    matched_by: Counter[str]
    only_in_truth: list[Photo]
    only_in_predictions: list[Photo]
    style: metrics.Style = "exact"

    @classmethod
    def of(
        cls,
        truth: TruthTable,
        predictions: PredictionTable,
        classes: Classes,
        *,
        style: metrics.Style = "exact",
    ) -> "Comparison":
        """The comparison of two tables, which spends the predictions.

        RunProblem when there is nothing to compare.
        """
        pairs, matched_by = match(truth.photos, predictions.photos)
        if not len(pairs):
            if not truth.photos or not predictions.photos:
                empty = "predictions have" if truth.photos else "truth has"
                raise RunProblem(f"nothing to evaluate: the {empty} no photo")
            here, there = predictions.photos[0].name, truth.photos[0].name
            names = f"predictions name {here!r}, the truth {there!r}"
            raise RunProblem(f"nothing to evaluate: no photo is on both sides ({names})")
        left, right = pairs.T
        coded = truth.code(classes, left)
        if coded.max(initial=metrics.UNKNOWN) < metrics.POSITIVE:
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
            score_of_none=predictions.scores.for_none,
            labels_are_stated=predictions.reader.are_stated,
            matched_by=matched_by,
            only_in_truth=_others(truth.photos, left),
            only_in_predictions=_others(predictions.photos, right),
            style=style,
        )

    @cached_property
    def ranked(self) -> metrics.Floats:
        """Average precision of every class [C] by its scores; NaN (`ram`: 0) without positives."""
        return metrics.plain_average_precisions(self.scores, self.truth, self.style)

    @property
    def precisions(self) -> metrics.Floats:
        """The same, with 0 for classes that predictions do not know."""
        return self.with_unknown(self.ranked)

    def with_unknown(self, precisions: metrics.Floats, value: float = 0.0) -> metrics.Floats:
        """Average precisions [..., C] with a value for classes that predictions do not know.

        Their photos are all tied there: what is measured is how frequent they are.
        """
        return np.where(self.known | np.isnan(precisions), precisions, value)

    @cached_property
    def has_positives(self) -> NDArray[np.bool_]:
        """The classes [C] that are true of some photo."""
        return np.asarray(self.truth.max(axis=0) == metrics.POSITIVE)

    @cached_property
    def counts(self) -> metrics.Counts:
        """The right and wrong decisions on every class."""
        return metrics.Counts.of_packed(self.packed, self.truth, self.style)

    @cached_property
    def is_averaged(self) -> NDArray[np.bool_]:
        """The classes [C] that a mean over classes includes."""
        if self.style == "ram":
            return np.ones(len(self.classes), bool)
        return self.has_positives

    def conditions(self) -> JsonObject:
        """What the figures are based on."""
        names = np.array(self.classes.names, object)
        without = "all classes, 0 for one without positives"
        return {
            "metric_style": self.style,
            "note": "mAP of few photos is higher than of many: compare at equal photos only",
            "averaging": without if self.style == "ram" else "classes with positives",
            "averaged_classes": int(self.is_averaged.sum()),
            "decided_by": self.decided_by,
            "photos": {
                "compared": len(self.photos),
                "matched_by": dict(self.matched_by),
                "only_in_truth": len(self.only_in_truth),
                "only_in_predictions": len(self.only_in_predictions),
                "only_in_truth_first": _first_names(self.only_in_truth),
                "only_in_predictions_first": _first_names(self.only_in_predictions),
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


def on_equal_terms(compared: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons on the photos of all; RunProblem without any."""
    shared = set.intersection(*({photo.name for photo in one.photos} for one in compared))
    if not shared:
        raise RunProblem("nothing to compare: no photo is in all predictions")
    return [_only(one, shared) for one in compared]


def _only(comparison: Comparison, names: set[str]) -> Comparison:
    rows = [i for i, photo in enumerate(comparison.photos) if photo.name in names]
    if len(rows) == len(comparison.photos):
        return comparison
    return replace(
        comparison,
        photos=[comparison.photos[i] for i in rows],
        truth=comparison.truth[rows],
        scores=comparison.scores[rows],
        packed=comparison.packed[rows],
    )


def _others(photos: Sequence[Photo], indices: NDArray[np.int64]) -> list[Photo]:
    others = np.setdiff1d(np.arange(len(photos)), indices)
    return [photos[index] for index in others.tolist()]


def _first_names(photos: list[Photo]) -> list[str | dict[str, str]]:
    return [encode_name(photo.name) for photo in photos[:NAMED_PHOTOS]]
