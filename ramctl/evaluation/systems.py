"""Systems on the same photos, and groups of classes: what each scores, and how they differ."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ramctl.evaluation.comparison import Comparison, on_equal_terms
from ramctl.evaluation.figures import Figures, nested
from ramctl.evaluation.metrics import Floats, interval, mean_over_classes
from ramctl.records.record import JsonObject

# Standard errors of a difference that is detected in 80 of 100 tries, at 5 % on both sides.
DETECTABLE = 1.960 + 0.842


def compare_systems(named: dict[str, Comparison], seed: int, top: int | None) -> JsonObject:
    """The figures of each system on the photos of all, and of each pair the differences.

    These are paired: all systems see the same resamples. RunProblem without a shared photo.
    """
    compared = on_equal_terms(list(named.values()))
    plain, resampled = {}, {}
    for name, comparison in zip(named, compared, strict=True):
        figures = Figures(comparison, top)
        plain[name], (resampled[name], _) = figures.plain(), figures.resampled(seed)
    pairs = list(combinations(named, 2))
    differences: list[JsonObject] = [
        {
            "systems": [one, other],
            **{
                figure: paired_difference(
                    plain[one][figure] - plain[other][figure],
                    resampled[one][figure] - resampled[other][figure],
                )
                for figure in plain[one]
            },
        }
        for one, other in pairs
    ]
    for figure in next(iter(plain.values())):
        adjusted = holm([difference[figure]["p"] for difference in differences])
        for difference, p in zip(differences, adjusted, strict=True):
            difference[figure]["p_holm"] = p
    return {
        "photos": len(compared[0].photos),
        "unknown_classes": compared[0].unknown_classes,
        "systems": {
            name: nested(figures) | {"ci": intervals(figures, resampled[name])}
            for name, figures in plain.items()
        },
        "differences": differences,
    }


def paired_difference(difference: float, resampled: Floats) -> JsonObject:
    """A difference, its interval, its p-value, and what could be detected.

    `detectable` is the smallest difference that this many photos detect in 80 of 100 tries.
    """
    values = resampled[~np.isnan(resampled)]
    values = values - (values.mean() - difference if len(values) else 0)
    tails = 1 + np.array([(values <= 0).sum(), (values >= 0).sum()])
    return {
        "difference": difference,
        "ci": interval(difference, resampled, lowest=-1.0),
        "p": float(min(1.0, 2 * tails.min() / (len(values) + 1))),
        "detectable": float(DETECTABLE * values.std()) if len(values) else None,
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: each as large as those of all smaller ones."""
    order = np.argsort(p_values)
    steps = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * steps), 1.0)
    return [float(p) for p in adjusted]


def intervals(plain: dict[str, float], resampled: dict[str, Floats]) -> JsonObject:
    """The interval of each figure."""
    return {name: interval(value, resampled[name]) for name, value in plain.items()}


def difference(one: Comparison, other: Comparison, seed: int) -> JsonObject:
    """The difference of two models' mAP on the photos of both, on the same resamples (paired)."""
    one_names, other_names = ({photo.name for photo in side.photos} for side in (one, other))
    one, other = on_equal_terms([one, other])
    here, there = (float(mean_over_classes(side.precisions)) for side in (one, other))
    resampled = [mean_over_classes(side.resampled(seed)) for side in (one, other)]
    return {
        "mAP": there,
        "mAP_here": here,
        "difference": here - there,
        "difference_ci": interval(here - there, resampled[0] - resampled[1], lowest=-1.0),
        "photos": len(one.photos),
        "only_in_one": len(one_names ^ other_names),
    }


def group_figures(
    comparison: Comparison, groups: dict[str, list[int]], resampled: Floats | None
) -> JsonObject:
    """mAP of each named group of classes, with its interval where there are resamples."""
    figures = {}
    for name, ids in groups.items():
        mean = float(mean_over_classes(comparison.precisions[ids]))
        averaged = int(comparison.is_averaged[ids].sum())
        figure: JsonObject = {"mAP": mean, "classes": len(ids), "averaged_classes": averaged}
        if resampled is not None:
            figure["mAP_ci"] = interval(mean, mean_over_classes(resampled[:, ids]))
        figures[name] = figure
    return figures
