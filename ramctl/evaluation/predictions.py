"""The predictions of a model: a score and a decision for each photo and class.

Only these are kept, five bytes for each photo and class, not the records.
"""

import math
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import EMBEDDED, read_labels
from ramctl.classes import Classes
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.evaluation.metrics import Decisions, Floats, Scores
from ramctl.inference.thresholds import read_thresholds
from ramctl.labels import DEFAULT_THRESHOLD, Labels
from ramctl.readers.caption_formats import read_predictions
from ramctl.records.files import read_lines
from ramctl.records.record import JsonObject, checked, listed
from ramctl.records.report import Rejects
from ramctl.tagger_scores import PhotoList, tag_scores

# A missing score counts as 0; a sigmoid is almost never exactly 0, so that many zeros show that
# the predictions were thresholded.
_MAX_ZERO_FRACTION = 0.1
_BYTES_AT_ONCE = 1 << 17  # of scores that become rows in one go
_MIN_FLOAT = float(np.finfo(np.float32).min)


class Thresholds(NamedTuple):
    """The scores above which classes count as predicted, and where they come from.

    `values` is one number, or an array [C].
    """

    values: float | Floats
    source: str

    @classmethod
    def parse(cls, text: str, classes: Classes) -> "Thresholds":
        """Read the text of `--threshold`: a number, or a file of thresholds by class.

        A file is JSONL, or a number a line in the order of `--classes`. Classes that JSONL does not
        name have the usual threshold. UsageProblem when the text is neither a finite number nor a
        file, RunProblem for a file that does not fit the classes.
        """
        try:
            value = float(text)
        except ValueError:
            return cls(_read_class_thresholds(text, classes), str(Path(text)))
        if not math.isfinite(value):
            raise UsageProblem(f"--threshold {text}: not a finite number")
        return cls(value, str(value))


def _read_class_thresholds(name: str, classes: Classes) -> Floats:
    path = Path(name)
    if not path.is_file():
        raise UsageProblem(f"--threshold {name}: neither a number nor a file")
    first = next((line for line in read_lines(path) if line.strip()), "")
    if classes.origin is None and not first.lstrip().startswith("{"):
        raise RunProblem(f"{path}: thresholds without names need --classes, which orders them")
    values = np.array(read_thresholds(path, classes.system, float("nan")))
    if np.isnan(values).all():
        raise RunProblem(f"{path}: no line names a class; thresholds are those of classes")
    return np.where(np.isnan(values), DEFAULT_THRESHOLD, values)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """Which of L labels count for which classes; those of a class begin at its `starts`."""

    classes: NDArray[np.intp]
    labels: NDArray[np.intp]
    starts: NDArray[np.intp]
    n_labels: int

    @classmethod
    def build(cls, system: Labels, classes: Classes) -> "_Columns":
        pairs = [
            (c, label) for label, tag in enumerate(system.tags) for c in classes.matching_tag(tag)
        ]
        by_class, labels = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
        matched, starts = np.unique(by_class, return_index=True)
        return cls(matched, labels, starts, len(system))

    def best(self, values: Floats) -> Floats:
        """Take the highest of the values [n, L] of each class's labels [n, len(classes)]."""
        if len(self.classes) == len(self.labels):
            return values.take(self.labels, axis=1)
        return np.asarray(np.maximum.reduceat(values[:, self.labels], self.starts, axis=1))


class Prediction(NamedTuple):
    """The content of a record: scores by label or by tag, and the classes of its `tags`."""

    columns: _Columns | None
    dense: Floats
    by_tag: dict[str, float]
    tagged: list[int] | None


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and {int, float}.issuperset(map(type, value))


