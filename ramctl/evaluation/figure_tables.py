"""Figures as tables for people, spreadsheets and papers: text, CSV, Markdown, LaTeX."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ramctl.errors import escaped
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, UNKNOWN, Floats, interval
from ramctl.records.files import unpacked_name
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, spreadsheet_cell

Row = Sequence[str]
FORMATS = ("json", "table", "csv", "md", "latex")
_WIDTH, _NAME_WIDTH = 80, 50  # of a table: in all, and of its first column
_MAX_SYSTEMS = 7  # in a table of that width
_COMPARED = ("mAP", "CF1", "OF1", "LRAP")  # figures whose differences a table shows
_PAPER_FIGURES = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1")
_MIN_P = 0.001  # smaller p-values are printed as "< 0.001"
_ESCAPED = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
CLASS_COLUMNS = (
    "class", "positives", "negatives", "unknown", "AP", "AP_low", "AP_high",
    "precision", "recall", "F1", "tags",
)  # fmt: skip


def render(result: JsonObject, form: str, system: str) -> bytes:
    """Write the result as a JSON object, or as rows `figure, value` in another format.

    Several systems are columns; with `latex` they are the rows of one table of the usual figures,
    where a single one is named `system`.
    """
    if form == "json":
        return dumps(result)
    comparison = result.get("comparison")
    if form == "latex":
        return _booktabs(result, comparison["systems"] if comparison else {system: result})
    parts: list[tuple[Row, list[Row]]] = []
    if comparison and form == "csv":
        return write_rows(*_wide(comparison), form)
    if comparison:
        parts = list(_beside_each_other(comparison))
        shown = {*next(iter(comparison["systems"].values())), "comparison"}
        result = {name: value for name, value in result.items() if name not in shown}
    rows: list[Row] = [row for row in _flat(result, "") if row[0] != "classes.names"]
    parts.append((["figure", "value"], rows))
    return b"\n".join(write_rows(*part, form) for part in parts)


def _wide(comparison: JsonObject) -> tuple[Row, list[Row]]:
    """A row for each figure: each system's value and interval, each pair's difference and p."""
    systems: dict[str, JsonObject] = comparison["systems"]
    pairs: list[JsonObject] = comparison["differences"]
    header = ["figure"]
    for name in systems:
        header += [name, f"{name} low", f"{name} high"]
    for pair in pairs:
        name = " - ".join(pair["systems"])
        header += [name, f"{name} low", f"{name} high", f"{name} p", f"{name} p (Holm)"]
    flat = {name: dict(_flat(figures, "")) for name, figures in systems.items()}
    rows: list[Row] = []
    for figure in pairs[0]:
        if figure == "systems":
            continue
        row = [figure]
        for name, figures in systems.items():
            row += [flat[name][figure], *_bounds(figures["ci"][figure])]
        for pair in pairs:
            values = pair[figure]
            row += [_cell(values["difference"]), *_bounds(values["ci"])]
            row += [_cell(values["p"]), _cell(values["p_holm"])]
        rows.append(row)
    return header, rows


def _bounds(ends: Sequence[float] | None) -> Row:
    return list(map(_cell, ends or (None, None)))


def _booktabs(result: JsonObject, systems: dict[str, JsonObject]) -> bytes:
    """A LaTeX table (booktabs) of percentages with their intervals, where there are any.

    The best of each column is in bold, unless others are printed as high.
    """
    texts = {
        name: [f"{100 * figures[name]:.1f}" for figures in systems.values()]
        for name in _PAPER_FIGURES
    }

    def cell(figures: JsonObject, name: str) -> str:
        text, column = f"{100 * figures[name]:.1f}", texts[name]
        is_best = len(column) > 1 and text == max(column, key=float) and column.count(text) == 1
        ends = figures.get("ci", {}).get(name)
        low, high = (f"{100 * end:.1f}" for end in ends) if ends else ("", "")
        shown = rf"\textbf{{{text}}}" if is_best else text
        return rf"{shown} {{\scriptsize [{low}, {high}]}}" if ends else shown

    comparison, n_classes = result.get("comparison"), result["averaged_classes"]
    n_photos = comparison["photos"] if comparison else result["photos"]["compared"]
    rows = [
        [system.translate(_ESCAPED), *(cell(figures, name) for name in _PAPER_FIGURES)]
        for system, figures in systems.items()
    ]
    level = result.get("bootstrap", {}).get("level")
    bounds = f" [{100 * level:g} % intervals]" if level else ""
    counts, decided_by = f"{n_photos} photos, {n_classes} classes", result["decided_by"]
    lines = [
        f"% {counts}; per cent{bounds}; tags by {decided_by}",
        rf"\begin{{tabular}}{{l{'r' * len(_PAPER_FIGURES)}}}",
        r"\toprule",
        rf"{' & '.join(['System', *_PAPER_FIGURES])} \\",
        r"\midrule",
        *(rf"{' & '.join(row)} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _beside_each_other(comparison: JsonObject) -> Iterator[tuple[Row, list[Row]]]:
    """The tables of a comparison: the systems' letters, a column for each, their differences."""
    systems: dict[str, JsonObject] = comparison["systems"]
    differences: list[JsonObject] = comparison["differences"]
    n = len(systems)
    signs = [chr(ord("A") + i) if n <= 26 else f"S{i + 1}" for i in range(n)]
    letters = dict(zip(systems, signs, strict=True))
    yield ["system", ""], [[letter, name] for name, letter in letters.items()]
    rows = [dict(_flat(nested, "")) for nested in systems.values()]
    names = [name for name in rows[0] if not name.startswith("ci.")]
    for start in range(0, len(rows), _MAX_SYSTEMS):
        part = slice(start, start + _MAX_SYSTEMS)
        header = ["figure", *list(letters.values())[part]]
        yield header, [[name, *(row[name] for row in rows[part])] for name in names]
    yield (
        ["difference", "of", "", "95 % interval", "p (Holm)", "detectable"],
        [
            [figure, " - ".join(letters[name] for name in pair["systems"]),
             f"{pair[figure]['difference']:+.4f}", dict(_flat(pair[figure], ""))["ci"],
             f"< {_MIN_P}" if (p := pair[figure]["p_holm"]) < _MIN_P else f"{p:.3f}",
             _cell(pair[figure]["detectable"])]
            for figure in _COMPARED
            for pair in differences
        ],
    )  # fmt: skip


