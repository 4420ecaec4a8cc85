"""The records of truth and predictions, photo by photo, and what the truth says about each.

Both sides are JSONL, or of another form that `ramctl.readers.predictions` knows.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Truth
from ramctl.readers.predictions import read_predictions
from ramctl.records.record import Item, JsonObject, Record, Reject, image_name, string_list
from ramctl.records.report import Rejects, Report

Taken = TypeVar("Taken")


@dataclass(slots=True)
class Intake:
    """Reads records; what cannot be used is counted, reported and written to `--rejects`."""

    report: Report
    rejects: Rejects

    @property
    def stage(self) -> str:
        """The command that reads."""
        return self.report.command

    def count(self, n_in: int, rejects: Iterable[Reject]) -> None:
        """Count records that were read elsewhere, and take what was rejected of them."""
        self.report.n_in += n_in
        for reject in rejects:
            self.rejects.add(reject)

    def fill(
        self,
        photos: "PhotoList",
        items: Iterable[Item],
        take: Callable[[JsonObject], Taken],
        keep: Callable[[Taken], object],
    ) -> None:
        """Add the photos of records to a list; `keep` gets what `take` makes of each.

        Rejected are lines without a record, records for which `take` raises RecordProblem, and
        photos that were there already. RunProblem at the first of them with `--strict`.
        """
        for item in items:
            self.report.n_in += 1
            if isinstance(item, Reject):
                self.rejects.add(item)
                continue
            try:
                # First of all: a record may name the labels of those after it.
                taken = take(item.fields)
                photos.add(Photo(image_name(item.fields), item.base), item)
            except RecordProblem as problem:
                self.rejects.add(Reject.of(item, problem, self.stage))
                continue
            keep(taken)


class PhotoList(list[Photo]):
    """Photos in order, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, int | None] = {}
        self._base: Path | None = None
        self._folder = ""

    def add(self, photo: Photo, record: Record) -> None:
        """Add the photo of a record; RecordProblem where it is there already."""
        path = self._path(photo)
        if path in self._lines:
            place = f"{record.source}:{self._lines[path]}"
            message = f"image {photo.name!r} is there already ({place})"
            raise RecordProblem(message, code="bad_field")
        self._lines[path] = record.line
        self.append(photo)

    def close(self) -> None:
        """Forget what tells whether a photo is there already; none can be added any more."""
        self._lines.clear()

    def _path(self, photo: Photo) -> str:
        if photo.base is not self._base:
            self._base, self._folder = photo.base, photo.folder()
        return photo.located(self._folder)


class Statement(NamedTuple):
    """What a record says is true, uncertain and, None where it says nothing of it, not true."""

    tags: tuple[str, ...]
    uncertain: tuple[str, ...]
    negatives: tuple[str, ...] | None

    @classmethod
    def of(cls, fields: JsonObject) -> "Statement":
        """The statement of a record; RecordProblem without `tags` and for wrong types."""
        if fields.get("tags") is None:
            raise RecordProblem("no tags field", code="missing_field")
        negatives = None if fields.get("negatives") is None else _few(fields, "negatives")
        return cls(_few(fields, "tags"), _few(fields, "uncertain"), negatives)


def _few(fields: JsonObject, name: str) -> tuple[str, ...]:
    """The strings of a list, each kept once however many records have it."""
    return tuple(map(sys.intern, string_list(fields, name)))


@dataclass(frozen=True, slots=True)
class TruthTable:
    """The photos of a truth file with what it says about each."""

    photos: list[Photo]
    statements: list[Statement]

    @classmethod
    def read(cls, name: str, intake: Intake) -> "TruthTable":
        """The table of a file or, for `-`, of standard input."""
        return cls.of(read_predictions(name, intake.stage), intake)

    @classmethod
    def of(cls, items: Iterable[Item], intake: Intake) -> "TruthTable":
        """The table of records."""
        photos, statements = PhotoList(), list[Statement]()
        intake.fill(photos, items, Statement.of, statements.append)
        photos.close()
        return cls(photos, statements)

    def named(self) -> list[str]:
        """Every tag that the table names in any way, sorted."""
        names: set[str] = set()
        for statement in self.statements:
            names.update(statement.tags, statement.uncertain, statement.negatives or ())
        return sorted(names)

    def tags_outside(self, classes: Classes) -> list[str]:
        """The positive tags that are not classes, sorted."""
        tags = {tag for statement in self.statements for tag in statement.tags}
        return sorted(tag for tag in tags if not classes.in_truth(tag))

    def code(self, classes: Classes, rows: NDArray[np.int64]) -> Truth:
        """Positive, negative or unknown for some of the photos and each class [N, C].

        A record with `negatives` says nothing about other classes; one without is complete.
        """
        truth = np.full((len(rows), len(classes)), NEGATIVE, np.int8)
        for row, statement in zip(truth, (self.statements[row] for row in rows), strict=True):
            if statement.negatives is not None:
                row[:] = UNKNOWN
            # Later ones win: a tag that is positive and uncertain is positive.
            for value, tags in (
                (NEGATIVE, statement.negatives or ()),
                (UNKNOWN, statement.uncertain),
                (POSITIVE, statement.tags),
            ):
                for tag in tags:
                    row[list(classes.in_truth(tag))] = value
        return truth
