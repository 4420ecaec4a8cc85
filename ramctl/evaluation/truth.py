"""What the truth says about each photo."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes
from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Truth
from ramctl.readers.predictions import read_predictions
from ramctl.records.record import Item, JsonObject, string_list
from ramctl.tagger_scores import Intake, PhotoList


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

    photos: PhotoList
    statements: list[Statement]

    @classmethod
    def read(cls, name: str, intake: Intake) -> "TruthTable":
        """The table of a file or, for `-`, of standard input."""
        return cls.of(read_predictions(name, intake.report.command), intake)

    @classmethod
    def of(cls, items: Iterable[Item], intake: Intake) -> "TruthTable":
        """The table of records."""
        table = cls(PhotoList(), [])
        intake.fill(table.photos, items, Statement.of, table.statements.append)
        return table

    def named(self) -> list[str]:
        """Every tag that the table names in any way, sorted."""
        names: set[str] = set()
        for statement in self.statements:
            names.update(statement.tags, statement.uncertain, statement.negatives or ())
        return sorted(names)

    def tags_outside(self, classes: Classes) -> list[str]:
        """The positive tags that are not classes, sorted."""
        tags = {tag for statement in self.statements for tag in statement.tags}
        return sorted(tag for tag in tags if not classes.system.ids(tag))

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
                    row[list(classes.system.ids(tag))] = value
        return truth
