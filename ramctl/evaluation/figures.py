"""All figures of a comparison, their bootstrap intervals, and the differences between systems.

`N` photos, `C` classes, `B` resamples, which are columns of photo weights [N, B].
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import (
    Counts,
    Floats,
    interval,
    mean_over_classes,
    rank_classes,
    ranked_precisions,
    resamples,
)
from ramctl.records.record import JsonObject

# A difference of this many standard errors is detected in 80 of 100 tries, by a two-sided 5 % test.
DETECTABLE = 1.960 + 0.842


def decision_figures(counts: Counts) -> dict[str, Floats]:
    """The figures [...] of decisions [..., C], by their names.

    C: the mean over the classes that have positives; O: pooled over all. CF1 is the harmonic mean
    of CP and CR, macro.f1 the mean of the classes' F1.
    """
    over = counts.true_positives + counts.false_negatives > 0
    precision, recall, f1 = (
        mean_over_classes(np.where(over, values, np.nan))
        for values in (counts.precision, counts.recall, counts.f1)
    )
    pooled = counts.pooled
    pooled_precision, pooled_recall = pooled.precision[..., 0], pooled.recall[..., 0]
    return {
        "CP": precision, "CR": recall, "CF1": _harmonic_mean(precision, recall), "macro.f1": f1,
        "OP": pooled_precision, "OR": pooled_recall,
        "OF1": _harmonic_mean(pooled_precision, pooled_recall),
    }  # fmt: skip


def _harmonic_mean(precision: Floats, recall: Floats) -> Floats:
    both = precision + recall
    product = np.asarray(2 * precision * recall)
    return np.divide(product, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)


def plain_figures(comparison: Comparison) -> dict[str, float]:
    """The figures on all photos."""
    figures = _class_figures(comparison, comparison.ranked, comparison.counts)
    figures |= {name: values.mean() for name, values in comparison.photo_figures.items()}
    return {name: float(value) for name, value in figures.items()}


def resampled_figures(comparison: Comparison, seed: int) -> tuple[dict[str, Floats], Floats]:
    """The figures [B], and the average precision of each class [B, C], on resamples."""
    rankings = rank_classes(comparison.scores, comparison.truth)
    blocks, classwise = [], []
    for weights in resamples(len(comparison.photos), seed):
        ranked = ranked_precisions(rankings, weights)
        counts = Counts.from_packed(comparison.packed, comparison.truth, weights)
        fractions = weights / np.float64(len(comparison.photos))
        figures = _class_figures(comparison, ranked, counts)
        figures |= {name: values @ fractions for name, values in comparison.photo_figures.items()}
        blocks.append(figures)
        classwise.append(comparison.fill_unknown(ranked))
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return joined, np.concatenate(classwise)


def _class_figures(comparison: Comparison, ranked: Floats, counts: Counts) -> dict[str, Floats]:
    """The figures of average precisions [..., C] and of decisions."""
    all_classes = comparison.fill_unknown(ranked)
    known_classes = comparison.fill_unknown(ranked, np.nan)
    means = {"mAP": mean_over_classes(all_classes), "mAP_known": mean_over_classes(known_classes)}
    return means | decision_figures(counts)


def nested(figures: dict[str, float]) -> JsonObject:
    """The figures as the result shows them: those with a dot in their name in a group."""
    result: JsonObject = {}
    for name, value in figures.items():
        group, dot, rest = name.partition(".")
        if dot:
            result.setdefault(group, {})[rest] = value
        else:
            result[name] = value
    macro = {"precision": figures["CP"], "recall": figures["CR"], "f1": figures["macro.f1"]}
    micro = {"precision": figures["OP"], "recall": figures["OR"], "f1": figures["OF1"]}
    return result | {"macro": macro, "micro": micro}


def compare_systems(by_name: dict[str, Comparison], seed: int) -> JsonObject:
    """The figures of each system on the same photos, and of each pair the differences.

    These are paired: all systems see the same resamples.
    """
    plain, resampled = {}, {}
    for name, comparison in by_name.items():
        plain[name] = plain_figures(comparison)
        resampled[name], _ = resampled_figures(comparison, seed)
    differences: list[JsonObject] = [
        {
            "systems": [first, second],
            **{
                figure: paired_difference(
                    plain[first][figure] - plain[second][figure],
                    resampled[first][figure] - resampled[second][figure],
                )
                for figure in plain[first]
            },
        }
        for first, second in combinations(by_name, 2)
    ]
    for figure in next(iter(plain.values())):
        adjusted = holm([difference[figure]["p"] for difference in differences])
        for difference, p in zip(differences, adjusted, strict=True):
            difference[figure]["p_holm"] = p
    return {
        "photos": len(next(iter(by_name.values())).photos),
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


def group_figures(
    comparison: Comparison, groups: dict[str, list[int]], resampled: Floats | None
) -> JsonObject:
    """mAP of each group of classes, with its interval where there are resamples."""
    figures = {}
    for name, ids in groups.items():
        mean = float(mean_over_classes(comparison.precisions[ids]))
        averaged = int(comparison.has_positives[ids].sum())
        figure: JsonObject = {"mAP": mean, "classes": len(ids), "averaged_classes": averaged}
        if resampled is not None:
            figure["mAP_ci"] = interval(mean, mean_over_classes(resampled[:, ids]))
        figures[name] = figure
    return figures
