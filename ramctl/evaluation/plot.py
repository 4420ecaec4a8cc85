"""A picture of an evaluation: precision against recall, and the average precision of each class."""

import io
from typing import Any

import numpy as np

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import UNKNOWN, Floats, rank

MAX_NAMES = 100  # of classes; more are a curve without names
MAX_POINTS = 1000  # of a curve


def plot(by_name: dict[str, Comparison], form: str) -> bytes:
    """Draw systems on the same photos, as a file of the format `png`, `svg` or `pdf`."""
    from matplotlib.figure import Figure

    n_classes = next(iter(by_name.values())).has_positives.sum()
    height = max(6.0, 0.2 * n_classes) if n_classes <= MAX_NAMES else 6.0
    figure = Figure(figsize=(12, height), layout="constrained")
    curves, classes = figure.subplots(1, 2)
    _draw_curves(curves, by_name)
    _draw_classes(classes, by_name)
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=150)
    return out.getvalue()


def _draw_curves(axes: Any, by_name: dict[str, Comparison]) -> None:
    """Of all classes together; the point is where the system's own decisions are."""
    for name, comparison in by_name.items():
        recall, precision = pooled_curve(comparison)
        figures = comparison.figures
        (line,) = axes.plot(recall, precision, label=f"{name} (mAP {figures['mAP']:.3f})")
        axes.plot(figures["OR"], figures["OP"], "o", color=line.get_color())
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    axes.set_aspect("equal", anchor="N")
    axes.set_title("All classes together (points: the given tags)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")


def pooled_curve(comparison: Comparison) -> tuple[Floats, Floats]:
    """Recall and precision of all decisions, as the threshold falls."""
    known = comparison.truth != UNKNOWN
    scores, truth = comparison.scores[known], comparison.truth[known]
    hits, photos = rank(scores, truth).curve(np.ones((len(truth), 1), np.uint8))
    places = np.unique(np.linspace(0, len(hits) - 1, MAX_POINTS).astype(int))
    return hits[places, 0] / hits[-1, 0], hits[places, 0] / photos[places, 0]


def _draw_classes(axes: Any, by_name: dict[str, Comparison]) -> None:
    """The average precision of the classes with positives, in the order of the first system's."""
    first = next(iter(by_name.values()))
    shown = np.flatnonzero(first.has_positives)
    order = shown[np.argsort(first.precisions[shown], kind="stable")]
    places = np.arange(len(order))
    for number, comparison in enumerate(by_name.values()):
        values = comparison.precisions[order]
        if len(order) <= MAX_NAMES:
            width = 0.8 / len(by_name)
            axes.barh(places + 0.4 - width * (number + 0.5), values, width)
        else:
            axes.plot(values, places, "." if number else "-", markersize=2)
    if len(order) <= MAX_NAMES:
        axes.set_yticks(places, [first.classes.names[c] for c in order])
    else:
        axes.set_ylabel("classes")
    axes.set(xlim=(0, 1), xlabel="average precision")
    axes.margins(y=0.01)
    axes.set_title(f"Average precision of {len(order)} classes")
    axes.grid(axis="x", alpha=0.3)
