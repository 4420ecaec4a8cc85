"""The figures of one evaluation, checked against numbers worked out by hand."""

import csv
import re
from pathlib import Path

import pytest

# Class   truth   given    TP FP FN    P    R   F1
# a       1 2     1 2 3     2  1  0   2/3   1  4/5
# b       1 3     2 3       1  1  1   1/2 1/2  1/2
# c       4       -         0  0  1    0   0    0
# d       -       1         0  1  0    (no positives)
TRUTH = [
    {"image": "1", "tags": ["a", "b"]},
    {"image": "2", "tags": ["a"]},
    {"image": "3", "tags": ["b"]},
    {"image": "4", "tags": ["c"]},
]
GIVEN = [
    {"image": "1", "tags": ["a", "d"]},
    {"image": "2", "tags": ["a", "b"]},
    {"image": "3", "tags": ["a", "b"]},
    {"image": "4", "tags": []},
]
CP, CR = (2 / 3 + 1 / 2) / 3, (1 + 1 / 2) / 3
OP, OR = 3 / 6, 3 / 5


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("a\nb\nc\nd\n")
    return path


def test_precision_recall_and_f1_by_class_and_pooled(evaluate, classes):
    result = evaluate(GIVEN, TRUTH, classes=classes)
    assert result["decided_by"] == "the predictions' own tags"
    assert (result["CP"], result["CR"]) == pytest.approx((CP, CR))
    assert result["CF1"] == pytest.approx(2 * CP * CR / (CP + CR))
    assert (result["OP"], result["OR"]) == pytest.approx((OP, OR))
    assert result["OF1"] == pytest.approx(2 * OP * OR / (OP + OR))
    assert result["averaged_classes"] == 3
    assert result["classes"]["without_positives"] == ["d"]
    assert result["classes"]["without_tag"] == ["c"]


def test_the_table_of_classes_says_what_each_figure_is(evaluate, classes):
    truth = [{**TRUTH[0], "uncertain": ["c"]}, *TRUTH[1:]]
    evaluate(GIVEN, truth, classes=classes, report_file=Path("t.csv"))
    with Path("t.csv").open() as stream:
        rows = {row["class"]: row for row in csv.DictReader(stream)}
    c = rows["c"]
    assert (c["positives"], c["negatives"], c["unknown"]) == ("1", "2", "1")
    assert list(rows["a"].values()) == [
        "a", "2", "2", "0", "0.6667", "0.6667", "1.0000", "0.8000", "a",
    ]  # fmt: skip
    assert list(rows["d"].values()) == ["d", "0", "4", "0", "", "0.0000", "0.0000", "0.0000", "d"]


def test_photos_on_one_side_only_are_counted_and_named(evaluate, capsys):
    extra = [{"image": f"only-{i:02}", "tags": ["a"]} for i in range(25)]
    alone = {"image": "q/9.jpg", "tags": ["a"]}
    photos = evaluate([*GIVEN, alone], [*TRUTH, *extra])["photos"]
    counted = {"compared": 4, "only_in_truth": 25, "only_in_predictions": 1}
    assert counted.items() <= photos.items()
    assert photos["only_in_truth_first"] == [row["image"] for row in extra[:20]]
    assert photos["only_in_predictions_first"] == ["q/9.jpg"]
    assert photos["matched_by"] == {"name": 4}
    assert "photos in the truth only: 25, predictions only: 1" in capsys.readouterr().err


def test_long_lists_of_names_are_cut(evaluate, tmp_path, capsys):
    names = [f"class {i}" for i in range(7)]
    (tmp_path / "classes.txt").write_text("\n".join(["a", *names]))
    evaluate(GIVEN, TRUTH, classes=Path("classes.txt"))
    stderr = capsys.readouterr().err
    assert (
        "classes without a predicted tag (see --map, --labels): "
        "class 0, class 1, class 2, class 3, class 4 ... (7)" in stderr
    )
    assert "true tags that are not classes: b, c\n" in stderr


def test_figures_as_a_table(evaluate, classes):
    evaluate(GIVEN, TRUTH, classes=classes, format="table", ci=True)
    text = Path("out.txt").read_text()
    assert "\nOR                                0.6000\n" in text
    assert all(figure in text for figure in ("mAP_ci", "classes.sha256", "photos.only_in_truth"))
    assert " to 0." in text or " to 1." in text
    assert re.search(r"looks_thresholded +yes", text)
