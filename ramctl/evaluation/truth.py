"""What is true of each photo: positive, negative and unknown classes."""

from dataclasses import dataclass, field

import numpy as np

from ramctl.errors import RecordProblem
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Truth
from ramctl.evaluation.reading import Intake, PhotoList
from ramctl.labels import LabelSystem
from ramctl.records.record import Record, string_list


@dataclass(frozen=True, slots=True)
class _Statement:
    tags: list[str]
    uncertain: list[str]
    negatives: list[str] | None


@dataclass(slots=True)
class TruthTable:
    """The photos of a truth file with what it says of them, and the tags that it names."""

    _list: PhotoList = field(default_factory=PhotoList)
    _statements: list[_Statement] = field(default_factory=list)

    @classmethod
    def read(cls, name: str, intake: Intake) -> "TruthTable":
        """The table of a file; records without `tags` or with wrong types are rejected."""
        table = cls()
        for record in intake.records(name):
            try:
                table._add(record)
            except RecordProblem as problem:
                intake.refuse(record, problem)
            else:
                intake.report.n_in += 1
        return table

    @property
    def photos(self) -> list[Photo]:
        """The photos in file order."""
        return self._list.photos

    def named(self) -> list[str]:
        """Every tag that the table names in any way, sorted."""
        names: set[str] = set()
        for statement in self._statements:
            names.update(statement.tags, statement.uncertain, statement.negatives or ())
        return sorted(names)

    def strangers(self, classes: LabelSystem) -> list[str]:
        """The positive tags that are no class, sorted."""
        tags = {tag for statement in self._statements for tag in statement.tags}
        return sorted(tag for tag in tags if not classes.ids(tag))

    def code(self, classes: LabelSystem) -> Truth:
        """Positive, negative or unknown for each photo and class [N, C].

        A record with `negatives` is silent on what it does not list; one without is complete.
        """
        truth = np.full((len(self.photos), len(classes)), NEGATIVE, np.int8)
        for row, statement in zip(truth, self._statements, strict=True):
            if statement.negatives is not None:
                row[:] = UNKNOWN
            for value, tags in (
                (NEGATIVE, statement.negatives or ()),
                (UNKNOWN, statement.uncertain),
                (POSITIVE, statement.tags),
            ):
                for tag in tags:
                    row[list(classes.ids(tag))] = value
        return truth

    def _add(self, record: Record) -> None:
        photo, fields = self._list.new(record), record.fields
        if fields.get("tags") is None:
            raise RecordProblem("no tags field", code="missing_field")
        negatives = None if fields.get("negatives") is None else string_list(fields, "negatives")
        statement = _Statement(
            string_list(fields, "tags"), string_list(fields, "uncertain"), negatives
        )
        self._list.add(photo, record)
        self._statements.append(statement)
