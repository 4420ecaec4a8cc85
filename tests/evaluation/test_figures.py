"""Every figure against an implementation of its own, scikit-learn, and repeated photos."""

import os
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from ramctl.classes import Classes
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import plain_figures, resampled_precisions
from ramctl.evaluation.metrics import resamples
from ramctl.labels import Labels

CASES = int(os.environ.get("RAMCTL_CASES", "2000"))  # RAMCTL_CASES=200000 is the long form


def comparison(scores, truth, decided, known=None):
    n_photos, n_classes = truth.shape
    known = np.ones(n_classes, bool) if known is None else known
    return Comparison(
        classes=Classes(Labels.from_tags(f"c{c}" for c in range(n_classes)), None, {}),
        photos=list(map(str, range(n_photos))),
        truth=truth, scores=scores, decided=decided, decided_by="a test",
        known=known, missing_score=0.0, labels_are_stated=True, matched_by=Counter(),
        only_in_truth=[], only_in_predictions=[],
    )  # fmt: skip


def draw(random, most_photos=9, most_classes=5):
    """A few photos and classes, with ties, unknown cells and classes without positives."""
    shape = random.integers(1, most_photos), random.integers(1, most_classes)
    scores = np.round(random.random(shape), random.integers(1, 4)).astype(np.float32)
    lowest = -1 if random.random() < 0.5 else 0
    truth = np.where(random.random(shape) < 0.4, 1, random.integers(lowest, 1, shape))
    return scores, truth.astype(np.int8), random.random(shape) < 0.4


def share(part, whole):
    return part / whole if whole else 0.0


def plainly(scores, truth, decided):
    """The figures by counting, cell for cell."""
    n_photos, n_classes = truth.shape
    cells = [
        (n, c, scores[n, c], truth[n, c] == 1, decided[n, c])
        for n in range(n_photos)
        for c in range(n_classes)
        if truth[n, c] >= 0
    ]

    def counts(chosen):
        kinds = Counter((bool(true), bool(given)) for *_, true, given in chosen)
        return kinds[True, True], kinds[False, True], kinds[True, False]

    by_class = [[cell for cell in cells if cell[1] == c] for c in range(n_classes)]
    found, averaged = [], []
    for own in by_class:
        true = [score for _, _, score, is_true, _ in own if is_true]
        if true:
            seen = [sum(cell[2] >= score for cell in own) for score in true]
            right = [sum(other >= score for other in true) for score in true]
            found.append(np.mean([r / s for r, s in zip(right, seen, strict=True)]))
            tp, fp, fn = counts(own)
            averaged.append((share(tp, tp + fp), share(tp, tp + fn)))
    precision, recall = np.mean(averaged, axis=0)
    tp, fp, fn = counts(cells)
    return {
        "mAP": np.mean(found), "CP": precision, "CR": recall,
        "CF1": share(2 * precision * recall, precision + recall),
        "OP": share(tp, tp + fp), "OR": share(tp, tp + fn), "OF1": share(2 * tp, 2 * tp + fp + fn),
    }  # fmt: skip


def test_every_figure_equals_a_count_cell_for_cell():
    random = np.random.default_rng(0)
    for case in range(CASES):
        scores, truth, decided = draw(random)
        if (truth == 1).any():
            ours = plain_figures(comparison(scores, truth, decided))
            expected = plainly(scores, truth, decided)
            assert ours == pytest.approx(expected, abs=1e-12), case


def test_figures_equal_scikit_learns():
    """Average precision is compared with it in test_metrics.py."""
    random = np.random.default_rng(1)
    for _ in range(40):
        scores, truth, decided = draw(random, 40, 8)
        truth = np.maximum(truth, 0)
        if truth.shape[1] == 1 or not truth.any():
            continue
        ours = plain_figures(comparison(scores, truth, decided))
        has = truth.any(axis=0)  # classes with positives, over which ours are averaged
        for average, kind in (("macro", "C"), ("micro", "O")):
            classes = has if average == "macro" else slice(None)
            sides = truth[:, classes], decided[:, classes]
            found = precision_recall_fscore_support(*sides, average=average, zero_division=0)
            assert (ours[f"{kind}P"], ours[f"{kind}R"]) == pytest.approx(found[:2])
            if average == "micro":
                assert ours["OF1"] == pytest.approx(found[2])


def test_a_resample_has_the_figures_of_its_photos_repeated():
    random = np.random.default_rng(2)
    n_without = 0
    for seed in range(8):
        scores, truth, decided = draw(random, 30, 6)
        truth[:, 0] = 0
        truth[0, 0] = 1  # true of one photo, which a third of the resamples do not have
        known = random.random(truth.shape[1]) < 0.7
        precisions = resampled_precisions(comparison(scores, truth, decided, known), seed)
        weights = next(resamples(len(truth), seed)).astype(int)
        for b in range(3):
            often = np.repeat(np.arange(len(truth)), weights[:, b])
            repeated = comparison(scores[often], truth[often], decided[often], known)
            n_without += not repeated.has_positives[0]
            assert precisions[b] == pytest.approx(repeated.precisions, abs=1e-6, nan_ok=True)
    assert n_without > 3
