"""Several systems at once: paired differences, Holm's adjustment, what can be told apart."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.evaluate import EvalOptions, run
from ramctl.evaluation.figures import DETECTABLE, holm, paired_difference
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


def test_systems_are_compared_pair_by_pair_on_the_photos_of_all(compared):
    systems = [write("good", 1), write("same", 1), write("poor", 0, range(50))]
    result = compared(*systems)
    table = result["comparison"]
    assert (table["photos"], list(table["systems"])) == (50, systems)
    assert result["photos"]["compared"] == 60
    pairs = {tuple(row["systems"]): row for row in table["differences"]}
    assert list(pairs) == [("good", "same"), ("good", "poor"), ("same", "poor")]
    same, better = pairs["good", "same"]["mAP"], pairs["good", "poor"]["mAP"]
    assert (same["difference"], same["ci"], same["p"], same["detectable"]) == (0, [0, 0], 1, 0)
    good, poor = (table["systems"][name]["mAP"] for name in ("good", "poor"))
    assert better["difference"] == pytest.approx(good - poor)
    low, high = better["ci"]
    assert 0 < low < better["difference"] < high
    assert better["p"] == pytest.approx(2 / 1001)
    assert better["p_holm"] == pytest.approx(3 * 2 / 1001)
    figures = {"mAP", "CP", "CF1", "OF1", "LRAP", "photo.f1"}
    assert figures <= set(table["systems"]["good"]["ci"])
    assert figures <= pairs["good", "poor"].keys()
    assert result["bootstrap"]["resamples"] == 1000


def test_systems_that_know_different_classes_are_compared_on_the_same(compared):
    for name, labels in (("all", "abc"), ("few", "ab")):
        scores = (NOISE + TRUTH)[:, : len(labels)].tolist()
        rows = [{"image": str(n), "dense": row} for n, row in enumerate(scores)]
        rows[0]["label_names"] = list(labels)
        write_lines(Path(name), rows)
    result = compared("few", "all")
    assert (result["mAP"], result["mAP_known"]) == pytest.approx((2 / 3, 1.0))
    systems = result["comparison"]["systems"]
    assert [systems[name]["mAP"] for name in ("few", "all")] == pytest.approx([2 / 3, 1.0])
    assert result["comparison"]["differences"][0]["mAP"]["difference"] == pytest.approx(-1 / 3)


def test_the_interval_of_a_difference_is_that_of_the_same_resamples_of_shared_photos(compared):
    # Ours ranks the only positive among photos 1 to 3 first, theirs second.
    write_lines(Path("truth"), [{"image": n, "tags": ["a"] if n in "14" else []} for n in "1234"])
    ours, theirs = {"1": 0.9, "2": 0.5, "3": 0.1, "4": 0.05}, {"1": 0.5, "2": 0.9, "3": 0.1}
    for name, scores in (("ours", ours), ("theirs", theirs)):
        rows = [{"image": n, "scores": {"a": score}} for n, score in scores.items()]
        write_lines(Path(name), rows)
    result = compared("ours", "theirs", seed=3)
    (pair,), table = result["comparison"]["differences"], result["comparison"]
    assert (table["photos"], pair["mAP"]["difference"]) == (3, 0.5)
    weights = np.concatenate(list(resamples(3, 3)), axis=1)
    with np.errstate(invalid="ignore"):
        gains = np.where(weights[0] > 0, weights[1] / (weights[0] + weights[1]), np.nan)
    assert pair["mAP"]["ci"] == pytest.approx(list(interval(0.5, gains, lowest=-1.0)))
    assert result["bootstrap"] == {"level": 0.95, "resamples": 1000, "seed": 3}


def test_a_spreadsheet_has_a_row_a_figure_and_columns_for_systems_and_pairs(compared):
    systems = (write("Ours", 1), write("Theirs, old", 0), write("fair", 0.5))
    told = compared(*systems)["comparison"]
    run(EvalOptions("truth", systems, output=Path("t"), format="csv"))
    rows = {row["figure"]: row for row in csv.DictReader(Path("t").read_text().splitlines())}
    assert set(rows) == set(told["differences"][0]) - {"systems"}
    for figure in ("mAP", "macro.f1", "photo.recall"):
        row, pair = rows[figure], told["differences"][0][figure]
        gain = float(row["Ours"]) - float(row["Theirs, old"])
        assert gain == pytest.approx(pair["difference"], abs=2e-4)
        shown = (float(row["Ours low"]), float(row["Ours high"]))
        assert shown == pytest.approx(told["systems"]["Ours"]["ci"][figure], abs=1e-4)
        assert float(row["Ours - Theirs, old p"]) == pytest.approx(pair["p"], abs=1e-4)
    assert float(rows["mAP"]["fair"]) < float(rows["mAP"]["Ours"])


def test_a_table_for_papers_has_systems_as_rows_and_the_best_in_bold(compared):
    systems = (write("RAM & co_1", 1), write("Old", 0))
    run(EvalOptions("truth", systems, output=Path("t"), format="latex"))
    told = compared(*systems)["comparison"]["systems"]
    lines = Path("t").read_text().splitlines()
    best, other = (f"{100 * told[name]['mAP']:.1f}" for name in systems)
    ends = [[f"{100 * end:.1f}" for end in told[name]["ci"]["mAP"]] for name in systems]
    better, worse = (rf"{{\scriptsize [{low}, {high}]}}" for low, high in ends)
    assert "[95 % intervals]" in lines[0] and lines[4] == r"\midrule"
    assert lines[5].startswith(rf"RAM \& co\_1 & \textbf{{{best}}} {better} & ")
    assert lines[6].startswith(f"Old & {other} {worse} & ")
    run(EvalOptions("truth", "Old", output=Path("t"), format="latex"))
    assert f"Old & {other} & " in Path("t").read_text()
    run(EvalOptions("truth", "Old", output=Path("t"), format="latex", ci=True))
    assert f"Old & {other} {worse} & " in Path("t").read_text()


def test_of_equal_figures_none_is_in_bold(compared):
    systems = (write("one", 1), "same")
    Path("same").write_bytes(Path("one").read_bytes())
    run(EvalOptions("truth", systems, output=Path("t"), format="latex"))
    assert "textbf" not in Path("t").read_text()


def test_every_figure_has_an_interval(compared):
    result = compared(write("good", 0.6), ci=True, threshold="0.8")
    assert result["mAP_ci"] == result["ci"]["mAP"]
    assert {"OP", "CR", "macro.f1", "photo.recall"} <= set(result["ci"])
    for name in ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1", "LRAP"):
        low, high = result["ci"][name]
        assert low < result[name] < high, name


def test_systems_without_a_shared_photo_are_an_error(compared):
    systems = write("good", 1, range(30)), write("poor", 0, range(30, 60))
    with pytest.raises(RunProblem, match="no photo is in all predictions"):
        compared(*systems)
    with pytest.raises(UsageProblem, match="given twice"):
        compared("good", "good")


def test_holms_adjustment():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.02, 0.5]) == pytest.approx([1.0, 0.06, 1.0])
    assert holm([]) == []


def test_what_is_called_detectable_is_told_in_80_of_100_tries():
    random = np.random.default_rng(1)
    resampled = random.normal(0, 0.01, 4000)
    detectable = paired_difference(0.0, resampled)["detectable"]
    assert detectable == pytest.approx(DETECTABLE * 0.01, rel=0.05)
    tries = [
        paired_difference(d, d + random.normal(0, 0.01, 400))["p"] < 0.05
        for d in detectable + random.normal(0, 0.01, 300)
    ]
    assert 0.7 < np.mean(tries) < 0.9
