"""Every figure against an implementation of its own, scikit-learn, and repeated photos."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, precision_recall_fscore_support

from ramctl.classes import Classes
from ramctl.evaluation.charts_page import _worst
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import nested, plain_figures, resampled_figures
from ramctl.evaluation.metrics import resamples
from ramctl.labels import LabelSystem
from ramctl.tagger_scores import PhotoName

CASES = int(os.environ.get("RAMCTL_CASES", "2000"))  # RAMCTL_CASES=200000 is the long form


def comparison(scores, truth, decided, known=None):
    n_photos, n_classes = truth.shape
    known = np.ones(n_classes, bool) if known is None else known
    return Comparison(
        classes=Classes(LabelSystem.from_tags(f"c{c}" for c in range(n_classes)), None, {}),
        photos=[PhotoName(str(n), Path()) for n in range(n_photos)],
        truth=truth, scores=scores, packed=np.packbits(decided, axis=1), decided_by="a test",
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


def f1(tp, fp, fn):
    return share(2 * tp, 2 * tp + fp + fn)


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
            averaged.append((share(tp, tp + fp), share(tp, tp + fn), f1(tp, fp, fn)))
    precision, recall, macro = np.mean(averaged, axis=0) if averaged else [np.nan] * 3
    tp, fp, fn = counts(cells)
    ranked, photos = [], []
    for n in range(n_photos):
        own = [cell for cell in cells if cell[0] == n]
        true = [cell[2] for cell in own if cell[3]]
        shares = [sum(t >= s for t in true) / sum(c[2] >= s for c in own) for s in true]
        ranked.append(np.mean(shares) if true else 1.0)
        right, false, missed = counts(own)
        values = share(right, right + false), share(right, right + missed), f1(right, false, missed)
        photos.append(values)
    photo = np.mean(photos, axis=0)
    return {
        "mAP": np.mean(found) if found else np.nan,
        "CP": precision, "CR": recall, "macro.f1": macro,
        "CF1": share(2 * precision * recall, precision + recall),
        "OP": share(tp, tp + fp), "OR": share(tp, tp + fn), "OF1": f1(tp, fp, fn),
        "LRAP": np.mean(ranked),
        "photo.precision": photo[0], "photo.recall": photo[1], "photo.f1": photo[2],
    }  # fmt: skip


def test_every_figure_equals_a_count_cell_for_cell():
    random = np.random.default_rng(0)
    for case in range(CASES):
        scores, truth, decided = draw(random)
        ours = plain_figures(comparison(scores, truth, decided))
        for name, expected in plainly(scores, truth, decided).items():
            assert ours[name] == pytest.approx(expected, abs=1e-12, nan_ok=True), (case, name)


def test_figures_equal_scikit_learns():
    """Average precision is compared with it in test_metrics.py."""
    random = np.random.default_rng(1)
    for _ in range(40):
        scores, truth, decided = draw(random, 40, 8)
        truth = np.maximum(truth, 0)
        if truth.shape[1] == 1 or not truth.any():
            continue
        ours = nested(plain_figures(comparison(scores, truth, decided)))
        has = truth.any(axis=0)  # classes with positives, over which ours are averaged
        for average in ("samples", "macro", "micro"):
            classes = has if average == "macro" else slice(None)
            sides = truth[:, classes], decided[:, classes]
            *expected, _ = precision_recall_fscore_support(*sides, average=average, zero_division=0)
            group = ours["photo" if average == "samples" else average]
            names = ("precision", "recall", "f1")
            assert [group[name] for name in names] == pytest.approx(expected)
        lrap = label_ranking_average_precision_score(truth, scores)
        assert ours["LRAP"] == pytest.approx(lrap)


def test_a_resample_has_the_figures_of_its_photos_repeated(monkeypatch):
    monkeypatch.setattr("ramctl.evaluation.metrics._BYTES_AT_ONCE", 40)  # some rows at a time
    random = np.random.default_rng(2)
    n_without = 0
    for seed in range(8):
        scores, truth, decided = draw(random, 30, 6)
        truth[:, 0] = 0
        truth[0, 0] = 1  # true of one photo, which a third of the resamples do not have
        known = random.random(truth.shape[1]) < 0.7
        ours = comparison(scores, truth, decided, known)
        resampled, precisions = resampled_figures(ours, seed)
        weights = next(resamples(len(truth), seed)).astype(int)
        for b in range(3):
            often = np.repeat(np.arange(len(truth)), weights[:, b])
            repeated = comparison(scores[often], truth[often], decided[often], known)
            some = repeated.has_positives
            n_without += not some[0]
            assert precisions[b] == pytest.approx(repeated.precisions, abs=1e-6, nan_ok=True)
            for name, expected in plain_figures(repeated).items():
                value = resampled[name][b]
                assert value == pytest.approx(expected, abs=1e-6, nan_ok=True), name
    assert n_without > 3


def test_the_worst_mistakes_come_first_two_of_one_class_at_most():
    scores = np.array([[0.625, 0.125], [0.875, 0.125], [0.75, 0.8125]], np.float32)
    ours = comparison(scores, scores < 0, scores > 0.5)
    for sign, worst in ((-1, [0.875, 0.8125, 0.75]), (1, [0.625, 0.75, 0.8125])):
        assert [mistake.score for mistake in _worst(ours, scores > 0.5, sign, None)] == worst