def write_rows(header: Row, rows: Sequence[Row], form: str) -> bytes:
    """Write rows as `csv`, `tsv`, `md` or an aligned `table`, in UTF-8."""
    change = spreadsheet_cell if form in ("csv", "tsv") else escaped
    header, *rows = [[*map(change, row)] for row in (header, *rows)]
    if form in ("csv", "tsv"):
        text = io.StringIO()
        delimiter = "," if form == "csv" else "\t"
        csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
        content = text.getvalue()
    elif form == "md":
        rule = ["---"] * len(header)
        lines = [header, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        content = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    else:
        content = "".join(f"{line}\n" for line in _aligned([header, *rows]))
    return content.encode("utf-8", "backslashreplace")


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    """Align rows; two columns are wrapped to 80 characters, long names on lines of their own."""
    if len(rows[0]) > 2:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            yield "  ".join([row[0].ljust(widths[0]), *cells])
        return
    width = max((len(name) for name, _ in rows if len(name) <= _NAME_WIDTH), default=0)
    for name, value in rows:
        if len(name) > width:
            yield from _wrapped(name, _WIDTH)
            name = ""
        for line in _wrapped(value, _WIDTH - width - 2):
            yield f"{name.ljust(width)}  {line}".rstrip()
            name = ""


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text, after a blank, `|`, `.` or `/` where there is one."""
    lines = []
    while len(text) > width:
        end = max(text.rfind(mark, 0, width) for mark in (" ", "|")) + 1
        end = end or max(text.rfind(mark, 0, width) for mark in "./") + 1 or width
        lines.append(text[:end].rstrip())
        text = text[end:]
    return [*lines, text]


def class_table(comparison: Comparison, resampled: Floats | None) -> tuple[Row, list[Row]]:
    """The header and a row for each class; a cell without a value is empty.

    Average precision has bounds where that of resamples [B, C] is given.
    """
    counts, precisions = comparison.counts, comparison.precisions
    bounds = np.full((2, len(precisions)), np.nan)
    for c, column in enumerate([] if resampled is None else resampled.T):
        bounds[:, c] = interval(float(precisions[c]), column) or np.nan
    figures = (precisions, *bounds, counts.precision, counts.recall, counts.f1)
    columns = [
        comparison.classes.names,
        *((comparison.truth == value).sum(axis=0) for value in (POSITIVE, NEGATIVE, UNKNOWN)),
        *([_number(value) for value in values.tolist()] for values in figures),
        ["|".join(comparison.classes.tags(c)) for c in range(len(precisions))],
    ]
    return CLASS_COLUMNS, [tuple(map(str, row)) for row in zip(*columns, strict=True)]


def report_format(path: Path) -> str:
    """The format of `--report` by its suffix: `.csv`, `.md`, `.html`, else TSV."""
    suffix = Path(unpacked_name(path.name)).suffix
    return {".csv": "csv", ".md": "md", ".html": "html"}.get(suffix, "tsv")


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and "bytes" not in value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value, 1):
            yield from _flat(inner, f"{name}.{number}")
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
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
