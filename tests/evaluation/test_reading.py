"""What records of truth and predictions say: classes, scores, decisions, thresholds."""

import json
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.predictions import ScoreReader
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import LabelSystem

TRUTH = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": ["b"]}, {"image": "3", "tags": []}]


def dense(values, names="ab", **first) -> list[dict]:
    """Predictions of photos 1, 2, ...: a row of scores each, the names on the first line only."""
    rows = [{"image": str(i), "dense": row} for i, row in enumerate(values, 1)]
    rows[0] |= {"label_names": list(names), **first}
    return rows


def recall(result) -> float:
    return result["OR"]


def test_a_score_at_the_threshold_is_not_given(evaluate, tmp_path):
    at = [[0.4, 0.3], [0.1, 0.4], [0, 0]]
    sparse = [
        {"image": str(i), "scores": dict(zip("ab", row, strict=True))}
        for i, row in enumerate(at, 1)
    ]
    (tmp_path / "classes.jsonl").write_text('{"tag": "a", "threshold": 0.4}\n')
    for predictions in (dense(at), sparse):
        assert recall(evaluate(predictions, TRUTH, threshold="0.4")) == 0
        assert recall(evaluate(predictions, TRUTH, threshold="0.39")) == 1
        assert recall(evaluate(predictions, TRUTH, threshold="classes.jsonl")) == 0


def test_a_score_at_the_threshold_of_its_own_tag_is_not_given(evaluate, tmp_path):
    (tmp_path / "map.tsv").write_text("a\tx|y\n")
    (tmp_path / "at.jsonl").write_text('{"tag": "x", "threshold": 0.4}\n')
    (tmp_path / "below.jsonl").write_text('{"tag": "x", "threshold": 0.3}\n')
    options = {"map_file": Path("map.tsv")}
    truth = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": []}]
    for predictions in (
        dense([[0.4, 0.1], [0, 0]], "xy"),
        [{"image": "1", "scores": {"x": 0.4, "y": 0.1}}, {"image": "2", "scores": {}}],
    ):
        assert recall(evaluate(predictions, truth, threshold="at.jsonl", **options)) == 0
        assert recall(evaluate(predictions, truth, threshold="below.jsonl", **options)) == 1


