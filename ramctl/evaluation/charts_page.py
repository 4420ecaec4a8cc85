"""The HTML page of an evaluation: figures, curves, classes, worst mistakes, confusions.

It is one file that needs no network. `N` photos, `C` classes, `K` thresholds.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramctl.errors import RecordProblem, attempt
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import plain_figures
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
MAX_MISTAKES, MAX_PER_CLASS = 24, 2
MAX_CONFUSIONS, MAX_CONFUSED_CLASSES = 20, 1000
THUMBNAIL_PX = 200  # the longer side
QUALITY = 60
_Curve = list[tuple[float, float]]


class Mistake(NamedTuple):
    """A class that was wrongly predicted or missed, and the photo's true classes."""

    name: str
    score: float
    true: Sequence[str]
    image: str
    thumbnail: Thumbnail | None  # None where the photo cannot be read


def report_page(
    title: str,
    by_name: dict[str, Comparison],
    root: Path | None,
    intervals: dict[str, Sequence[float] | None],
) -> bytes:
    """Render the page of several systems on the same photos, with the `intervals` of the first.

    `title` names the set. Photos are read from `root`, else from where the truth has them.
    """
    first = next(iter(by_name.values()))
    names = first.classes.names
    systems = [_system(name, comparison, root) for name, comparison in by_name.items()]
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
    plain = plain_figures(comparison)
    decided = unpacked(comparison.packed, len(comparison.classes))
    false = decided & (comparison.truth == NEGATIVE) & comparison.known
    missed = ~decided & (comparison.truth == POSITIVE) & comparison.known
    precisions = [None if np.isnan(p) else round(float(p), 4) for p in comparison.precisions]
    # The points of the curve of all decisions together are at the scores of positives.
    positives = comparison.scores[comparison.truth == POSITIVE]
    candidates = np.unique(np.quantile(positives, np.linspace(0, 1, POOLED_POINTS)))
    candidates = candidates[candidates > comparison.missing_score]
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
    """Count decisions [K, C] where each candidate in turn is the threshold, included."""
    right, false, missed = np.zeros((3, len(candidates), len(comparison.classes)))
    for c in range(len(comparison.classes)):
        scores, truth = comparison.scores[:, c], comparison.truth[:, c]
        right[:, c] = _at_least(scores[truth == POSITIVE], candidates)
        false[:, c] = _at_least(scores[truth == NEGATIVE], candidates)
        missed[:, c] = (truth == POSITIVE).sum() - right[:, c]
    return Counts(right, false, missed)


def _at_least(scores: Scores, candidates: Scores) -> Floats:
    """Count the scores that are at least as high as each candidate [K]."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), candidates), np.float64)


def _class_curve(comparison: Comparison, c: int) -> _Curve:
    truth = comparison.truth[:, c]
    if not comparison.has_positives[c]:
        return []
    ranking = rank(comparison.scores[:, c], truth)
    hits, photos = ranking.curve(np.ones((len(truth), 1), np.float32))
    places = np.unique(np.linspace(0, len(hits) - 1, CLASS_POINTS).astype(int))
    return _points((hits / hits[-1])[places, 0], (hits / photos)[places, 0])


def _points(recall: Floats, precision: Floats) -> _Curve:
    """Round the points (recall, precision) and sort them along the curve."""
    pairs = zip(recall.tolist(), precision.tolist(), strict=True)
    return sorted((round(r, 4), round(p, 4)) for r, p in pairs)


def _worst(comparison: Comparison, wrong: Decisions, sign: int, root: Path | None) -> list[Mistake]:
    """The mistakes with the lowest `sign` times score, at most some per class."""
    names, cells = comparison.classes.names, []
    for c in np.flatnonzero(wrong.any(axis=0)).tolist():
        rows = np.flatnonzero(wrong[:, c])
        order = np.argsort(sign * comparison.scores[rows, c], kind="stable")[:MAX_PER_CLASS]
        cells += [(sign * float(comparison.scores[row, c]), int(row), c) for row in rows[order]]
    mistakes = []
    for value, row, c in sorted(cells)[:MAX_MISTAKES]:
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
    """The most frequent pairs: (missed class, class predicted instead, number of photos)."""
    wrongs = false.sum(axis=0) + missed.sum(axis=0)
    worst = np.argsort(-wrongs, kind="stable")[:MAX_CONFUSED_CLASSES]
    pairs = missed[:, worst].T.astype(np.float32) @ false[:, worst].astype(np.float32)
    order = np.argsort(-pairs, axis=None, kind="stable")[:MAX_CONFUSIONS]
    rows, columns = np.unravel_index(order, pairs.shape)
    return [
        (names[worst[a]], names[worst[b]], int(pairs[a, b]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
        if pairs[a, b] > 0
    ]
