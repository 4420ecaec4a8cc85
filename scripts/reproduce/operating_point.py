"""One threshold for all classes, chosen by what it gives on the photos that are evaluated.

The paper's table 3 compares systems at the same precision so. `N` photos, `C` classes, `K`
candidates.
"""

from dataclasses import replace

import numpy as np
from looks import of_counted

from ramctl.errors import RunProblem
from ramctl.evaluation.charts_page import counts_at
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.figures import decision_figures
from ramctl.evaluation.metrics import Scores, row_blocks

CANDIDATES = 2000
SAMPLED = 1 << 21  # numbers of which the first candidates are drawn


def decide(comparison: Comparison, precision: float | None = None) -> Comparison:
    """The comparison with the tags that the chosen threshold gives.

    It is that of the highest OF1; with a `precision`, the lowest at which CP reaches it. RunProblem
    where none does.
    """
    scores = comparison.scores
    step = 1 + scores.size // SAMPLED
    candidates = np.unique(scores[::step])
    candidates = thinned(candidates[candidates > comparison.missing_score])
    if not len(candidates):
        raise RunProblem("no score to choose a threshold from")
    place = best_of(comparison, candidates, precision)
    if scores.size > len(candidates):  # look closer, at the scores around it
        low, high = candidates[max(place - 1, 0)], candidates[min(place + 1, len(candidates) - 1)]
        near = [
            np.unique(block[(block >= low) & (block <= high)])
            for block in (scores[part] for part in row_blocks(scores))
        ]
        candidates = thinned(np.unique(np.concatenate([candidates[place : place + 1], *near])))
        place = best_of(comparison, candidates, precision)
    goal = "best" if precision is None else f"precision {precision:g}"
    return from_score(comparison, float(candidates[place]), f"{goal} on these photos")


def from_score(comparison: Comparison, score: float, by: str = "") -> Comparison:
    """The same comparison, with every tag given that has this score or more."""
    parts = row_blocks(comparison.truth)
    packed = [np.packbits(comparison.scores[part] >= score, axis=1) for part in parts]
    return replace(comparison, packed=np.concatenate(packed), decided_by=by)


def best_of(comparison: Comparison, candidates: Scores, precision: float | None) -> int:
    """The place of the best of ascending scores from which on a tag is given."""
    figures = decision_figures(of_counted(counts_at(comparison, candidates), comparison))
    if precision is None:
        return int(np.argmax(figures["OF1"]))
    enough = np.flatnonzero(figures["CP"] >= precision)
    if not len(enough):
        most = f"at most {figures['CP'].max():.3f}"
        raise RunProblem(f"no threshold reaches precision {precision:g}: {most}")
    return int(enough[0])


def thinned(ascending: Scores) -> Scores:
    """At most so many of the scores, closer to each other where they are higher."""
    if len(ascending) <= CANDIDATES:
        return ascending
    places = len(ascending) - np.geomspace(1, len(ascending), CANDIDATES).astype(np.intp)
    return ascending[np.unique(places)]