def test_a_threshold_by_a_synonym_counts_where_the_labels_are_known(evaluate, tmp_path):
    labels = [{"tag": "a", "synonyms": ["alpha"]}, {"tag": "b"}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    (tmp_path / "by-synonym.jsonl").write_text('{"tag": "alpha", "threshold": 0.3}\n')
    options = {"threshold": "by-synonym.jsonl", "labels": Path("labels.jsonl")}
    assert recall(evaluate(dense([[0.4, 0.1], [0, 0.9], [0, 0]]), TRUTH, **options)) == 1


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
def test_a_class_takes_the_maximum_of_its_tags_whatever_their_order(evaluate, tmp_path, order):
    (tmp_path / "map.tsv").write_text("# tags of a class\na\tX|y\n")
    high, low = order
    scores = {high: 0.9, low: 0.1}
    sparse = [
        {"image": "1", "scores": {name: scores[name] for name in "xy"}},
        {"image": "2", "scores": {"x": 0.6, "y": 0.6}},
    ]
    truth = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": []}]
    packed = dense([[row["scores"]["x"], row["scores"]["y"]] for row in sparse], "xy")
    for predictions in (sparse, packed):
        result = evaluate(predictions, truth, map_file=Path("map.tsv"))
        assert result["mAP"] == 1.0
        assert (result["OP"], recall(result)) == (0.5, 1.0)


def test_a_map_is_read_whatever_the_case_of_its_classes(evaluate, tmp_path):
    (tmp_path / "map.tsv").write_text("A\tx\n\nzebra\tb\n")
    predictions = [{"image": "1", "tags": ["x"]}, {"image": "2", "tags": ["B"]}]
    result = evaluate(predictions, TRUTH[:2], map_file=Path("map.tsv"))
    assert (recall(result), result["classes"]["without_tag"]) == (1.0, [])
    truth = [{"image": "1", "tags": ["A"]}, {"image": "2", "tags": []}]
    (tmp_path / "map.tsv").write_text("a\tx\n")
    assert recall(evaluate(predictions, truth, map_file=Path("map.tsv"))) == 1.0
    (tmp_path / "map.tsv").write_text("a\tx\na\ty\n")
    with pytest.raises(RunProblem, match=r"map.tsv:2: 'a' has a line already"):
        evaluate(predictions, TRUTH, map_file=Path("map.tsv"))


def test_map_lines_for_no_class_are_named(evaluate, tmp_path, capsys):
    (tmp_path / "map.tsv").write_text("a\ta\nzebra\tb\n")
    evaluate([{"image": "1", "tags": ["a"]}], TRUTH, map_file=Path("map.tsv"))
    assert "lines of --map for no class: zebra\n" in capsys.readouterr().err


def test_without_a_map_line_all_strings_of_a_class_count(evaluate, tmp_path):
    classes = {"tag": "a", "synonyms": ["x", "y"]}
    (tmp_path / "classes.jsonl").write_text(json.dumps(classes) + "\n")
    truth = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": []}]
    predictions = dense([[0.7, 0.1], [0.2, 0.9]], "xy")
    assert evaluate(predictions, truth, classes=Path("classes.jsonl"))["mAP"] == 0.5


def test_synonyms_of_the_predictions_labels_count(evaluate, tmp_path):
    labels = [{"tag": "feline", "synonyms": ["a"]}, {"tag": "b"}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    predictions = dense([[0.9, 0], [0, 0.9], [0, 0]], ["feline", "b"])
    options = {"labels": Path("labels.jsonl")}
    assert evaluate(predictions, TRUTH, **options)["classes"]["without_tag"] == []
    del predictions[0]["label_names"]
    assert recall(evaluate(predictions, TRUTH, **options)) == 1.0


def test_dense_scores_refer_to_the_labels_that_they_name(evaluate):
    one = dense([[0.9, 0]], "ab", labels="one")
    other = {"image": "2", "dense": [0.9, 0], "label_names": ["b", "a"], "labels": "other"}
    last = {"image": "3", "dense": [0, 0.9], "labels": "one"}
    truth = [*TRUTH[:2], {"image": "3", "tags": ["b"]}]
    assert recall(evaluate([*one, other, last], truth)) == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        {"dense": [0.1]},
        {"dense": [0.1, 0.2, 0.3]},
        {"scores": {"a": True}},
        {"scores": {"a": float("inf")}},
        {"tags": ["a"], "image": "1"},
    ],
    ids=str,
)
def test_a_record_that_does_not_fit_is_rejected(evaluate, bad):
    rows = [*dense([[0.9, 0], [0, 0.9]]), {"image": "3", **bad}]
    assert evaluate(rows, TRUTH, code=3)["photos"]["compared"] == 2


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_score_that_is_not_finite_is_a_problem(number):
    reader = ScoreReader(Classes(LabelSystem.from_tags("ab"), None, {}), Cut())
    for fields in (
        {"dense": [number, 0.5], "label_names": ["a", "b"]},
        {"scores": {"a": number}},
    ):
        with pytest.raises(RecordProblem):
            reader.read(fields)


def test_own_tags_decide_only_if_all_records_have_them(evaluate):
    with_tags = [
        {"image": "1", "scores": {"a": 0.2}, "tags": ["a"]},
        {"image": "2", "scores": {"b": 0.9}, "tags": []},
    ]
    result = evaluate(with_tags, TRUTH)
    assert (result["OP"], recall(result)) == (1.0, 0.5)
    del with_tags[1]["tags"]
    assert evaluate(with_tags, TRUTH)["decided_by"] == "0.5"
    with_tags[1]["tags"] = []
    result = evaluate(with_tags, TRUTH, threshold="0.1")
    assert (recall(result), result["decided_by"]) == (1.0, "0.1")


def test_tags_without_scores_rank_above_any_score(evaluate):
    predictions = [{"image": "1", "tags": ["a"]}, {"image": "3", "scores": {"a": 0.9}}]
    assert evaluate(predictions, [TRUTH[0], TRUTH[2]])["mAP"] == 1.0


