"""Predictions, the truth that they are compared with, and thresholds, as they are read.

`N` photos, `C` classes.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import EMBEDDED, read_labels
from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Decisions, Truth
from ramctl.evaluation.tagger_scores import each_photo, tag_scores
from ramctl.inference.thresholds import read_thresholds
from ramctl.records.files import read_text
from ramctl.records.labels import DEFAULT_THRESHOLD
from ramctl.records.record import Item, JsonObject, checked, decided_tags, is_tagged, listed
from ramctl.records.report import Rejects

Floats = NDArray[np.float32]
MISSING = -np.inf  # where a prediction has no score


class Statement(NamedTuple):
    """The tags of a record; `negatives` is None where all other tags are negative."""

    tags: tuple[str, ...]
    uncertain: tuple[str, ...]
    negatives: tuple[str, ...] | None

    @classmethod
    def from_record(cls, fields: JsonObject) -> "Statement":
        """Read a record; RecordProblem without `tags`.

        Where a person decided on a model's tags, the tags without a decision are unknown.
        """
        decisions = decided_tags(fields)
        if fields.get("tags") is None and decisions is None:
            raise RecordProblem("no tags field", code="missing_field")
        negatives = None if fields.get("negatives") is None else _names(fields, "negatives")
        tags = _names(fields, "tags") if decisions is None or is_tagged(fields) else ()
        if decisions is not None:
            kept, refused = decisions
            tags, negatives = (*tags, *kept), (*(negatives or ()), *refused)
        return cls(tags, _names(fields, "uncertain"), negatives)


def _names(fields: JsonObject, name: str) -> tuple[str, ...]:
    """The strings of a list, each in memory once however many records have it."""
    return tuple(map(sys.intern, listed(fields, name)))


def read_truth(items: Iterable[Item], rejects: Rejects) -> dict[str, Statement]:
    """The statement about each photo, from the records that are accepted."""
    return dict(each_photo(items, Statement.from_record, rejects))


def all_tags(statements: Iterable[Statement]) -> list[str]:
    """Every tag in any field, sorted."""
    fields = ((*row.tags, *row.uncertain, *(row.negatives or ())) for row in statements)
    return sorted({tag for tags in fields for tag in tags})


def code_truth(statements: Sequence[Statement], classes: Classes) -> Truth:
    """Each class of photos as positive, negative or unknown [N, C].

    A record with `negatives` leaves other classes unknown; one without is complete.
    """
    truth = np.full((len(statements), len(classes)), NEGATIVE, np.int8)
    for row, statement in zip(truth, statements, strict=True):
        if statement.negatives is not None:
            row[:] = UNKNOWN
        # Later ones win: a tag that is positive and uncertain is positive.
        for value, tags in (
            (NEGATIVE, statement.negatives or ()),
            (UNKNOWN, statement.uncertain),
            (POSITIVE, statement.tags),
        ):
            for tag in tags:
                row[list(classes.system.ids(tag))] = value
    return truth


class PredictionTable:
    """The photos of a tagger's records, with a score for each class.

    Scores are kept in single precision, which has seven digits; `tag --dense` writes six.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.photos: list[str] = []
        self.tagged: list[list[int] | None] = []  # of each photo, the classes of its own `tags`
        self.scores: Floats  # [N, C]
        self.missing: NDArray[np.float64]  # [C] the fraction of the scores that records lack
        self.known = np.zeros(len(classes), bool)  # [C] those that some predicted tag counts for
        self.labels_are_stated = classes.tag_system is not None  # so that `known` is certain
        self._n_labels = 0  # that `dense` has a number for
        # Those that count for some class, by class, and where each class begins.
        self._labels = self._starts = self._columns = np.empty(0, np.intp)

    @classmethod
    def read(cls, items: Iterable[Item], classes: Classes, rejects: Rejects) -> "PredictionTable":
        """Collect the records that are accepted."""
        table, scores = cls(classes), bytearray()
        with np.errstate(over="ignore"):
            for photo, (row, tagged) in each_photo(items, table._row, rejects):
                table.photos.append(photo)
                table.tagged.append(tagged)
                scores += row.tobytes()  # grows in place, as no array does
        if not table.photos:
            raise RunProblem("nothing to evaluate: the predictions have no photo")
        table.scores = np.frombuffer(scores, np.float32).reshape(len(table.photos), -1)
        present = table.scores > MISSING
        table.missing = 1 - present.mean(axis=0)
        # 0, or less than all others if any is negative.
        lowest = table.scores.min(initial=0.0, where=present)
        filler = np.nextafter(lowest, np.float32(MISSING)) if lowest else lowest
        np.maximum(table.scores, filler, out=table.scores)
        return table

    def decide(self, threshold: Floats | None) -> Decisions:
        """The decisions [N, C] by `threshold`, else by the records' own tags, else at 0.5."""
        if threshold is None and None not in self.tagged:
            decided = np.zeros(self.scores.shape, bool)
            for row, own in zip(decided, self.tagged, strict=True):
                row[own] = True
            return decided
        return self.scores > (DEFAULT_THRESHOLD if threshold is None else threshold)

    def _row(self, fields: JsonObject) -> tuple[Floats, list[int] | None]:
        """A record's scores [C] and the classes of its tags; RecordProblem without usable ones."""
        scores = np.full(len(self.classes), MISSING, np.float32)
        if fields.get("label_names") is not None:
            self._name_labels(fields)
        if fields.get("dense") is not None:
            self._take_dense(fields, scores)
        else:
            for tag, score in tag_scores(fields).items():
                for c in self.classes.matching_tag(tag):
                    scores[c], self.known[c] = max(scores[c], score), True
        if not (scores < np.inf).all():
            raise RecordProblem("a score is not finite in single precision", code="bad_field")
        if fields.get("tags") is None:
            return scores, None
        return scores, [c for tag in listed(fields, "tags") for c in self.classes.matching_tag(tag)]

    def _name_labels(self, fields: JsonObject) -> None:
        """Read the names of `dense`'s labels, which `tag --dense` writes on the first line only."""
        names, embedded = listed(fields, "label_names"), read_labels(EMBEDDED)
        if self.classes.tag_system is None and names == embedded.tags:
            self.classes = replace(self.classes, tag_system=embedded)  # for its synonyms
        pairs = [(c, n) for n, name in enumerate(names) for c in self.classes.matching_tag(name)]
        by_class, self._labels = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
        self._columns, self._starts = np.unique(by_class, return_index=True)
        self.known[self._columns] = self.labels_are_stated = True
        self._n_labels = len(names)

    def _take_dense(self, fields: JsonObject, scores: Floats) -> None:
        numbers = checked(fields, "dense", "a list of numbers", _are_numbers)
        if len(numbers) != self._n_labels:
            message = f"dense has {len(numbers)} numbers for {self._n_labels} label_names"
            raise RecordProblem(message, code="bad_field")
        values = np.array(numbers, np.float32)[self._labels]
        scores[self._columns] = np.maximum.reduceat(values, self._starts)


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and {int, float}.issuperset(map(type, value))


def read_threshold(text: str, classes: Classes) -> Floats:
    """The score, or scores [C], above which classes count as predicted, by `--threshold`.

    A file is JSONL, or a number a line in the order of `--classes`. Classes that JSONL does not
    name have the usual threshold. RunProblem for a file that does not fit the classes.
    """
    try:
        return np.array(float(text), np.float32)
    except ValueError:
        path = Path(text)
    if classes.origin is None and not read_text(path).lstrip().startswith("{"):
        raise RunProblem(f"{path}: thresholds without names need --classes, which orders them")
    return np.array(read_thresholds(path, classes.system, DEFAULT_THRESHOLD), np.float32)
