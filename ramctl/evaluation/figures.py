"""All figures of a comparison, on its photos and on resamples of them; how systems differ in them.

`N` photos, `C` classes, `B` resamples, which are columns of photo weights [N, B].
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import combinations

import numpy as np

from ramctl.evaluation.comparison import Comparison, on_equal_terms
from ramctl.evaluation.metrics import (
    NEGATIVE,
    POSITIVE,
    Counts,
    Floats,
    Packed,
    Scores,
    Truth,
    interval,
    mean_over_classes,
    rank_classes,
    ranked_precisions,
    resamples,
    row_blocks,
    unpacked,
)
from ramctl.records.record import JsonObject

# Standard errors of a difference that is detected in 80 of 100 tries, at 5 % on both sides.
DETECTABLE = 1.960 + 0.842
OF_DECISIONS = ("CP", "CR", "CF1", "macro.f1", "OP", "OR", "OF1")


def decision_figures(counts: Counts) -> dict[str, Floats]:
    """Figures [...] of the right and wrong decisions [..., C], by the names in `OF_DECISIONS`.

    C: the mean over the classes that have positives (`ram`: over all); O: pooled over all. CF1 is
    the harmonic mean of CP and CR, macro.f1 the mean of the F1.
    """
    over = (counts.true_positives + counts.false_negatives > 0) | (counts.style == "ram")
    precision, recall, f1 = (
        mean_over_classes(np.where(over, values, np.nan))
        for values in (counts.precision, counts.recall, counts.f1)
    )
    pooled = counts.pooled
    pooled_precision, pooled_recall = pooled.precision[..., 0], pooled.recall[..., 0]
    harmonic = _harmonic_mean(precision, recall)
    pooled_f1 = _harmonic_mean(pooled_precision, pooled_recall)
    values = (precision, recall, harmonic, f1, pooled_precision, pooled_recall, pooled_f1)
    return dict(zip(OF_DECISIONS, values, strict=True))


def _harmonic_mean(precision: Floats, recall: Floats) -> Floats:
    both = precision + recall
    product = np.asarray(2 * precision * recall)
    return np.divide(product, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)


def label_ranking(scores: Scores, truth: Truth) -> Floats:
    """The label ranking average precision of each photo [N], as scikit-learn has it.

    The mean over its true tags of the fraction of true tags among those that score as much; 1
    without true tags. Unknown cells do not count.
    """
    precisions = np.ones(len(scores))
    for part in row_blocks(scores):
        part_scores, true = scores[part], truth[part]
        rows, classes = np.nonzero(true == POSITIVE)
        if not len(rows):
            continue
        fractions = np.empty(len(rows))
        n_parts = 1 + len(rows) * part_scores.shape[1] // 2**18
        for some in np.array_split(np.arange(len(rows)), n_parts):
            at_least = part_scores[rows[some]] >= part_scores[rows[some], classes[some]][:, None]
            right = at_least & (true[rows[some]] == POSITIVE)
            wrong = at_least & (true[rows[some]] == NEGATIVE)
            fractions[some] = right.sum(axis=1) / (right.sum(axis=1) + wrong.sum(axis=1))
        n_true = np.bincount(rows, minlength=len(part_scores))
        sums = np.bincount(rows, fractions, minlength=len(part_scores))
        precisions[part] = np.where(n_true > 0, sums / np.maximum(n_true, 1), 1.0)
    return precisions


def photo_figures(packed: Packed, truth: Truth) -> dict[str, Floats]:
    """Precision, recall and F1 of each photo's tags [N]; 0 where there is nothing to divide by."""
    columns = []
    for part in row_blocks(truth):
        decided, true = unpacked(packed[part], truth.shape[1]), truth[part] == POSITIVE
        kinds = (decided & true, decided & (truth[part] == NEGATIVE), ~decided & true)
        counts = Counts(*(cells.sum(axis=1, dtype=np.float64) for cells in kinds))
        columns.append((counts.precision, counts.recall, counts.f1))
    joined = (np.concatenate(values) for values in zip(*columns, strict=True))
    return dict(zip(("photo.precision", "photo.recall", "photo.f1"), joined, strict=True))


class Figures:
    """The figures of a comparison."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    @cached_property
    def _of_photos(self) -> dict[str, Floats]:
        comparison = self._comparison
        of_tags = photo_figures(comparison.packed, comparison.truth)
        return {"LRAP": label_ranking(comparison.scores, comparison.truth)} | of_tags

    def plain(self) -> dict[str, float]:
        """Each figure on the photos as they are."""
        figures = self._figures(self._comparison.ranked, self._comparison.counts)
        figures |= {name: np.asarray(values.mean()) for name, values in self._of_photos.items()}
        return {name: float(value) for name, value in figures.items()}

    def resampled(self, seed: int) -> tuple[dict[str, Floats], Floats]:
        """Each figure [B], and the average precision of every class [B, C], on resamples."""
        comparison = self._comparison
        style, truth = comparison.style, comparison.truth
        rankings = rank_classes(comparison.scores, truth, style)
        blocks, classwise = [], []
        for weights in resamples(len(comparison.photos), seed):
            ranked = ranked_precisions(rankings, weights)
            counts = Counts.of_packed(comparison.packed, truth, style, weights)
            fractions = weights / np.float64(len(comparison.photos))
            of_photos = {name: values @ fractions for name, values in self._of_photos.items()}
            blocks.append(self._figures(ranked, counts) | of_photos)
            classwise.append(comparison.with_unknown(ranked))
        figures = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        return figures, np.concatenate(classwise)

    def _figures(self, ranked: Floats, counts: Counts) -> dict[str, Floats]:
        """Those of rankings and of decisions: not those of photos."""
        of_all = self._comparison.with_unknown(ranked)
        of_known = self._comparison.with_unknown(ranked, np.nan)
        means = {"mAP": mean_over_classes(of_all), "mAP_known": mean_over_classes(of_known)}
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


def compare_systems(named: dict[str, Comparison], seed: int) -> JsonObject:
    """The figures of each system on the photos of all, and of each pair the differences.

    These are paired: all systems see the same resamples. RunProblem without a shared photo.
    """
    compared = on_equal_terms(list(named.values()))
    plain, resampled = {}, {}
    for name, comparison in zip(named, compared, strict=True):
        figures = Figures(comparison)
        plain[name], (resampled[name], _) = figures.plain(), figures.resampled(seed)
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
        for one, other in combinations(named, 2)
    ]
    for figure in next(iter(plain.values())):
        adjusted = holm([difference[figure]["p"] for difference in differences])
        for difference, p in zip(differences, adjusted, strict=True):
            difference[figure]["p_holm"] = p
    return {
        "photos": len(compared[0].photos),
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