def test_scores_that_were_cut_off_are_noticed(evaluate, tmp_path):
    (tmp_path / "classes.txt").write_text("a\nzebra\n")
    full = dense([[0.9, 0.2], [0.3, 0.9], [0.1, 0.1]])
    # The class "zebra" has score 0 everywhere, because no tag stands for it.
    assert evaluate(full, TRUTH, classes=Path("classes.txt"))["looks_thresholded"] is False
    assert evaluate(dense([[0.9, 0], [0, 0.9], [0, 0]]), TRUTH)["looks_thresholded"] is True


def test_what_the_truth_does_not_say_counts_neither_way(evaluate):
    predictions = [{"image": n, "scores": {"a": s}} for n, s in (("1", 0.5), ("2", 0.9))]
    silent = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": [], "negatives": ["b"]}]
    assert evaluate(predictions, silent)["mAP"] == 1.0
    silent[1]["negatives"] = ["a"]
    assert evaluate(predictions, silent)["mAP"] == 0.5
    uncertain = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": [], "uncertain": ["a"]}]
    assert evaluate(predictions, uncertain)["mAP"] == 1.0
    both = [{"image": "1", "tags": ["a"], "uncertain": ["a"]}, {"image": "2", "tags": []}]
    assert evaluate(predictions, both)["mAP"] == 0.5


def test_the_truth_names_classes_in_every_field(evaluate):
    truth = [{"image": "1", "tags": ["a"], "uncertain": ["b"], "negatives": ["c"]}]
    result = evaluate([{"image": "1", "tags": ["a"]}], truth)
    assert result["classes"]["names"] == ["a", "b", "c"]


def test_the_authors_lists_have_empty_cells_and_lines(evaluate):
    result = evaluate("1,a,\n2,b,\n", "1,a,\n\n2,b\n ,a\n", lists=True)
    assert result["classes"]["names"] == ["a", "b"]
    assert (result["photos"]["compared"], result["mAP"]) == (2, 1.0)
    assert result["photos"]["only_in_truth"] == 0


def test_strict_fails_at_the_first_reject(evaluate):
    bad = [{"image": "1"}]
    with pytest.raises(RunProblem, match=r"predictions.jsonl:1: .* \(--strict\)"):
        evaluate(bad, TRUTH, strict=True)
    with pytest.raises(RunProblem, match="the predictions have no photo"):
        evaluate(bad, TRUTH)


def test_a_group_without_an_evaluated_class_is_an_error(evaluate, tmp_path):
    (tmp_path / "groups.tsv").write_text("seen\ta\nunseen\tzebra\n")
    with pytest.raises(RunProblem, match="no class of group 'unseen' is evaluated"):
        evaluate([{"image": "1", "tags": ["a"]}], TRUTH, groups=Path("groups.tsv"))


def test_the_class_list_has_the_hash_of_its_file(evaluate, tmp_path):
    import hashlib

    (tmp_path / "classes.txt").write_text("b\na\n")
    result = evaluate([{"image": "1", "tags": ["a"]}], TRUTH, classes=Path("classes.txt"))
    assert result["classes"]["sha256"] == hashlib.sha256(b"b\na\n").hexdigest()


def test_a_bare_list_of_thresholds_is_in_class_order_only_for_listed_classes(evaluate, tmp_path):
    (tmp_path / "thresholds.txt").write_text("0.1\n0.8\n")
    (tmp_path / "classes.txt").write_text("b\na\n")
    predictions = dense([[0.5, 0], [0, 0.5], [0, 0]])
    listed = evaluate(
        predictions, TRUTH, threshold="thresholds.txt", classes=Path("classes.txt"),
        report_file=Path("t.csv"),
    )  # fmt: skip
    assert recall(listed) == 0.5
    assert "b,1,2,0,1.0000,,,1.0000,1.0000" in Path("t.csv").read_text()
    # Without a list of classes, the order is that of the predictions' labels: b, a.
    swapped = dense([[0, 0.5], [0.5, 0], [0, 0]], "ba")
    evaluate(swapped, TRUTH, threshold="thresholds.txt", report_file=Path("t.csv"))
    assert "a,1,2,0,1.0000,,,0.0000,0.0000" in Path("t.csv").read_text()
    assert "b,1,2,0,1.0000,,,1.0000,1.0000" in Path("t.csv").read_text()
