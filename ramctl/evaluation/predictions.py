"""What a model says about each photo: a score and a decision for each class.

Only these are kept, about ten bytes per photo and class, not the records.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.metrics import Floats
from ramctl.evaluation.reading import Intake
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem, normalise
from ramctl.records.record import JsonObject, json_type, string_list

# Tags that a threshold or a top-k cut off have score 0 here; a sigmoid is almost never exactly 0.
_MAX_ZERO_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class _Columns:
    """The labels that count for the classes `which`, one after the other from `starts` on."""

    which: NDArray[np.intp]
    labels: NDArray[np.intp]
    starts: NDArray[np.intp]
    thresholds: Floats  # of all labels

    @classmethod
    def of(cls, system: LabelSystem, classes: Classes, cut: Cut) -> "_Columns":
        ids = classes.label_ids(system)
        which = [c for c, labels in enumerate(ids) if labels]
        labels = np.array([label for c in which for label in ids[c]], np.intp)
        starts = np.cumsum([0, *(len(ids[c]) for c in which)])[:-1]
        thresholds = cut.for_tags(system, classes.n_listed)
        return cls(np.array(which, np.intp), labels, starts, thresholds)


class Prediction(NamedTuple):
    """What a record says about each class [C]."""

    scores: Floats
    decided: NDArray[np.bool_]  # by the thresholds of the tags
    given: NDArray[np.bool_] | None  # by the record's own `tags`, where it has any


class ScoreReader:
    """Turns records into predictions; `matched` are the classes [C] that some tag counts for."""

    def __init__(self, classes: Classes, cut: Cut) -> None:
        self.classes = classes
        self.cut = cut
        self.matched = np.zeros(len(classes), bool)
        self._columns: dict[str, _Columns] = {}
        self._latest: _Columns | None = None
        self._classes_of: dict[str, tuple[int, ...]] = {}

    def read(self, fields: JsonObject) -> Prediction:
        """What a record says; RecordProblem for one without usable scores."""
        scores = np.zeros(len(self.classes))
        decided = np.zeros(len(self.classes), bool)
        if fields.get("dense") is not None:
            self._read_dense(fields, scores, decided)
        else:
            for tag, score in tag_scores(fields).items():
                for c in self.classes_of(tag):
                    scores[c] = max(scores[c], score)
                    decided[c] |= score > self._tag_thresholds.get(tag, DEFAULT_THRESHOLD)
                    self.matched[c] = True
        given = None
        if fields.get("tags") is not None:
            given = np.zeros(len(self.classes), bool)
            for tag in string_list(fields, "tags"):
                given[list(self.classes_of(tag))] = True
        return Prediction(scores, decided, given)

    def classes_of(self, tag: str) -> tuple[int, ...]:
        """The classes that a tag counts for."""
        found = self._classes_of.get(tag)
        if found is None:
            exact, loose = self._classes_by_tag
            found = self._classes_of[tag] = exact.get(tag) or loose.get(normalise(tag), ())
        return found

    @cached_property
    def _classes_by_tag(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        exact: dict[str, tuple[int, ...]] = {}
        loose: dict[str, tuple[int, ...]] = {}
        for c, tags in enumerate(self._tags_of_classes()):
            for tag in tags:
                for table, form in ((exact, tag), (loose, normalise(tag))):
                    if c not in table.get(form, ()):
                        table[form] = (*table.get(form, ()), c)
        return exact, loose

    def _tags_of_classes(self) -> Iterable[list[str]]:
        system = self.classes.tag_system
        if system is None:
            return [self.classes.tags(c) for c in range(len(self.classes))]
        return [[system[i].tag for i in ids] for ids in self.classes.label_ids(system)]

    @cached_property
    def _tag_thresholds(self) -> dict[str, float]:
        system = self.classes.tag_system or LabelSystem.from_tags(self._classes_by_tag[0])
        thresholds = self.cut.for_tags(system, self.classes.n_listed)
        return dict(zip(system.tags, thresholds.tolist(), strict=True))

    def _read_dense(self, fields: JsonObject, scores: Floats, decided: NDArray[np.bool_]) -> None:
        columns = self._columns_for(fields)
        dense = fields["dense"]
        values = np.array(dense) if isinstance(dense, list) else None
        if values is None or values.ndim != 1 or values.dtype.kind not in "if":
            raise RecordProblem("dense is not a list of numbers", code="bad_field")
        if len(values) != len(columns.thresholds):
            message = f"dense has {len(values)} numbers for {len(columns.thresholds)} labels"
            raise RecordProblem(message, code="bad_field")
        if not np.isfinite(values).all():
            raise RecordProblem("dense holds a number that is not finite", code="bad_field")
        if len(columns.labels):
            mine = values[columns.labels].astype(np.float64)
            above = mine > columns.thresholds[columns.labels]
            scores[columns.which] = np.maximum.reduceat(mine, columns.starts)
            decided[columns.which] = np.logical_or.reduceat(above, columns.starts)
        self.matched[columns.which] = True

    def _columns_for(self, fields: JsonObject) -> _Columns:
        """The columns of the label system that a record's `dense` refers to.

        `label_names` may stand on the first of many lines only, as `tag --dense` writes it.
        """
        key = fields.get("labels")
        key = key if isinstance(key, str) else ""
        known = self.classes.tag_system
        if fields.get("label_names") is not None:
            names = string_list(fields, "label_names")
            # The system of `--labels` also has synonyms.
            system = known if known and known.tags == names else LabelSystem.from_tags(names)
            self._latest = self._columns[key] = _Columns.of(system, self.classes, self.cut)
        columns = self._columns.get(key) if key else self._latest
        if columns is None and known is not None:
            columns = self._columns[key] = _Columns.of(known, self.classes, self.cut)
        if columns is None:
            message = "dense without label_names: no line before names its labels (see --labels)"
            raise RecordProblem(message, code="missing_field")
        return columns


def tag_scores(fields: JsonObject) -> dict[str, float]:
    """The scores by tag of a prediction; 1 for each tag where there are no scores.

    Raises RecordProblem when there is neither, and for a score that is not a number.
    """
    if fields.get("scores") is None:
        if fields.get("tags") is None:
            raise RecordProblem("no dense, scores or tags field", code="missing_field")
        return dict.fromkeys(string_list(fields, "tags"), 1.0)
    scores = fields["scores"]
    if not isinstance(scores, dict):
        raise RecordProblem(f"scores is not an object (got {json_type(scores)})", code="bad_field")
    for tag, score in scores.items():
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not math.isfinite(score):
            raise RecordProblem(f"the score of {tag!r} is not a number", code="bad_field")
    return scores


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """The photos of a prediction file with a score and a decision for each class."""

    reader: ScoreReader
    photos: list[Photo]
    predictions: list[Prediction]

    @classmethod
    def read(cls, name: str, classes: Classes, cut: Cut, intake: Intake) -> "PredictionTable":
        """The table of a file or, for `-`, of standard input."""
        reader = ScoreReader(classes, cut)
        return cls(reader, *intake.photos(name, reader.read))

    def scores(self, rows: list[int]) -> Floats:
        """The class scores [N, C] of some photos."""
        return np.array([self.predictions[row].scores for row in rows])

    def decisions(self, rows: list[int]) -> tuple[NDArray[np.bool_], str]:
        """The decisions [N, C] about some photos, and in words what made them.

        `--threshold` where there is one; else the records' own `tags`, if all have them; else 0.5.
        """
        cut, classes = self.reader.cut, self.reader.classes
        given = [self.predictions[row].given for row in rows]
        if cut.is_default and all(g is not None for g in given):
            return np.array(given, bool), "the predictions' own tags"
        decided = np.array([self.predictions[row].decided for row in rows])
        own = cut.for_classes(classes.system, classes.n_listed)
        return np.where(np.isnan(own), decided, self.scores(rows) > own), cut.description

    def looks_thresholded(self, scores: Floats) -> bool:
        """Whether scores [N, C] seem to be cut off: then their mAP is a lower bound."""
        scores = scores[:, self.reader.matched]
        return bool(scores.size) and float(np.mean(scores == 0)) > _MAX_ZERO_SHARE
