"""Figures as a table for people, and the classes as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ramctl.errors import escaped
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN
from ramctl.records.record import JsonObject

WIDTH, MAX_NAME_WIDTH = 80, 50  # of a table: in all, and of its first column
CLASS_COLUMNS = (
    "class", "positives", "negatives", "unknown", "AP", "precision", "recall", "F1", "tags",
)  # fmt: skip


def figure_table(result: JsonObject) -> bytes:
    """Lines `figure value`, aligned and wrapped to 80 characters."""
    rows = [tuple(map(escaped, row)) for row in _flat(result, "") if row[0] != "classes.names"]
    width = max((len(name) for name, _ in rows if len(name) <= MAX_NAME_WIDTH), default=0)
    lines: list[str] = []
    for name, value in rows:
        if len(name) > width:
            lines += _wrapped(name, WIDTH)
            name = ""
        for line in _wrapped(value, WIDTH - width - 2):
            lines.append(f"{name.ljust(width)}  {line}".rstrip())
            name = ""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text, after a blank, `|`, `.` or `/` where there is one."""
    lines = []
    while len(text) > width:
        end = max(text.rfind(mark, 0, width) for mark in (" ", "|")) + 1
        end = end or max(text.rfind(mark, 0, width) for mark in "./") + 1 or width
        lines.append(text[:end].rstrip())
        text = text[end:]
    return [*lines, text]


def class_table(comparison: Comparison) -> bytes:
    """A CSV row for each class; a cell without a value is empty."""
    counts, precisions = comparison.counts, comparison.precisions
    figures = (precisions, counts.precision, counts.recall, counts.f1)
    columns: list[Sequence[object]] = [
        comparison.classes.names,
        *((comparison.truth == value).sum(axis=0) for value in (POSITIVE, NEGATIVE, UNKNOWN)),
        *([_cell(value) for value in values.tolist()] for values in figures),
        ["|".join(comparison.classes.tags(c)) for c in range(len(precisions))],
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
    elif isinstance(value, list | tuple):
        is_interval = len(value) == 2 and all(isinstance(item, float) for item in value)
        yield name, (" to " if is_interval else "|").join(_cell(item) for item in value)
    else:
        yield name, _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return str(value)
