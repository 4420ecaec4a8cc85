"""Figures as a table for people, and the classes as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ramctl.errors import escaped
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, f1
from ramctl.records.record import JsonObject

MAX_LISTED = 5  # in a list of the table
CLASS_COLUMNS = (
    "class", "positives", "negatives", "unknown", "AP", "precision", "recall", "F1", "tags",
)  # fmt: skip


def figure_table(result: JsonObject) -> bytes:
    """Lines `figure value`, aligned; of a list, the first ones and their number."""
    rows = [tuple(map(escaped, row)) for row in _flat(result, "")]
    width = max(len(name) for name, _ in rows)
    lines = (f"{name.ljust(width)}  {value}".rstrip() + "\n" for name, value in rows)
    return "".join(lines).encode("utf-8", "backslashreplace")


def class_table(comparison: Comparison) -> bytes:
    """A CSV row for each class; a cell without a value is empty."""
    precision, recall = comparison.counts.precision, comparison.counts.recall
    figures = (comparison.precisions, precision, recall, f1(precision, recall))
    columns: list[Sequence[object]] = [
        comparison.classes.names,
        *((comparison.truth == value).sum(axis=0) for value in (POSITIVE, NEGATIVE, UNKNOWN)),
        *([_cell(value) for value in values.tolist()] for values in figures),
        ["|".join(comparison.classes.tags(c)) for c in range(len(precision))],
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CLASS_COLUMNS)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, tuple):
        yield name, " to ".join(map(_cell, value))
    elif isinstance(value, list):
        more = [f"... ({len(value)})"] if len(value) > MAX_LISTED else []
        yield name, ", ".join([*map(str, value[:MAX_LISTED]), *more])
    else:
        yield name, _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return str(value)
