"""What the page of a comparison shows: figures, curves, classes, worst mistakes, confusions.

`N` photos, `C` classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import Figures, unpacked
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, Floats, rank
from ramctl.evaluation.operating_point import counts_at
from ramctl.pages.report import Mistake, ReportPage, SystemOfReport, report_page
from ramctl.records.record import Record

HEADLINES = ("mAP", "CP", "CR", "CF1", "macro.f1", "OP", "OR", "OF1", "LRAP")
POOLED_POINTS, CLASS_POINTS = 100, 24  # of a curve
MISTAKES, OF_A_CLASS = 24, 2
CONFUSIONS, MOST_CONFUSED = 20, 1000
_Curve = list[tuple[float, float]]


def write_report(
    named: dict[str, Comparison], root: Path | None, intervals: dict[str, Sequence[float] | None]
) -> bytes:
    """The page of systems' comparisons on the same photos; `intervals` are those of the first.

    Photos are looked for in `root`, else where the truth says.
    """
    first = next(iter(named.values()))
    present = first.has_positives
    page = ReportPage(
        classes=first.classes.names,
        positives=(first.truth == POSITIVE).sum(axis=0).tolist(),
        n_photos=len(first.photos),
        intervals={name: ends for name, ends in intervals.items() if name in HEADLINES},
        systems=[_system(name, own, present, root) for name, own in named.items()],
    )
    return report_page(page).encode("utf-8", "backslashreplace")


def _system(
    name: str, comparison: Comparison, present: NDArray[np.bool_], root: Path | None
) -> SystemOfReport:
    plain = Figures(comparison).plain()
    given = unpacked(comparison.packed, len(comparison.classes))
    false = given & (comparison.truth == NEGATIVE) & comparison.counted
    missed = ~given & (comparison.truth == POSITIVE) & comparison.counted
    precisions = [None if np.isnan(p) else round(float(p), 4) for p in comparison.precisions]
    return SystemOfReport(
        name=name,
        decided_by=comparison.decided_by,
        figures={figure: plain[figure] for figure in HEADLINES},
        precisions=precisions,
        pooled=_pooled_curve(comparison),
        curves=[_class_curve(comparison, c) if present[c] else [] for c in range(len(precisions))],
        false=_worst(comparison, false, -1, root),
        missed=_worst(comparison, missed, 1, root),
        confusions=_confusions(comparison.classes.names, false, missed),
    )


def _pooled_curve(comparison: Comparison) -> _Curve:
    """(recall, precision) of all decisions together, at scores that positives have."""
    of_positives = comparison.scores[comparison.truth == POSITIVE]
    candidates = np.unique(np.quantile(of_positives, np.linspace(0, 1, POOLED_POINTS)))
    candidates = candidates[candidates > comparison.score_of_none]
    counts = counts_at(comparison, candidates).among(comparison.counted).pooled
    return _points(counts.recall[:, 0], counts.precision[:, 0])


def _class_curve(comparison: Comparison, c: int) -> _Curve:
    truth = comparison.truth[:, c]
    ranking = rank(comparison.scores[:, c], truth, comparison.style)
    hits, seen = ranking.curve(np.ones((len(truth), 1), np.float32))
    places = np.unique(np.linspace(0, len(hits) - 1, CLASS_POINTS).astype(int))
    return _points((hits / hits[-1])[places, 0], (hits / seen)[places, 0])


def _points(recall: Floats, precision: Floats) -> _Curve:
    pairs = zip(recall.tolist(), precision.tolist(), strict=True)
    return sorted((round(r, 4), round(p, 4)) for r, p in pairs)


def _worst(
    comparison: Comparison, wrong: NDArray[np.bool_], sign: int, root: Path | None
) -> list[Mistake]:
    """The mistakes with the lowest `sign` times score, few of one class."""
    found = []
    for c in np.flatnonzero(wrong.any(axis=0)).tolist():
        rows = np.flatnonzero(wrong[:, c])
        order = np.argsort(sign * comparison.scores[rows, c], kind="stable")[:OF_A_CLASS]
        found += [(sign * float(comparison.scores[row, c]), int(row), c) for row in rows[order]]
    mistakes = []
    for value, row, c in sorted(found)[:MISTAKES]:
        photo = comparison.photos[row]
        true = np.flatnonzero(comparison.truth[row] == POSITIVE)
        names = [comparison.classes.names[t] for t in true.tolist()]
        record = Record({"image": photo.name}, base=root or photo.base)
        mistakes.append(Mistake(comparison.classes.names[c], sign * value, names, record))
    return mistakes


def _confusions(
    names: Sequence[str], false: NDArray[np.bool_], missed: NDArray[np.bool_]
) -> list[tuple[str, str, int]]:
    """(missed class, class given in its place, photos), the most frequent pairs."""
    wrongs = false.sum(axis=0) + missed.sum(axis=0)
    worst = np.argsort(-wrongs, kind="stable")[:MOST_CONFUSED]
    pairs = missed[:, worst].T.astype(np.float32) @ false[:, worst].astype(np.float32)
    order = np.argsort(-pairs, axis=None, kind="stable")[:CONFUSIONS]
    rows, columns = np.unravel_index(order, pairs.shape)
    return [
        (names[worst[a]], names[worst[b]], int(pairs[a, b]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
        if pairs[a, b] > 0
    ]
