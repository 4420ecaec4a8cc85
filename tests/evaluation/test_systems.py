"""Several systems at once: paired differences, and their picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.evaluate import EvalOptions, run
from ramctl.evaluation.metrics import interval, resamples
from tests.evaluation.conftest import write_lines

RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.random((60, 3)) < 0.3
NOISE = RANDOM.random((60, 3))


def write(name, skill, photos=range(60)):
    scores = (NOISE + skill * TRUTH).tolist()
    rows = [{"image": str(n), "scores": dict(zip("abc", scores[n], strict=True))} for n in photos]
    return write_lines(Path(name), rows)


@pytest.fixture
def compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = [
        {"image": str(n), "tags": [t for t, x in zip("abc", row, strict=True) if x]}
        for n, row in enumerate(TRUTH)
    ]
    write_lines(Path("truth"), truth)

    def go(*systems, **options):
        run(EvalOptions("truth", systems, output=Path("out"), **options))
        return json.loads(Path("out").read_text())

    return go


def test_the_first_system_is_compared_with_each_other_on_the_photos_of_all(compared):
    systems = [write("good", 1), write("same", 1), write("poor", 0, range(50))]
    result = compared(*systems)
    table = result["comparison"]
    assert (table["photos"], list(table["systems"])) == (50, systems)
    assert result["photos"]["compared"] == 60
    assert list(table["first_minus"]) == ["same", "poor"]
    assert table["first_minus"]["same"] == {"mAP": 0, "ci": [0, 0]}
    better = table["first_minus"]["poor"]
    good, poor = (table["systems"][name]["mAP"] for name in ("good", "poor"))
    assert better["mAP"] == pytest.approx(good - poor)
    low, high = better["ci"]
    assert 0 < low < better["mAP"] < high
    assert result["bootstrap"]["resamples"] == 1000


def test_systems_that_know_different_classes_are_compared_on_the_same(compared):
    for name, labels in (("all", "abc"), ("few", "ab")):
        scores = (NOISE + TRUTH)[:, : len(labels)].tolist()
        rows = [{"image": str(n), "dense": row} for n, row in enumerate(scores)]
        rows[0]["label_names"] = list(labels)
        write_lines(Path(name), rows)
    result = compared("few", "all")
    systems = result["comparison"]["systems"]
    assert [systems[name]["mAP"] for name in ("few", "all")] == pytest.approx([2 / 3, 1.0])
    assert result["comparison"]["first_minus"]["all"]["mAP"] == pytest.approx(-1 / 3)


def test_the_interval_of_a_difference_is_that_of_the_same_resamples_of_shared_photos(compared):
    # Ours ranks the only positive among photos 1 to 3 first, theirs second.
    write_lines(Path("truth"), [{"image": n, "tags": ["a"] if n in "14" else []} for n in "1234"])
    ours, theirs = {"1": 0.9, "2": 0.5, "3": 0.1, "4": 0.05}, {"1": 0.5, "2": 0.9, "3": 0.1}
    for name, scores in (("ours", ours), ("theirs", theirs)):
        rows = [{"image": n, "scores": {"a": score}} for n, score in scores.items()]
        write_lines(Path(name), rows)
    result = compared("ours", "theirs")
    pair, table = result["comparison"]["first_minus"]["theirs"], result["comparison"]
    assert (table["photos"], pair["mAP"]) == (3, 0.5)
    weights = np.concatenate(list(resamples(3)), axis=1)
    with np.errstate(invalid="ignore"):
        gains = np.where(weights[0] > 0, weights[1] / (weights[0] + weights[1]), np.nan)
    assert pair["ci"] == pytest.approx(list(interval(0.5, gains, lowest=-1.0)))
    assert result["bootstrap"] == {"level": 0.95, "resamples": 1000}


def test_map_has_an_interval(compared):
    result = compared(write("good", 0.6), ci=True, threshold="0.8")
    low, high = result["mAP_ci"]
    assert low < result["mAP"] < high


@pytest.mark.parametrize("n_classes", [3, 101])
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_plot_has_a_curve_a_system_and_the_classes(compared, suffix, n_classes):
    names = [f"c{n}" for n in range(n_classes)]
    Path("classes").write_text("\n".join("abc"[:3]) + "\n" + "\n".join(names[3:]))
    systems = write("good", 1), write("poor", 0)
    compared(*systems, plot=Path(f"x.{suffix}"), classes=Path("classes"))
    content = Path(f"x.{suffix}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        assert b"good (mAP 1.000)" in content and b"<!-- recall -->" in content


def test_a_plot_of_another_format_is_refused(compared):
    with pytest.raises(UsageProblem, match=r"--plot x.html: expected a name in .png, .svg, .pdf"):
        compared(write("good", 1), plot=Path("x.html"))


def test_systems_without_a_shared_photo_are_an_error(compared):
    systems = write("good", 1, range(30)), write("poor", 0, range(30, 60))
    with pytest.raises(RunProblem, match="no photo is in all predictions"):
        compared(*systems)
    with pytest.raises(UsageProblem, match="given twice"):
        compared("good", "good")
