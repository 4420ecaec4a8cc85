"""Scores in single precision: where that is enough, and that nothing is lost where it is not."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ramctl.evaluation.predictions import ScoreStore, take_rows


def stored(*blocks, n_expected=1):
    store = ScoreStore(blocks[0].shape[1], n_expected)
    for block in blocks:
        store.append(block)
    return store.finish()


def six_digits(values):
    return np.vectorize(lambda value: float(f"{value:.6g}"))(values)


@pytest.fixture
def doubles():
    return np.random.default_rng(0).random((40, 3))


def test_six_digits_and_single_numbers_take_four_bytes(doubles):
    small = six_digits(doubles * 10.0 ** -np.arange(12, 15).reshape(1, 3))
    for values in (six_digits(doubles), small, doubles.astype(np.float32).astype(float)):
        found = stored(values[:10], values[10:])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, values, rtol=1e-7)
        assert (np.argsort(found, axis=0) == np.argsort(values, axis=0)).all()


@pytest.mark.parametrize("first", [six_digits, lambda v: v.astype(np.float32).astype(float)])
def test_numbers_of_more_digits_make_all_double(doubles, first):
    before = first(doubles)
    assert (stored(before, doubles) == np.vstack([before, doubles])).all()
    assert (stored(doubles, before) == np.vstack([doubles, before])).all()


def test_single_numbers_and_six_digits_are_told_apart():
    tenth = np.array([[0.1]])
    single = tenth.astype(np.float32).astype(float)
    assert single != tenth
    assert (stored(single, tenth) == np.vstack([single, tenth])).all()
    assert (stored(tenth, single) == np.vstack([tenth, single])).all()


@pytest.mark.parametrize(
    ("values", "number"), [([0.5, 0.25], 0.0), ([3.0, 7.0], 0.0), ([-2.5, 0.0], -4.0)]
)
def test_what_is_missing_has_the_lowest_score(values, number):
    block = np.array([[*values, -np.inf]])
    assert stored(block).tolist() == [[*values, number]]


def test_an_array_gives_up_its_rows_in_place():
    values = np.arange(600.0).reshape(6, 100)
    taken = take_rows(values.copy(), np.array([4, 0, 5]))
    assert (taken == values[[4, 0, 5]]).all()
    assert (take_rows(values, np.array([0, 1])) == values[:2]).all()


@pytest.mark.parametrize("rounded", [True, False])
def test_average_precision_of_read_scores_equals_scikit_learns(evaluate, rounded):
    random = np.random.default_rng(3)
    scores = random.random((400, 4))
    scores[:, 1] = 1 - scores[:, 1] * 1e-7  # next to each other in single precision
    scores = six_digits(scores) if rounded else scores
    truth = random.random(scores.shape) < 0.2
    rows = [{"image": str(n), "dense": row} for n, row in enumerate(scores.tolist())]
    rows[0]["label_names"] = list("abcd")
    tags = [[tag for tag, true in zip("abcd", row, strict=True) if true] for row in truth]
    records = [{"image": str(n), "tags": given} for n, given in enumerate(tags)]
    expected = [average_precision_score(truth[:, c], scores[:, c]) for c in range(4)]
    order = random.permutation(len(rows)).tolist()
    shuffled = [{**rows[n], "label_names": list("abcd")} for n in order]
    assert evaluate(rows, records)["mAP"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert evaluate(shuffled, records)["mAP"] == pytest.approx(np.mean(expected), abs=1e-12)
