"""Inputs that once gave a wrong number without a word, or ended the run."""

import gzip
import json
from pathlib import Path

import pytest

from ramctl.errors import RunProblem, UsageProblem
from tests.evaluation.conftest import TRUTH, dense, sparse, write


@pytest.mark.parametrize("form", [dense, sparse])
def test_a_class_with_synonyms_takes_the_highest_of_their_scores(evaluate, form):
    rows = [[0.2, 0.9, 0], [0.5, 0.1, 0.9], [0.6, 0.1, 0.1]]
    classes = write("classes.jsonl", {"tag": "a", "synonyms": ["x", "y"]}, {"tag": "b"})
    for names in ("axb", "xyb", "yxb"):  # without a string of its own too
        assert evaluate(form(rows, names), TRUTH, classes=classes)["mAP"] == 1.0


@pytest.mark.parametrize("form", [dense, sparse])
def test_names_that_differ_in_case_and_hyphens_are_found_alike(evaluate, form):
    truth = [{"image": "1", "tags": ["T shirt", "Dog"]}, {"image": "2", "tags": ["t-shirt"]}]
    for names in (["T shirt", "t-shirt", "dog"], ["T shirt", "t-shirt", "DOG"]):
        assert evaluate(form([[0.9, 0.3, 0.8], [0.8, 0.7, 0.1]], names), truth)["mAP"] == 1.0
    both = evaluate(form([[0.9, 0.8], [0.3, 0.1]], ["T-Shirt", "dog"]), truth)
    assert (both["mAP"], both["classes"]["without_tag"]) == ((1 + 1 / 2 + 1) / 3, [])


@pytest.mark.parametrize("form", [dense, sparse])
def test_scores_by_a_synonym_of_their_own_label_system_count(evaluate, form):
    labels = write("labels.jsonl", {"tag": "feline", "synonyms": ["a"]}, {"tag": "b"})
    rows = [[0.9, 0.1], [0.1, 0.9], [0.2, 0.2]]
    for names in (["a", "b"], ["feline", "b"]):
        result = evaluate(form(rows, names), TRUTH, labels=labels)
        assert (result["mAP"], result["classes"]["without_tag"]) == (1.0, [])
    assert evaluate(form(rows, ["feline", "b"]), TRUTH)["classes"]["without_tag"] == ["a"]


def test_dense_scores_without_names_are_those_of_the_label_system(evaluate):
    labels = write("labels.jsonl", {"tag": "feline", "synonyms": ["a"]}, {"tag": "b"})
    rows = dense([[0.9, 0], [0, 0.9], [0, 0]])
    del rows[0]["label_names"]
    assert evaluate(rows, TRUTH, labels=labels)["OR"] == 1.0


def test_a_synonym_that_is_a_label_too_stands_for_that_label_alone(evaluate):
    labels = write("labels.jsonl", {"tag": "feline", "synonyms": ["a"]}, {"tag": "a"}, {"tag": "b"})
    rows = sparse([[0.1, 0.9, 0], [0.8, 0.1, 0.9], [0.8, 0.2, 0]], ["feline", "a", "b"])
    assert evaluate(rows, TRUTH, labels=labels)["mAP"] == 1.0


@pytest.mark.parametrize("form", [dense, sparse])
def test_scores_are_any_finite_numbers(evaluate, form, capsys):
    rows = [[-2, -9], [-3, -1.5], [-7, -8]]
    result = evaluate(form(rows, "ab"), TRUTH)
    assert (result["mAP"], result["score_range"]) == (1.0, [-9.0, -1.5])
    assert (result["decided_by"], result["OR"]) == ("0", 0.0)
    assert capsys.readouterr().err.count("scores are not probabilities (-9 to -1.5)") == 1
    assert evaluate(form(rows, "ab"), TRUTH, threshold="-2.5")["OF1"] == 1.0


def test_a_logit_that_is_not_there_is_below_all_others(evaluate):
    rows = [{"image": "1", "scores": {"a": -5}}, {"image": "2", "scores": {"b": -1}}]
    result = evaluate([*rows, {"image": "3", "scores": {}}], TRUTH)
    assert (result["mAP"], result["looks_thresholded"]) == (1.0, True)


def test_a_threshold_beyond_probabilities_is_wrong_usage_for_these_alone(evaluate):
    rows = dense([[0.9, 0], [0, 0.9], [0, 0]], "ab")
    for threshold in ("7", "-0.5"):
        with pytest.raises(UsageProblem, match="a probability is between 0 and 1"):
            evaluate(rows, TRUTH, threshold=threshold)
    with pytest.raises(UsageProblem, match=r"nowhere\.jsonl: neither a number nor a file"):
        evaluate(rows, TRUTH, threshold="nowhere.jsonl")


def test_names_of_labels_count_even_where_their_record_is_rejected(evaluate):
    first = dense([[0.9, 0.1]], "ab")
    for bad in ({"image": "1"}, {}, {"image": "2", "dense": [1]}):
        second = {**first[0], "label_names": ["b", "a"], **bad}
        if not bad:
            del second["image"]
        rows = [*first, second, {"image": "2", "dense": [0.9, 0.1]}]
        assert evaluate(rows, TRUTH, code=3)["OF1"] == 1.0


def test_names_of_labels_that_are_none_leave_what_follows_without(evaluate):
    rows = [*dense([[0.9, 0.1]], "ab"), {"image": "2", "dense": [0, 1], "label_names": ["b", 1]}]
    rows.append({"image": "3", "dense": [0.9, 0.1]})
    assert evaluate(rows, TRUTH, code=3)["photos"]["compared"] == 1


def test_packed_lists_are_read(evaluate, tmp_path):
    from ramctl.evaluation.evaluate import EvalOptions, run

    evaluate("1,a\n2,b\n", "1,a\n2,b\n", lists=True)
    for name in ("truth", "predictions"):
        content = Path(f"{name}.txt").read_bytes()
        Path(f"{name}.txt.gz").write_bytes(gzip.compress(content))
    run(EvalOptions("truth.txt.gz", "predictions.txt.gz", output=Path("packed.json")))
    assert json.loads(Path("packed.json").read_text())["mAP"] == 1.0


@pytest.mark.parametrize("value", ["nan", "-inf", '{"tag": "a", "threshold": "nan"}'])
def test_thresholds_are_finite(evaluate, value):
    rows = [{"image": "1", "tags": ["a"]}]
    Path("t").write_text(f"{value}\n{value}\n")
    with pytest.raises(RunProblem, match="t:1: "):
        evaluate(rows, TRUTH, threshold="t", classes=write("c.jsonl", {"tag": "a"}, {"tag": "b"}))
    if "{" not in value:
        with pytest.raises(UsageProblem, match="not a finite number"):
            evaluate(rows, TRUTH, threshold=value)


@pytest.mark.parametrize("form", [dense, sparse])
def test_a_class_that_predictions_do_not_know_counts_as_0(evaluate, form):
    rows = form([[0.9], [0.1], [0.2]], "a")
    result = evaluate(rows, TRUTH, report_file=Path("r.csv"))
    assert (result["mAP"], result["averaged_classes"]) == (0.5, 2)
    assert (result["CR"], result["OR"]) == (0.5, 0.5)
    assert "\nb,1,2,0,0.0000,0.0000,0.0000,0.0000,b\n" in Path("r.csv").read_text()
