"""The records of truth and predictions, photo by photo, and what the truth says about each.

Both sides are JSONL, or the RAM authors' lists with lines `id,tag,tag`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Truth
from ramctl.labels import LabelSystem
from ramctl.records.inputs import open_input, read_inputs
from ramctl.records.record import JsonObject, Record, Reject, image_name, string_list
from ramctl.records.report import Rejects, Report

LIST_SUFFIXES = (".txt", ".csv")


@dataclass(slots=True)
class Intake:
    """Reads records; what cannot be used is counted, reported and written to `--rejects`."""

    report: Report
    rejects: Rejects

    def reject(self, reject: Reject) -> None:
        """Count and write a reject; RunProblem with `--strict`."""
        self.report.n_in += 1
        self.rejects.add(reject)

    def records(self, name: str) -> Iterator[Record]:
        """The records of a file or, for `-`, of standard input; other lines are rejected."""
        if name.endswith(LIST_SUFFIXES):
            yield from _read_list(name)
            return
        for item in read_inputs([name], None, self.report.command):
            if isinstance(item, Reject):
                self.reject(item)
            else:
                yield item


class PhotoTable:
    """The photos of one side in order, each once; `_keep` takes what a record says about its photo.

    `_keep` raises RecordProblem for a record that is unusable, and then keeps nothing of it.
    """

    def __init__(self) -> None:
        self.photos: list[Photo] = []
        self._places: dict[str, str] = {}

    def fill(self, name: str, intake: Intake) -> None:
        """Take all usable records of a file or, for `-`, of standard input."""
        for record in intake.records(name):
            try:
                image = image_name(record.fields)
                if image in self._places:
                    message = f"image {image!r} is there already ({self._places[image]})"
                    raise RecordProblem(message, code="bad_field")
                self._keep(record.fields)
            except RecordProblem as problem:
                intake.reject(Reject.of(record, problem, intake.report.command))
                continue
            self._places[image] = record.place
            self.photos.append(Photo(image, record.base))
            intake.report.n_in += 1

    def _keep(self, fields: JsonObject) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _Statement:
    tags: list[str]
    uncertain: list[str]
    negatives: list[str] | None


class TruthTable(PhotoTable):
    """The photos of a truth file with what it says about them."""

    def __init__(self) -> None:
        super().__init__()
        self._statements: list[_Statement] = []

    @classmethod
    def read(cls, name: str, intake: Intake) -> "TruthTable":
        """The table of a file; records without `tags` or with wrong types are rejected."""
        table = cls()
        table.fill(name, intake)
        return table

    def named(self) -> list[str]:
        """Every tag that the table names in any way, sorted."""
        names: set[str] = set()
        for statement in self._statements:
            names.update(statement.tags, statement.uncertain, statement.negatives or ())
        return sorted(names)

    def tags_outside(self, classes: LabelSystem) -> list[str]:
        """The positive tags that are not classes, sorted."""
        tags = {tag for statement in self._statements for tag in statement.tags}
        return sorted(tag for tag in tags if not classes.ids(tag))

    def code(self, classes: LabelSystem) -> Truth:
        """Positive, negative or unknown for each photo and class [N, C].

        A record with `negatives` says nothing about other classes; one without is complete.
        """
        truth = np.full((len(self.photos), len(classes)), NEGATIVE, np.int8)
        for row, statement in zip(truth, self._statements, strict=True):
            if statement.negatives is not None:
                row[:] = UNKNOWN
            # Later ones win: a tag that is positive and uncertain is positive.
            for value, tags in (
                (NEGATIVE, statement.negatives or ()),
                (UNKNOWN, statement.uncertain),
                (POSITIVE, statement.tags),
            ):
                for tag in tags:
                    row[list(classes.ids(tag))] = value
        return truth

    def _keep(self, fields: JsonObject) -> None:
        if fields.get("tags") is None:
            raise RecordProblem("no tags field", code="missing_field")
        negatives = None if fields.get("negatives") is None else string_list(fields, "negatives")
        tags, uncertain = string_list(fields, "tags"), string_list(fields, "uncertain")
        self._statements.append(_Statement(tags, uncertain, negatives))


def _read_list(name: str) -> Iterator[Record]:
    """The lines `id,tag,tag` of the authors' annotation and prediction files."""
    with open_input(name) as stream:
        for number, line in enumerate(stream, 1):
            try:
                image, *tags = line.decode("utf-8-sig").rstrip("\r\n").split(",")
            except UnicodeDecodeError as error:
                raise RunProblem(f"{name}:{number}: not UTF-8 text") from error
            if image.strip():
                fields = {"image": image, "tags": [tag for tag in tags if tag]}
                yield Record(fields, name, number, Path(name).parent)
