"""One threshold for all classes: the best, or the lowest that is precise enough."""

import numpy as np
import pytest
from operating_point import decide, from_score

from ramctl.errors import RunProblem
from ramctl.evaluation.figures import plain_figures
from ramctl.evaluation.metrics import unpacked
from tests.evaluation.test_figures import comparison, draw


def test_the_best_threshold_has_the_highest_pooled_f1():
    random = np.random.default_rng(3)
    for _ in range(60):
        scores, truth, decided = draw(random)
        scores = np.maximum(scores, 0.001)
        if not (truth == 1).any():
            continue
        ours = comparison(scores, truth, decided)
        found = decide(ours)
        every = [plain_figures(from_score(ours, s))["OF1"] for s in np.unique(scores)]
        assert plain_figures(found)["OF1"] == pytest.approx(max(every))


def test_a_matched_precision_is_reached_by_the_lowest_threshold_that_has_it():
    random = np.random.default_rng(4)
    reached = 0
    for _ in range(60):
        scores, truth, decided = draw(random, 20, 4)
        scores = np.maximum(scores, 0.001)
        if not (truth == 1).any():
            continue
        ours = comparison(scores, truth, decided)
        every = {s: plain_figures(from_score(ours, s))["CP"] for s in np.unique(scores)}
        enough = [score for score, precision in every.items() if precision >= 0.6]
        if not enough:
            with pytest.raises(RunProblem, match=r"no threshold reaches precision 0\.6: at most"):
                decide(ours, 0.6)
            continue
        found = decide(ours, 0.6)
        assert (unpacked(found.packed, truth.shape[1]) == (scores >= min(enough))).all()
        assert found.decided_by == "precision 0.6 on these photos"
        reached += 1
    assert reached > 20


def test_among_many_scores_the_threshold_is_as_good(monkeypatch):
    random = np.random.default_rng(5)
    truth = (random.random((4000, 5)) < 0.1).astype(np.int8)
    scores = (random.random(truth.shape) * 0.7 + truth * 0.3).astype(np.float32)
    ours = comparison(scores, truth, scores > 2)
    tried = [plain_figures(from_score(ours, s)) for s in np.linspace(0.3, 1, 200)]
    best, matched = (plain_figures(decide(ours, goal)) for goal in (None, 0.7))
    assert best["OF1"] >= max(one["OF1"] for one in tried)
    assert matched["CP"] == pytest.approx(0.7, abs=0.002)
    monkeypatch.setattr("operating_point.CANDIDATES", 200)  # of 20,000 scores
    best_of_few, matched = (plain_figures(decide(ours, goal)) for goal in (None, 0.7))
    assert best_of_few["OF1"] == pytest.approx(best["OF1"], abs=0.0002)
    assert matched["CP"] == pytest.approx(0.7, abs=0.002)


@pytest.mark.parametrize("n_true", [1, 700, 2000, 2040, 19_990])
def test_where_true_scores_are_the_highest_the_very_best_threshold_is_found(n_true, monkeypatch):
    monkeypatch.setattr("operating_point.CANDIDATES", 500)  # of 20,000 scores
    falling = np.arange(20_000)[:, None]
    ours = comparison((1 - falling / 20_001).astype(np.float32), falling < n_true, falling < 0)
    for goal, n_given in ((None, n_true), (0.6, min(int(n_true / 0.6), 20_000))):
        assert unpacked(decide(ours, goal).packed, 1).sum() == n_given


def test_nothing_to_choose_from_is_an_error():
    nothing = np.zeros((2, 1), np.float32)
    with pytest.raises(RunProblem, match="no score to choose a threshold from"):
        decide(comparison(nothing, np.ones((2, 1), np.int8), nothing > 2))
