"""The truth of an evaluation: which tags are true, uncertain or not true of each photo."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes
from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Truth
from ramctl.readers.caption_formats import read_predictions
from ramctl.records.record import Item, JsonObject, decided_tags, is_tagged, listed
from ramctl.records.report import Rejects
from ramctl.tagger_scores import PhotoList


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
        negatives = None if fields.get("negatives") is None else _strings(fields, "negatives")
        tags = _strings(fields, "tags") if decisions is None or is_tagged(fields) else ()
        if decisions is not None:
            kept, refused = (tuple(map(sys.intern, names)) for names in decisions)
            tags, negatives = (*tags, *kept), (*(negatives or ()), *refused)
        return cls(tags, _strings(fields, "uncertain"), negatives)


def _strings(fields: JsonObject, name: str) -> tuple[str, ...]:
    """The strings of a list, each in memory once however many records have it."""
    return tuple(map(sys.intern, listed(fields, name)))


class TruthTable(NamedTuple):
    """The photos of a truth file and the statement about each."""

    photos: PhotoList
    statements: list[Statement]

    @classmethod
    def read(cls, name: str, rejects: Rejects) -> "TruthTable":
        """Read a file or, for `-`, standard input."""
        records = read_predictions(name, rejects.report.command)
        return cls.from_records(records, rejects)

    @classmethod
    def from_records(cls, items: Iterable[Item], rejects: Rejects) -> "TruthTable":
        """Collect the records that are accepted."""
        table = cls(PhotoList(), [])
        table.photos.fill(items, rejects, Statement.from_record, table.statements.append)
        return table

    def all_tags(self) -> list[str]:
        """Every tag in any field of the table, sorted."""
        fields = ((*row.tags, *row.uncertain, *(row.negatives or ())) for row in self.statements)
        return sorted({tag for tags in fields for tag in tags})

    def code(self, classes: Classes, rows: NDArray[np.int64]) -> Truth:
        """Code each class of some photos as positive, negative or unknown [N, C].

        A record with `negatives` leaves other classes unknown; one without is complete.
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
