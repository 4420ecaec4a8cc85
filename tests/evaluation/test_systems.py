"""Several systems at once: paired differences, and their picture."""

from pathlib import Path

import numpy as np
import pytest

from ramctl.evaluation.metrics import interval, resamples

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.random((60, 3)) < 0.3
NOISE = RANDOM.random((60, 3))
TRUTH = [
    {"image": str(n), "tags": [tag for tag, is_true in zip("abc", row, strict=True) if is_true]}
    for n, row in enumerate(TRUE)
]


def system(skill, photos=range(60)):
    scores = (NOISE + skill * TRUE).tolist()
    return [{"image": str(n), "scores": dict(zip("abc", scores[n], strict=True))} for n in photos]


def test_the_first_system_is_compared_with_each_other_on_the_photos_of_all(evaluate):
    systems = {"good": system(1), "same": system(1), "poor": system(0, range(50))}
    result = evaluate(systems, TRUTH, threshold="0.8", ci=True)
    table = result["comparison"]
    assert (table["photos"], result["photos"]["compared"]) == (50, 60)
    assert table["first_minus"]["same.jsonl"] == {"mAP": 0, "ci": [0, 0]}
    better = table["first_minus"]["poor.jsonl"]
    good, poor = (table["systems"][f"{name}.jsonl"]["mAP"] for name in ("good", "poor"))
    assert better["mAP"] == pytest.approx(good - poor)
    low, high = better["ci"]
    assert 0 < low < better["mAP"] < high
    low, high = result["mAP_ci"]
    assert low <= result["mAP"] <= high


def test_the_interval_of_a_difference_is_that_of_the_same_resamples_of_shared_photos(evaluate):
    # Ours ranks the only positive among photos 1 to 3 first, theirs second.
    truth = [{"image": n, "tags": ["a"] if n in "14" else []} for n in "1234"]
    ours, theirs = {"1": 0.9, "2": 0.5, "3": 0.1, "4": 0.05}, {"1": 0.5, "2": 0.9, "3": 0.1}
    rows = [[{"image": n, "scores": {"a": s}} for n, s in x.items()] for x in (ours, theirs)]
    table = evaluate(dict(zip(("ours", "theirs"), rows, strict=True)), truth)["comparison"]
    pair = table["first_minus"]["theirs.jsonl"]
    assert (table["photos"], pair["mAP"]) == (3, 0.5)
    weights = resamples(3).astype(float)
    with np.errstate(invalid="ignore"):
        gains = np.where(weights[0] > 0, weights[1] / (weights[0] + weights[1]), np.nan)
    assert pair["ci"] == pytest.approx(list(interval(0.5, gains, lowest=-1.0)))


@pytest.mark.parametrize(
    ("suffix", "n_classes"), [("png", 3), ("svg", 3), ("svg", 101), ("pdf", 3)]
)
def test_a_plot_has_a_curve_a_system_and_the_classes(evaluate, suffix, n_classes):
    more = [f"c{n}" for n in range(3, n_classes)]
    truth = [{**TRUTH[0], "tags": [*TRUTH[0]["tags"], *more]}, *TRUTH[1:]]
    evaluate({"good": system(1), "poor": system(0)}, truth, plot=Path(f"x.{suffix}"))
    content = Path(f"x.{suffix}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        assert b"good.jsonl (mAP " in content and b"<!-- recall -->" in content
        assert (b"<!-- c50 -->" in content) == (3 < n_classes <= 100)
