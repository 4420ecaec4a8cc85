"""All figures of a comparison: on its photos as they are, and on resamples of them.

`N` photos, `C` classes, `B` resamples, which are columns of photo weights [N, B].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ramctl.evaluation.comparison import Bootstrap, Comparison
from ramctl.evaluation.metrics import (
    NEGATIVE,
    POSITIVE,
    Counts,
    Decisions,
    Floats,
    Scores,
    Style,
    Truth,
    Weights,
    average_precisions,
    mean_over_classes,
    resamples,
    row_blocks,
)
from ramctl.records.record import JsonObject

Packed = NDArray[np.uint8]  # decisions, eight classes to a byte
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


def unpacked(packed: Packed, n_classes: int) -> Decisions:
    """Decisions [N, C] of eight classes to a byte."""
    return np.unpackbits(packed, axis=1, count=n_classes).view(np.bool_)


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

    The mean over its true tags of the share of true tags among those that score as much; 1 without
    true tags. Unknown cells do not count.
    """
    found = np.ones(len(scores))
    for part in row_blocks(scores):
        own, true = scores[part], truth[part]
        rows, classes = np.nonzero(true == POSITIVE)
        if not len(rows):
            continue
        share = np.empty(len(rows))
        for some in np.array_split(np.arange(len(rows)), 1 + len(rows) * own.shape[1] // 2**18):
            at_least = own[rows[some]] >= own[rows[some], classes[some]][:, None]
            right = at_least & (true[rows[some]] == POSITIVE)
            wrong = at_least & (true[rows[some]] == NEGATIVE)
            share[some] = right.sum(axis=1) / (right.sum(axis=1) + wrong.sum(axis=1))
        n_true = np.bincount(rows, minlength=len(own))
        sums = np.bincount(rows, share, minlength=len(own))
        found[part] = np.where(n_true > 0, sums / np.maximum(n_true, 1), 1.0)
    return found


def photo_figures(packed: Packed, truth: Truth) -> dict[str, Floats]:
    """Precision, recall and F1 of each photo's tags [N]; 0 where there is nothing to divide by."""
    columns = []
    for part in row_blocks(truth):
        decided = unpacked(packed[part], truth.shape[1])
        counts = Counts.of(decided.T, truth[part].T)
        columns.append((counts.precision, counts.recall, counts.f1))
    joined = (np.concatenate(values) for values in zip(*columns, strict=True))
    return dict(zip(("photo.precision", "photo.recall", "photo.f1"), joined, strict=True))


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells (photo, class), class by class: the photos, and where each class starts [C + 1]."""

    photos: NDArray[np.int64]
    starts: NDArray[np.intp]

    def sums(self, weights: Weights) -> Floats:
        """How many cells each class has [B, C] when photos count by weights [N, B]."""
        ends = zip(self.starts[:-1], self.starts[1:], strict=True)
        return np.array([weights[self.photos[a:b]].sum(axis=0) for a, b in ends], np.float64).T


def _cells(packed: Packed, truth: Truth, style: Style) -> Iterator[_Cells]:
    """The cells of true positives, false positives and false negatives."""
    for is_given, value in ((True, POSITIVE), (True, NEGATIVE), (False, POSITIVE)):
        found = []
        for part in row_blocks(truth):
            given = unpacked(packed[part], truth.shape[1]) == is_given
            found.append(np.argwhere(given & (truth[part] == value)) + np.array([part.start, 0]))
        photos, classes = np.concatenate(found).T
        order = np.argsort(classes, kind="stable")
        starts = np.searchsorted(classes[order], np.arange(truth.shape[1] + 1))
        yield _Cells(photos[order], starts)


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
        ours = self.comparison
        scores, truth = ours.scores, ours.truth
        if not ours.counted.all():
            scores, truth = scores[:, ours.counted], truth[:, ours.counted]
        figures = {"LRAP": label_ranking(scores, truth)}
        return figures | photo_figures(ours.packed, ours.truth)

    def plain(self) -> dict[str, float]:
        """Each figure on the photos as they are."""
        ours = self.comparison
        figures = self._means(ours.ranked)
        for name, packed in self._decisions.items():
            counts = Counts.of_packed(packed, ours.truth, ours.style)
            found = decision_figures(counts, ours.is_averaged, ours.counted)
            figures |= {_joined(name, figure): value for figure, value in found.items()}
        figures |= {name: np.asarray(values.mean()) for name, values in self._of_photos.items()}
        return {name: float(value) for name, value in figures.items()}

    def resampled(self, bootstrap: Bootstrap) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Each figure [B], and those of every class [B, C] by `OF_CLASSES`, on resamples.

        A class without positives in a resample has no figures there.
        """
        ours, rankings = self.comparison, self.comparison.rankings
        cells = {
            name: list(_cells(packed, ours.truth, ours.style))
            for name, packed in self._decisions.items()
        }
        blocks, classwise = [], []
        for weights in resamples(len(ours.photos), bootstrap.n, bootstrap.seed):
            columns = [average_precisions(ranking, weights) for ranking in rankings]
            ranked = np.stack(columns, axis=1)
            figures = self._means(ranked)
            tallies = {}
            for name, kinds in cells.items():
                right, false, missed = (kind.sums(weights) for kind in kinds)
                tallies[name] = Counts(right, false, missed, ours.style)
            for name, counts in tallies.items():
                found = decision_figures(counts, ours.is_averaged, ours.counted)
                figures |= {_joined(name, figure): value for figure, value in found.items()}
            share = weights / np.float64(len(ours.photos))
            figures |= {name: values @ share for name, values in self._of_photos.items()}
            blocks.append(figures)
            own = tallies[""]
            has_positives = own.true_positives + own.false_negatives > 0
            of_decisions = (
                np.where(has_positives, values, np.nan)
                for values in (own.precision, own.recall, own.f1)
            )
            of_classes = (ours.with_unknown_counted(ranked), *of_decisions)
            classwise.append(dict(zip(OF_CLASSES, of_classes, strict=True)))
        return _concatenated(blocks), _concatenated(classwise)

    def _means(self, ranked: Floats) -> dict[str, Floats]:
        ours = self.comparison
        variants = {
            "mAP": ours.with_unknown_counted(ranked),
            "mAP_unknown_left_out": ours.with_unknown(ranked, np.nan),
            "mAP_unknown_zero": ours.with_unknown(ranked, 0.0),
        }
        return {name: mean_over_classes(values) for name, values in variants.items()}


def _concatenated(blocks: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _joined(group: str, figure: str) -> str:
    return group + figure.replace(".", "_") if group else figure


def nested(figures: dict[str, float]) -> JsonObject:
    """The figures as the result shows them: those with a dot in their name in a group."""
    found: JsonObject = {}
    for name, value in figures.items():
        group, dot, rest = name.partition(".")
        if dot:
            found.setdefault(group, {})[rest] = value
        else:
            found[name] = value
    macro = {"precision": figures["CP"], "recall": figures["CR"], "f1": figures["macro.f1"]}
    micro = {"precision": figures["OP"], "recall": figures["OR"], "f1": figures["OF1"]}
    return found | {"macro": macro, "micro": micro}
