"""All figures of a comparison: on its photos as they are, and on resamples of them.

`N` photos, `C` classes, `B` resamples, which are columns of photo weights [N, B].
"""

from functools import cached_property

import numpy as np

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import (
    NEGATIVE,
    POSITIVE,
    Counts,
    Decisions,
    Floats,
    Packed,
    Scores,
    Truth,
    mean_over_classes,
    ranked_precisions,
    resamples,
    row_blocks,
    unpacked,
)
from ramctl.records.record import JsonObject

OF_CLASSES = ("AP", "precision", "recall", "F1")
OF_DECISIONS = ("CP", "CR", "CF1", "macro.f1", "OP", "OR", "OF1")


def decision_figures(counts: Counts, averaged: Decisions, counted: Decisions) -> dict[str, Floats]:
    """Figures [...] of the right and wrong decisions [..., C], by the names in `OF_DECISIONS`.

    C: the mean over the classes `averaged` that have positives (`ram`: over all); O: pooled over
    all that are `counted`. CF1 is the harmonic mean of CP and CR, macro.f1 the mean of the F1.
    """
    has_positives = counts.true_positives + counts.false_negatives > 0
    over = averaged & (has_positives | (counts.style == "ram"))
    precision, recall, f1 = (
        mean_over_classes(np.where(over, values, np.nan))
        for values in (counts.precision, counts.recall, counts.f1)
    )
    pooled = counts.among(counted).pooled
    pooled_precision, pooled_recall = pooled.precision[..., 0], pooled.recall[..., 0]
    harmonic, pooled_f1 = (
        _harmonic_mean(*pair) for pair in ((precision, recall), (pooled_precision, pooled_recall))
    )
    values = (precision, recall, harmonic, f1, pooled_precision, pooled_recall, pooled_f1)
    return dict(zip(OF_DECISIONS, values, strict=True))


def _harmonic_mean(precision: Floats, recall: Floats) -> Floats:
    both = precision + recall
    product = np.asarray(2 * precision * recall)
    return np.divide(product, both, out=np.where(np.isnan(both), np.nan, 0.0), where=both > 0)


def top_decisions(scores: Scores, k: int, lowest: float) -> Packed:
    """The `k` highest scores of each photo, packed; of equal ones the first, none at `lowest`."""
    packed = np.empty((len(scores), -(-scores.shape[1] // 8)), np.uint8)
    for part in row_blocks(scores):
        block = scores[part]
        best = np.argsort(-block, axis=1, kind="stable")[:, :k]
        decided = np.zeros(block.shape, bool)
        np.put_along_axis(decided, best, True, axis=1)
        packed[part] = np.packbits(decided & (block > lowest), axis=1)
    return packed


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
        for some in np.array_split(
            np.arange(len(rows)), 1 + len(rows) * part_scores.shape[1] // 2**18
        ):
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
        decided = unpacked(packed[part], truth.shape[1])
        counts = Counts.of(decided.T, truth[part].T)
        columns.append((counts.precision, counts.recall, counts.f1))
    joined = (np.concatenate(values) for values in zip(*columns, strict=True))
    return dict(zip(("photo.precision", "photo.recall", "photo.f1"), joined, strict=True))


class Figures:
    """The figures of a comparison; `top` adds those of so many highest scores of each photo."""

    def __init__(self, comparison: Comparison, top: int | None = None) -> None:
        self.comparison, self.top = comparison, top
        self._decisions = {"": comparison.packed}
        if top is not None:
            lowest = comparison.score_of_none
            self._decisions[f"top_{top}."] = top_decisions(comparison.scores, top, lowest)

    @cached_property
    def _of_photos(self) -> dict[str, Floats]:
        comparison = self.comparison
        scores, truth = comparison.scores, comparison.truth
        if not comparison.counted.all():
            scores, truth = scores[:, comparison.counted], truth[:, comparison.counted]
        figures = {"LRAP": label_ranking(scores, truth)}
        return figures | photo_figures(comparison.packed, comparison.truth)

    def plain(self) -> dict[str, float]:
        """Each figure on the photos as they are."""
        comparison = self.comparison
        counts = {
            name: Counts.of_packed(packed, comparison.truth, comparison.style)
            for name, packed in self._decisions.items()
        }
        figures = self._means(comparison.ranked) | self._of_decisions(counts)
        figures |= {name: np.asarray(values.mean()) for name, values in self._of_photos.items()}
        return {name: float(value) for name, value in figures.items()}

    def resampled(self, seed: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Each figure [B], and those of every class [B, C] by `OF_CLASSES`, on resamples.

        A class without positives in a resample has no figures there.
        """
        comparison, rankings = self.comparison, self.comparison.rankings
        blocks, classwise = [], []
        for weights in resamples(len(comparison.photos), seed):
            ranked = ranked_precisions(rankings, weights)
            figures = self._means(ranked)
            counts = {
                name: Counts.of_packed(packed, comparison.truth, comparison.style, weights)
                for name, packed in self._decisions.items()
            }
            figures |= self._of_decisions(counts)
            fractions = weights / np.float64(len(comparison.photos))
            figures |= {name: values @ fractions for name, values in self._of_photos.items()}
            blocks.append(figures)
            decided = counts[""]
            has_positives = decided.true_positives + decided.false_negatives > 0
            of_decisions = (
                np.where(has_positives, values, np.nan)
                for values in (decided.precision, decided.recall, decided.f1)
            )
            of_classes = (comparison.with_unknown_counted(ranked), *of_decisions)
            classwise.append(dict(zip(OF_CLASSES, of_classes, strict=True)))
        return _concatenated(blocks), _concatenated(classwise)

    def _of_decisions(self, counts: dict[str, Counts]) -> dict[str, Floats]:
        """The figures of each kind of decisions; those of the highest scores have its prefix."""
        comparison, figures = self.comparison, {}
        for prefix, own in counts.items():
            for name, value in decision_figures(
                own, comparison.is_averaged, comparison.counted
            ).items():
                figures[prefix + name.replace(".", "_") if prefix else name] = value
        return figures

    def _means(self, ranked: Floats) -> dict[str, Floats]:
        comparison = self.comparison
        variants = {
            "mAP": comparison.with_unknown_counted(ranked),
            "mAP_unknown_left_out": comparison.with_unknown(ranked, np.nan),
            "mAP_unknown_zero": comparison.with_unknown(ranked, 0.0),
        }
        return {name: mean_over_classes(values) for name, values in variants.items()}


def _concatenated(blocks: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


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
