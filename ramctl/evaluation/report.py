"""The page of a comparison: figures, curves, classes, worst mistakes, confusions.

One file that shows everything without a network. `N` photos, `C` classes, `K` candidates.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramctl.errors import RecordProblem, attempt
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import Figures
from ramctl.evaluation.metrics import (
    NEGATIVE,
    POSITIVE,
    Counts,
    Decisions,
    Floats,
    Scores,
    rank,
    unpacked,
)
from ramctl.pages import Thumbnail, render, thumbnail
from ramctl.records.record import JsonObject, Record

HEADLINES = ("mAP", "CP", "CR", "CF1", "macro.f1", "OP", "OR", "OF1", "LRAP")
POOLED_POINTS, CLASS_POINTS = 100, 24  # of a curve
MISTAKES, OF_A_CLASS = 24, 2
CONFUSIONS, MOST_CONFUSED = 20, 1000
THUMBNAIL_PX = 200  # the longer side
QUALITY = 60
_Curve = list[tuple[float, float]]


class Mistake(NamedTuple):
    """A class that is wrongly given, or missed, and the photo's true ones."""

    name: str
    score: float
    true: Sequence[str]
    image: str
    thumbnail: Thumbnail | None  # None: the photo cannot be read


def report_page(
    title: str,
    named: dict[str, Comparison],
    root: Path | None,
    intervals: dict[str, Sequence[float] | None],
) -> bytes:
    """The page of systems' comparisons on the same photos; `intervals` are those of the first.

    `title` names the set of photos, which are looked for in `root`, else where the truth says.
    """
    first = next(iter(named.values()))
    names = first.classes.names
    systems = [_system(name, own, root) for name, own in named.items()]
    charts = ("name", "precisions", "pooled", "curves")
    page = render(
        "report.html",
        title=title,
        n_photos=len(first.photos),
        n_classes=len(names),
        intervals={name: ends for name, ends in intervals.items() if name in HEADLINES},
        systems=systems,
        data={
            "classes": names,
            "positives": (first.truth == POSITIVE).sum(axis=0).tolist(),
            "systems": [{key: system[key] for key in charts} for system in systems],
        },
    )
    return page.encode("utf-8", "backslashreplace")


def _system(name: str, comparison: Comparison, root: Path | None) -> JsonObject:
    plain = Figures(comparison).plain()
    decided = unpacked(comparison.packed, len(comparison.classes))
    false = decided & (comparison.truth == NEGATIVE) & comparison.known
    missed = ~decided & (comparison.truth == POSITIVE) & comparison.known
    precisions = [None if np.isnan(p) else round(float(p), 4) for p in comparison.precisions]
    # The curve of all decisions together is at scores that positives have.
    of_positives = comparison.scores[comparison.truth == POSITIVE]
    candidates = np.unique(np.quantile(of_positives, np.linspace(0, 1, POOLED_POINTS)))
    candidates = candidates[candidates > comparison.score_of_none]
    pooled = counts_at(comparison, candidates).pooled
    return {
        "name": name,
        "decided_by": comparison.decided_by,
        "figures": {figure: plain[figure] for figure in HEADLINES},
        "precisions": precisions,
        "pooled": _points(pooled.recall[:, 0], pooled.precision[:, 0]),
        "curves": [_class_curve(comparison, c) for c in range(len(precisions))],
        "false": _worst(comparison, false, -1, root),
        "missed": _worst(comparison, missed, 1, root),
        "confusions": _confusions(comparison.classes.names, false, missed),
    }


def counts_at(comparison: Comparison, candidates: Scores) -> Counts:
    """The counts [K, C] of what scores at least as much as each candidate."""
    right, false, missed = np.zeros((3, len(candidates), len(comparison.classes)))
    for c in range(len(comparison.classes)):
        scores, truth = comparison.scores[:, c], comparison.truth[:, c]
        right[:, c] = _at_least(scores[truth == POSITIVE], candidates)
        false[:, c] = _at_least(scores[truth == NEGATIVE], candidates)
        missed[:, c] = (truth == POSITIVE).sum() - right[:, c]
    return Counts(right, false, missed, comparison.style)


def _at_least(scores: Scores, candidates: Scores) -> Floats:
    """How many of the scores are at least as high as each candidate [K]."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates), np.float64)


def _class_curve(comparison: Comparison, c: int) -> _Curve:
    truth = comparison.truth[:, c]
    if not comparison.has_positives[c]:
        return []
    ranking = rank(comparison.scores[:, c], truth, comparison.style)
    hits, seen = ranking.curve(np.ones((len(truth), 1), np.float32))
    places = np.unique(np.linspace(0, len(hits) - 1, CLASS_POINTS).astype(int))
    return _points((hits / hits[-1])[places, 0], (hits / seen)[places, 0])


def _points(recall: Floats, precision: Floats) -> _Curve:
    """(recall, precision) of each point, along the curve."""
    pairs = zip(recall.tolist(), precision.tolist(), strict=True)
    return sorted((round(r, 4), round(p, 4)) for r, p in pairs)


def _worst(comparison: Comparison, wrong: Decisions, sign: int, root: Path | None) -> list[Mistake]:
    """The mistakes with the lowest `sign` times score, few of one class."""
    names, cells = comparison.classes.names, []
    for c in np.flatnonzero(wrong.any(axis=0)).tolist():
        rows = np.flatnonzero(wrong[:, c])
        order = np.argsort(sign * comparison.scores[rows, c], kind="stable")[:OF_A_CLASS]
        cells += [(sign * float(comparison.scores[row, c]), int(row), c) for row in rows[order]]
    mistakes = []
    for value, row, c in sorted(cells)[:MISTAKES]:
        photo = comparison.photos[row]
        true = [names[t] for t in np.flatnonzero(comparison.truth[row] == POSITIVE).tolist()]
        picture = _picture(root or photo.base, photo.name)
        mistakes.append(Mistake(names[c], sign * value, true, photo.name, picture))
    return mistakes


@cache  # a photo may show several mistakes, of several systems
def _picture(base: Path, name: str) -> Thumbnail | None:
    picture = attempt(thumbnail, Record({"image": name}, base=base), THUMBNAIL_PX, QUALITY)
    return None if isinstance(picture, RecordProblem) else picture


def _confusions(
    names: Sequence[str], false: Decisions, missed: Decisions
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
