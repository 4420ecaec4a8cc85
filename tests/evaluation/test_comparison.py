"""The figures of one evaluation, checked against numbers worked out by hand."""

import csv
from pathlib import Path

import pytest

from tests.evaluation.conftest import sparse

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
    assert result["macro"]["f1"] == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)
    assert result["macro"]["precision"] == result["CP"]
    assert result["macro"]["recall"] == result["CR"]
    assert result["micro"] == {
        "precision": result["OP"], "recall": result["OR"], "f1": result["OF1"],
    }  # fmt: skip
    assert result["averaged_classes"] == 3
    assert result["classes"]["without_positives"] == ["d"]
    assert result["classes"]["without_tag"] == ["c"]


def test_a_class_outside_of_any_truth_has_no_average_precision(evaluate, classes):
    evaluate(GIVEN, TRUTH, classes=classes, report_file=Path("classes.md"), ci=True)
    rows = Path("classes.md").read_text().splitlines()
    assert rows[0].split(" | ")[:4] == ["| class", "positives", "negatives", "unknown"]
    assert rows[2].startswith("| a | 2 | 2 | 0 | 0.6667 | ")
    assert rows[5] == "| d | 0 | 4 | 0 |  |  |  | 0.0000 | 0.0000 | 0.0000 | d |"


def test_the_table_of_classes_says_what_each_figure_is(evaluate, classes):
    truth = [{**TRUTH[0], "uncertain": ["c"]}, *TRUTH[1:]]
    evaluate(GIVEN, truth, classes=classes, report_file=Path("t"), ci=True)
    with Path("t").open() as stream:
        rows = {row["class"]: row for row in csv.DictReader(stream, delimiter="\t")}
    c = rows["c"]
    assert (c["positives"], c["negatives"], c["unknown"]) == ("1", "2", "1")
    assert (rows["a"]["precision"], rows["a"]["recall"], rows["a"]["F1"]) == (
        "0.6667", "1.0000", "0.8000",
    )  # fmt: skip
    for name in "ab":
        low, ap, high = (float(rows[name][column]) for column in ("AP_low", "AP", "AP_high"))
        assert 0 < low < ap < high
    assert rows["a"]["AP_low"] > rows["b"]["AP_low"]


def test_the_interval_of_a_class_is_its_own(evaluate):
    truth = [{"image": n, "tags": [*"ab"] if n in "13" else []} for n in "1234"]
    predictions = sparse([(0.9, 0.9), (0.1, 0.8), (0.8, 0.7), (0.2, 0.1)])
    evaluate(predictions, truth, report_file=Path("t.csv"), ci=True)
    with Path("t.csv").open() as stream:
        a, b = csv.DictReader(stream)
    assert (a["AP_low"], a["AP_high"]) == ("1.0000", "1.0000")
    assert float(b["AP_low"]) < float(b["AP"]) == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)


def test_groups_have_their_own_figures(evaluate, classes, tmp_path):
    (tmp_path / "groups.tsv").write_text("top\tC\nrest\tb|d\nrest\tb\n")
    predictions = [{**row, "scores": {}} for row in GIVEN]
    for row, score in zip(predictions, (0.1, 0.9, 0.2, 0.8), strict=True):
        row["scores"] = {"b": score, "c": 1.0 if row["image"] == "4" else 0.1}
    result = evaluate(predictions, TRUTH, classes=classes, groups=Path("groups.tsv"), ci=True)
    assert result["groups"]["top"] == {
        "mAP": 1.0, "classes": 1, "averaged_classes": 1, "mAP_ci": [1.0, 1.0],
    }  # fmt: skip
    rest = result["groups"]["rest"]
    assert (rest["classes"], rest["averaged_classes"]) == (2, 1)
    assert rest["mAP"] == pytest.approx((1 / 3 + 2 / 4) / 2)  # third and fourth of four


def test_the_seed_reaches_the_bootstrap(evaluate):
    first, again, other = (
        evaluate(GIVEN, TRUTH, ci=True, seed=seed)["mAP_ci"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_photos_on_one_side_only_are_counted_and_named(evaluate, capsys):
    extra = [{"image": f"only-{i:02}", "tags": ["a"]} for i in range(25)]
    alone = {"image": "q/9.jpg", "tags": ["a"]}
    photos = evaluate([*GIVEN, alone], [*TRUTH, *extra])["photos"]
    counted = {"compared": 4, "only_in_truth": 25, "only_in_predictions": 1}
    assert counted.items() <= photos.items()
    assert photos["only_in_truth_first"] == [row["image"] for row in extra[:20]]
    assert photos["only_in_predictions_first"] == ["q/9.jpg"]
    assert photos["matched_by"] == {"image": 4}
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


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("csv", "OP,0.5000\n"),
        ("md", "| mAP_ci | "),
        ("md", "| classes.without_positives | "),
        ("table", "\nOR                                0.6000\n"),
    ],
)
def test_figures_in_other_formats(evaluate, classes, form, shown):
    evaluate(GIVEN, TRUTH, classes=classes, format=form, ci=True)
    text = Path("out.txt").read_text()
    assert shown in text
    assert all(figure in text for figure in ("mAP", "classes.sha256", "photos.only_in_truth"))
    assert " to 0." in text or " to 1." in text
    yes = {"csv": "looks_thresholded,yes", "md": "| looks_thresholded | yes |"}
    assert yes.get(form, "looks_thresholded") in text