class ScoreReader:
    """Turns records into predictions.

    `known_classes` [C] are those that some predicted tag counts for; they are certain where
    `labels_are_stated`: some line, or `--labels`, lists all labels.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.known_classes = np.zeros(len(classes), bool)
        self.labels_are_stated = classes.tag_system is not None
        # By the hash of their names; "": the last ones read.
        self._columns: dict[str, _Columns] = {}

    def read(self, fields: JsonObject) -> Prediction:
        """Check a record and take its scores; RecordProblem without usable ones."""
        columns, dense, by_tag = None, np.empty(0), {}
        if fields.get("dense") is not None:
            # Comes first: the names in a rejected record still hold for the records after it.
            columns = self._columns_for(fields)
            checked(fields, "dense", "a list of numbers", _are_numbers)
        if columns is None:
            by_tag = tag_scores(fields)
        elif len(dense := np.asarray(fields["dense"], np.float64)) != columns.n_labels:
            message = f"dense has {len(dense)} numbers for {columns.n_labels} labels"
            raise RecordProblem(message, code="bad_field")
        elif not np.isfinite(dense).all():  # JSON has no such numbers, Parquet may
            raise RecordProblem("dense has a number that is not finite", code="bad_field")
        tagged = None
        if fields.get("tags") is not None:
            tagged = [c for tag in listed(fields, "tags") for c in self.classes.matching_tag(tag)]
        return Prediction(columns, dense, by_tag, tagged)

    def _columns_for(self, fields: JsonObject) -> _Columns:
        """The columns of the labels that a record's `dense` refers to.

        `tag --dense` writes `label_names` on the first line only.
        """
        key = fields.get("labels")
        key = key if isinstance(key, str) else ""
        if fields.get("label_names") is not None:
            self._columns.pop("", None)
            names = listed(fields, "label_names")
            embedded = read_labels(EMBEDDED)
            if self.classes.tag_system is None and key == f"sha256:{embedded.sha256}":
                self.classes = replace(self.classes, tag_system=embedded)  # for its synonyms
            self._columns[""] = self._add(key, Labels.from_tags(names))
        if key not in self._columns:
            if not self.classes.tag_system:
                message = "dense without label_names: no line names its labels (see --labels)"
                raise RecordProblem(message, code="missing_field")
            self._add(key, self.classes.tag_system)
        return self._columns[key]

    def _add(self, key: str, system: Labels) -> _Columns:
        columns = self._columns[key] = _Columns.build(system, self.classes)
        self.known_classes[columns.classes] = self.labels_are_stated = True
        return columns


class PredictionTable:
    """The photos of a prediction file with a score and a decision for each class.

    Scores are kept in single precision, which has seven digits; `tag --dense` writes six.
    """

    def __init__(self, reader: ScoreReader, thresholds: Thresholds | None) -> None:
        self.reader, self._thresholds = reader, thresholds
        self.photos = PhotoList()
        self.lowest, self.highest = np.inf, -np.inf  # of all scores, as read
        self._scores = bytearray()  # of float32 [N, C]; minus infinity where a score is missing
        self._decided = bytearray()  # [N, C] by the thresholds, else by the records' own tags
        self._has_tags = bytearray()
        self._waiting: list[Prediction] = []

    @property
    def are_probabilities(self) -> bool:
        """Whether no score is below 0 or above 1."""
        return self.lowest >= 0 and self.highest <= 1

    @property
    def missing_score(self) -> float:
        """The value of a missing score: 0 where no score is lower, else less than the lowest."""
        if self.lowest >= 0:
            return 0.0
        return max(float(np.floor(self.lowest)) - 1, _MIN_FLOAT)

    def add(self, prediction: Prediction) -> None:
        """Add a photo's prediction; it becomes a row at the latest with `flush`."""
        self._waiting.append(prediction)
        widest = max(len(self.reader.classes), len(prediction.dense))
        if 8 * widest * len(self._waiting) >= _BYTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Turn waiting predictions into rows."""
        for columns, group in groupby(self._waiting, lambda prediction: prediction.columns):
            predictions = list(group)
            scores = np.full((len(predictions), len(self.reader.classes)), -np.inf)
            if columns is None:
                self._fill_by_tag(predictions, scores)
            else:
                values = np.stack([prediction.dense for prediction in predictions])
                scores[:, columns.classes] = columns.best(values)
            known = scores > -np.inf
            self.lowest = min(self.lowest, float(scores.min(initial=np.inf, where=known)))
            self.highest = max(self.highest, float(scores.max(initial=-np.inf)))
            with np.errstate(over="ignore"):
                self._scores += scores.astype(np.float32).tobytes()
            if self._thresholds is not None:
                decided = scores > self._thresholds.values
            else:
                self._has_tags.extend(prediction.tagged is not None for prediction in predictions)
                decided = np.zeros(scores.shape, bool)
                for row, prediction in enumerate(predictions):
                    decided[row, prediction.tagged or ()] = True
            self._decided += decided.tobytes()
        self._waiting.clear()

    def _fill_by_tag(self, predictions: list[Prediction], scores: Floats) -> None:
        reader = self.reader
        for row, prediction in enumerate(predictions):
            for tag, score in prediction.by_tag.items():
                for c in reader.classes.matching_tag(tag):
                    scores[row, c] = max(scores[row, c], score)
                    reader.known_classes[c] = True

    def select(self, rows: NDArray[np.int64]) -> tuple[Scores, Decisions, str]:
        """Select the scores and decisions [N, C] of some photos, and name what decided.

        Decisions are made by `--threshold` where it is set; else by the records' `tags`, if all
        have them; else at 0.5, or at 0 where scores are no probabilities.
        """
        scores = np.frombuffer(self._scores, np.float32).reshape(len(self.photos), -1)
        decided = np.frombuffer(self._decided, bool).reshape(scores.shape)
        np.maximum(scores, self.missing_score, out=scores)
        if not np.array_equal(rows, np.arange(len(scores))):
            scores, decided = scores[rows], decided[rows]
        if self._thresholds is not None:
            return scores, decided, self._thresholds.source
        if np.frombuffer(self._has_tags, bool)[rows].all():
            return scores, decided, "the predictions' own tags"
        threshold = DEFAULT_THRESHOLD if self.are_probabilities else 0.0
        return scores, scores > threshold, f"{threshold:g}"

    def looks_thresholded(self, scores: Scores) -> bool:
        """Whether many scores [N, C] are missing: then their mAP is a lower bound."""
        known = self.reader.known_classes
        n_missing = np.count_nonzero(scores == self.missing_score, axis=0)[known].sum()
        return bool(n_missing > _MAX_ZERO_FRACTION * len(scores) * known.sum())


def read_table(
    name: str,
    classes: Classes,
    thresholds: Thresholds | None,
    rejects: Rejects,
    *,
    form: str | None = None,
) -> PredictionTable:
    """Read the predictions of a file or, for `-`, of standard input.

    `form` is one of `ramctl.readers.caption_formats.PREDICTION_FORMS`; None: it is recognised.
    """
    table = PredictionTable(ScoreReader(classes), thresholds)
    items = read_predictions(name, rejects.report.command, form)
    table.photos.fill(items, rejects, table.reader.read, table.add)
    table.flush()
    return table
