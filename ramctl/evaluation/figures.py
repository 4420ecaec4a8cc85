"""The figures of a comparison, bootstrap intervals of mAP, and the difference of two systems.

`N` photos, `C` classes, `B` resamples, which are columns of photo weights [N, B].
"""

import numpy as np

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import (
    Floats,
    interval,
    mean_over_classes,
    rank_classes,
    ranked_precisions,
    resamples,
)
from ramctl.records.record import JsonObject


def plain_figures(comparison: Comparison) -> dict[str, float]:
    """mAP, and precision, recall and F1 of the decisions, on all photos."""
    return {"mAP": float(mean_over_classes(comparison.precisions)), **comparison.counts.figures}


def resampled_precisions(comparison: Comparison, seed: int = 0) -> Floats:
    """The average precision of each class on resamples of the photos [B, C]."""
    rankings = rank_classes(comparison.scores, comparison.truth)
    blocks = [ranked_precisions(rankings, w) for w in resamples(len(comparison.photos), seed)]
    return comparison.fill_unknown(np.concatenate(blocks))


def map_interval(comparison: Comparison) -> tuple[float, float] | None:
    """The 95 % interval of mAP."""
    resampled = mean_over_classes(resampled_precisions(comparison))
    return interval(plain_figures(comparison)["mAP"], resampled)


def compare_systems(by_name: dict[str, Comparison]) -> JsonObject:
    """The figures of systems on the same photos, and by how much the first has a higher mAP.

    Differences are paired: all systems see the same resamples.
    """
    plain = {name: plain_figures(comparison) for name, comparison in by_name.items()}
    resampled = {
        name: mean_over_classes(resampled_precisions(comparison))
        for name, comparison in by_name.items()
    }
    first, *others = by_name
    differences = {}
    for name in others:
        difference = plain[first]["mAP"] - plain[name]["mAP"]
        ends = interval(difference, resampled[first] - resampled[name], lowest=-1.0)
        differences[name] = {"mAP": difference, "ci": ends}
    return {"photos": len(by_name[first].photos), "systems": plain, "first_minus": differences}
