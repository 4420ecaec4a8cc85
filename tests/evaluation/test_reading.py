"""What records of truth and predictions notify: classes, scores, decisions, thresholds."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ramctl.checkpoints.bundle import read_labels
from ramctl.errors import RunProblem
from ramctl.labels import Label, Labels
from tests.evaluation.conftest import TRUTH, dense, sparse, write


@pytest.mark.parametrize("form", [dense, sparse])
def test_a_score_at_the_threshold_is_not_given(evaluate, form):
    at = form([[0.4, 0.3], [0.1, 0.4], [0, 0]])
    write("classes.jsonl", {"tag": "a", "threshold": 0.4})
    for threshold, expected in (("0.4", 0), ("0.39", 1), ("classes.jsonl", 0)):
        assert evaluate(at, TRUTH, threshold=threshold)["OR"] == expected


@pytest.mark.parametrize("form", [dense, sparse])
@pytest.mark.parametrize("first", [[0.9, 0.1], [0.1, 0.9]])
def test_a_class_takes_the_maximum_of_its_tags_whatever_their_order(evaluate, form, first):
    Path("map.tsv").write_text("# tags of a class\na\tX|y\n")
    truth = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": []}]
    result = evaluate(form([first, [0.6, 0.6]], "xy"), truth, map_file=Path("map.tsv"))
    assert (result["mAP"], result["OP"], result["OR"]) == (1.0, 0.5, 1.0)


def test_a_map_is_read_whatever_the_case_of_its_classes(evaluate, tmp_path):
    (tmp_path / "map.tsv").write_text("A\tx\n\nzebra\tb\n")
    predictions = [{"image": "1", "tags": ["x"]}, {"image": "2", "tags": ["B"]}]
    result = evaluate(predictions, TRUTH[:2], map_file=Path("map.tsv"))
    assert (result["OR"], result["classes"]["without_tag"]) == (1.0, [])
    truth = [{"image": "1", "tags": ["A"]}, {"image": "2", "tags": []}]
    (tmp_path / "map.tsv").write_text("a\tx\n")
    assert evaluate(predictions, truth, map_file=Path("map.tsv"))["OR"] == 1.0
    (tmp_path / "map.tsv").write_text("a\tx\na\ty\n")
    with pytest.raises(RunProblem, match=r"map.tsv:2: 'a' has a line already"):
        evaluate(predictions, TRUTH, map_file=Path("map.tsv"))


def test_map_lines_for_no_class_are_named(evaluate, tmp_path, capsys):
    (tmp_path / "map.tsv").write_text("a\ta\nzebra\tb\n")
    evaluate([{"image": "1", "tags": ["a"]}], TRUTH, map_file=Path("map.tsv"))
    assert "lines of --map that name no class: zebra\n" in capsys.readouterr().err


def test_dense_scores_refer_to_the_labels_that_they_name(evaluate):
    one = dense([[0.9, 0]], "ab", labels="one")
    other = {"image": "2", "dense": [0.9, 0], "label_names": ["b", "a"], "labels": "other"}
    last = {"image": "3", "dense": [0, 0.9], "labels": "one"}
    truth = [*TRUTH[:2], {"image": "3", "tags": ["b"]}]
    assert evaluate([*one, other, last], truth)["OR"] == 1.0


def test_labels_of_the_embedded_model_are_known_with_their_synonyms(evaluate, monkeypatch):
    system = Labels([Label("a", synonyms=("first",)), Label("b")])
    monkeypatch.setattr("ramctl.evaluation.predictions.read_labels", lambda name: system)
    truth = [{"image": "1", "tags": ["first"]}, {"image": "2", "tags": ["b"]}]
    for key, expected in ((f"sha256:{system.sha256}", 1.0), ("sha256:other", 0.5)):
        predictions = dense([[0.9, 0], [0, 0.9]], "ab", labels=key)
        assert evaluate(predictions, truth)["OR"] == expected


def test_labels_and_classes_may_be_a_bundle_by_its_name(evaluate):
    system = read_labels("mini")
    predictions = [{"image": "1", "scores": {system[0].tag: 0.9}}]
    truth = [{"image": "1", "tags": [system[0].tag]}]
    result = evaluate(predictions, truth, classes=Path("mini"), labels=Path("mini"))
    assert result["classes"]["names"] == system.tags


def test_own_tags_decide_only_if_all_records_have_them(evaluate):
    with_tags = [
        {"image": "1", "scores": {"a": 0.2}, "tags": ["a"]},
        {"image": "2", "scores": {"b": 0.9}, "tags": []},
    ]
    result = evaluate(with_tags, TRUTH)
    assert (result["OP"], result["OR"]) == (1.0, 0.5)
    del with_tags[1]["tags"]
    assert evaluate(with_tags, TRUTH)["decided_by"] == "0.5"
    with_tags[1]["tags"] = []
    result = evaluate(with_tags, TRUTH, threshold="0.1")
    assert (result["OR"], result["decided_by"]) == (1.0, "0.1")


def test_tags_without_scores_rank_above_any_score(evaluate):
    predictions = [{"image": "1", "tags": ["a"]}, {"image": "3", "scores": {"a": 0.9}}]
    assert evaluate(predictions, [TRUTH[0], TRUTH[2]])["mAP"] == 1.0


def test_scores_that_were_cut_off_are_noticed(evaluate, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("a\nzebra\n")
    full = dense([[0.9, 0.2], [0.3, 0.9], [0.1, 0.1]])
    # The class "zebra" has score 0 everywhere, because no tag stands for it.
    assert evaluate(full, TRUTH, classes=Path("classes.txt"))["looks_thresholded"] is False
    assert "scores are missing" not in capsys.readouterr().err
    assert evaluate(dense([[0.9, 0], [0, 0.9], [0, 0]]), TRUTH)["looks_thresholded"] is True
    assert "scores are missing" in capsys.readouterr().err


def test_what_a_person_decided_on_a_models_tags_is_true_and_the_others_are_unknown(evaluate):
    given = {"tags": ["a", "b"], "scores": {"a": 0.9, "b": 0.8}}
    truth = [
        {"image": "1", **given, "confirmed": ["a"]},
        {"image": "2", **given, "refused": ["a"], "confirmed": ["b"]},
        {"image": "3", **given, "refused": ["a"]},
    ]
    result = evaluate(sparse([[0.9, 0.8]] * 3), truth, report_file=Path("r.csv"), threshold="0.5")
    assert (result["OP"], result["OR"]) == (2 / 4, 1.0)
    assert "\na,1,2,0," in Path("r.csv").read_text() and "\nb,1,0,2," in Path("r.csv").read_text()


def test_what_the_truth_does_not_say_counts_neither_way(evaluate):
    predictions = [{"image": n, "scores": {"a": s}} for n, s in (("1", 0.5), ("2", 0.9))]
    silent = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": [], "negatives": ["b"]}]
    assert evaluate(predictions, silent)["mAP"] == 1.0
    silent[1]["negatives"] = []
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


def test_a_bare_list_of_thresholds_is_in_class_order_only_for_listed_classes(evaluate, tmp_path):
    (tmp_path / "thresholds.txt").write_text("0.1\n0.8\n")
    (tmp_path / "classes.txt").write_text("b\na\n")
    predictions = dense([[0.5, 0, 0], [0, 0.5, 0], [0, 0, 0]], "abc")
    listed = evaluate(
        predictions, TRUTH, threshold="thresholds.txt", classes=Path("classes.txt"),
        report_file=Path("t.csv"),
    )  # fmt: skip
    assert listed["OR"] == 0.5
    assert "b,1,2,0,1.0000,1.0000,1.0000" in Path("t.csv").read_text()
    with pytest.raises(RunProblem, match=r"thresholds.txt: .* need --classes, which orders them"):
        evaluate(predictions, TRUTH, threshold="thresholds.txt")
    Path("classes.txt").write_text("b\na\nc\n")
    with pytest.raises(RunProblem, match="2 thresholds for 3 labels"):
        evaluate(predictions, TRUTH, threshold="thresholds.txt", classes=Path("classes.txt"))


def test_a_threshold_for_no_class_is_an_error(evaluate):
    file = str(write("t.jsonl", {"tag": "zebra", "threshold": 0.3}))
    with pytest.raises(RunProblem, match=r"t\.jsonl: no line names a class"):
        evaluate(dense([[0.4, 0.1]]), TRUTH, threshold=file)


def test_average_precision_of_read_scores_equals_scikit_learns_in_any_order(evaluate):
    random = np.random.default_rng(3)
    scores = random.random((400, 4)) * 10.0 ** -np.arange(0, 16, 4)
    scores = np.vectorize(lambda value: float(f"{value:.6g}"))(scores)
    truth = random.random(scores.shape) < 0.2
    rows = [{"image": str(n), "dense": row} for n, row in enumerate(scores.tolist())]
    rows[0]["label_names"] = list("abcd")
    tags = [[tag for tag, true in zip("abcd", row, strict=True) if true] for row in truth]
    records = [{"image": str(n), "tags": given} for n, given in enumerate(tags)]
    expected = [average_precision_score(truth[:, c], scores[:, c]) for c in range(4)]
    shuffled = [{**rows[n], "label_names": list("abcd")} for n in random.permutation(400).tolist()]
    for predictions in (rows, shuffled):
        assert evaluate(predictions, records)["mAP"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_scores_beyond_single_precision_are_its_ends(evaluate):
    rows = sparse([[1e300, -1e300], [-1e300, 0], [0, 1e300]])
    result = evaluate(rows, TRUTH)
    assert (result["mAP"], result["score_range"]) == (0.75, [-1e300, 1e300])
