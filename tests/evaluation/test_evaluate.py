"""`ramctl eval`: what is read, matched, decided, compared, written and refused."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ramctl.evaluation.evaluate import EvalOptions, run
from ramctl.evaluation.tagger_scores import match
from ramctl.records.labels import Label, Labels
from tests.support import lines, write_records

TRUTH = [{"image": "1", "tags": ["a"]}, {"image": "2", "tags": ["b"]}, {"image": "3", "tags": []}]


def dense(values, names="ab", **first) -> list[dict]:
    """Predictions of photos 1, 2, ...: a row of scores each, the names on the first line only."""
    rows = [{"image": str(i), "dense": row} for i, row in enumerate(values, 1)]
    rows[0] |= {"label_names": list(names), **first}
    return rows


def sparse(values, names="ab") -> list[dict]:
    """The same with the scores by name on every line."""
    return [
        {"image": str(i), "scores": dict(zip(names, row, strict=True))}
        for i, row in enumerate(values, 1)
    ]


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluates rows, or the text of a list, in `tmp_path`; options as in `EvalOptions`.

    `files` are contents by name.
    """
    monkeypatch.chdir(tmp_path)

    def write(stem, rows) -> str:
        if isinstance(rows, str):
            Path(f"{stem}.txt").write_text(rows)
            return f"{stem}.txt"
        return write_records(Path(f"{stem}.jsonl"), rows).name

    def go(predictions, truth=TRUTH, *, files=None, **options):
        for name, text in (files or {}).items():
            Path(name).write_text(text)
        if not isinstance(predictions, dict):
            predictions = {"predictions": predictions}
        systems = tuple(write(name, rows) for name, rows in predictions.items())
        report = run(EvalOptions(write("truth", truth), systems, output=Path("out"), **options))
        assert report.exit_code == 0
        return json.loads(Path("out").read_text()) if "format" not in options else None

    return go


RIGHT = [[0.9, 0], [0.1, 1], [0.2, 0.2]]
# Class   truth   given    TP FP FN    P    R   F1
# a       1 2     1 2 3     2  1  0   2/3   1  4/5
# b       1 3     2 3       1  1  1   1/2 1/2  1/2
# c       4       -         0  0  1    0   0    0
# d       -       1         0  1  0    (no positives)
COUNTED = [{"image": n, "tags": [*tags]} for n, *tags in ("1ab", "2a", "3b", "4c")]
GIVEN = [{"image": n, "tags": [*tags]} for n, *tags in ("1ad", "2ab", "3ab", "4")]


def row(photo, **fields):
    return {"image": photo, **fields}


def pair(**second):
    """The truth of two photos, of which the first shows an a."""
    return [row("1", tags=["a"]), row("2", tags=[], **second)]


TWO = [row("1", scores={"a": 0.5}), row("2", scores={"a": 0.9})]
CUT = [row("1", scores={"a": 0.2}, tags=["a"]), row("2", scores={"b": 0.9}, tags=[])]
LOGITS = [[-2, -9], [-3, -1.5], [-7, -8]]
SHIRTS = [row("1", tags=["T shirt", "Dog"]), row("2", tags=["t-shirt"])]
# Predictions, truth, options with the files that they name, and some of the figures.
CASES = {
    "dense scores have the names of the first line": (dense(RIGHT), TRUTH, {}, {"mAP": 1, "OR": 1}),
    "sparse scores have names on each": (sparse(RIGHT), TRUTH, {}, {"mAP": 1, "OR": 1}),
    "names hold until others come": (
        [*dense([[0.9, 0]]), row("2", dense=[0.9, 0], label_names=["b", "a"]),
         row("3", dense=[0.9, 0])],
        [*TRUTH[:2], row("3", tags=["b"])], {}, {"OR": 1},
    ),
    "a tag without a score has 1": (
        [row("1", tags=["a"]), row("3", scores={"a": 0.9})], [TRUTH[0], TRUTH[2]], {}, {"mAP": 1},
    ),
    "names differ in case and hyphens": (
        dense([[0.9, 0.3, 0.8], [0.8, 0.7, 0.1]], ["T shirt", "t-shirt", "DOG"]), SHIRTS, {},
        {"mAP": 1},
    ),
    "a class has the best score of its synonyms": (
        dense([[0.2, 0.9, 0], [0.5, 0.1, 0.9], [0.6, 0.1, 0.1]], "xyb"), TRUTH,
        {"classes": '{"tag": "a", "synonyms": ["x", "y"]}\n{"tag": "b"}'}, {"mAP": 1},
    ),
    "a class has the best score of its tags in the map": (
        dense([[0.1, 0.9], [0.6, 0.6]], "xy"), pair(), {"map_file": "# tags of a class\nA\tX|y\n"},
        {"mAP": 1, "OP": 0.5, "OR": 1},
    ),
    "a class without a predicted tag has 0": (
        dense([[0.9], [0.1], [0.2]], "a"), TRUTH, {},
        {"mAP": 0.5, "CR": 0.5, "averaged_classes": 2, "without_tag": ["b"]},
    ),
    "own tags decide": (CUT, TRUTH, {}, {"OP": 1, "OR": 0.5, "decided_by":
                                         "the predictions' own tags"}),
    "if all records have them": (
        [CUT[0], row("2", scores={"b": 0.9})], TRUTH, {}, {"OR": 0.5, "decided_by": "0.5"},
    ),
    "unless a threshold does": (CUT, TRUTH, {"threshold": "0.1"}, {"OR": 1, "decided_by": "0.1"}),
    "a score at the threshold is not given": (
        dense([[0.4, 0.3], [0.1, 0.4], [0, 0]]), TRUTH, {"threshold": "0.4"}, {"OR": 0},
    ),
    "thresholds by class": (
        sparse([[0.4, 0.3], [0.1, 0.6], [0, 0]]), TRUTH,
        {"threshold": "t", "files": {"t": '{"tag": "a", "threshold": 0.4}\n'}}, {"OR": 0.5},
    ),
    "thresholds in the order of the classes": (
        dense([[0.5, 0], [0, 0.5], [0, 0]]), TRUTH,
        {"threshold": "t", "classes": "b\na\n", "files": {"t": "0.1\n0.8\n"}}, {"OR": 0.5},
    ),
    "any finite numbers are scores": (
        dense(LOGITS), TRUTH, {"threshold": "-2.5"}, {"mAP": 1, "OF1": 1},
    ),
    "a missing score is below all": (
        [row("1", scores={"a": -5}), row("2", scores={"b": -1}), row("3", scores={})], TRUTH, {},
        {"mAP": 1},
    ),
    "a missing score is 0 where none is below": (
        [row("1", scores={"a": 0}), row("2", scores={})], pair(), {}, {"mAP": 0.5},
    ),
    "negatives alone are negative": (TWO, pair(negatives=["b"]), {}, {"mAP": 1}),
    "one that is listed is": (TWO, pair(negatives=["a"]), {}, {"mAP": 0.5}),
    "uncertain counts neither way": (TWO, pair(uncertain=["a"]), {}, {"mAP": 1}),
    "a true tag is not uncertain": (
        TWO, [row("1", tags=["a"], uncertain=["a"]), row("2", tags=[])], {}, {"mAP": 0.5},
    ),
    "classes come from each field": (
        TWO, [row("1", tags=["a"], uncertain=["c"], negatives=["b"])], {}, {"names": list("abc")},
    ),
    "tags that a person kept or took out are known, others not": (
        sparse([[0.9, 0.8]] * 3),
        [row(n, tags=["a", "b"], scores={"a": 0.9, "b": 0.8}, **decided) for n, decided in
         zip("123", ({"confirmed": ["a"]}, {"refused": ["a"], "confirmed": ["b"]},
                     {"refused": ["a"]}), strict=True)],
        {}, {"OP": 2 / 4, "OR": 1},
    ),
    "the authors' lists": (
        "1,a,\n2,b,\n", "1,a,\n\n2,b\n ,a\n", {}, {"mAP": 1, "names": ["a", "b"], "compared": 2},
    ),
    "precision and recall": (
        GIVEN, COUNTED, {"classes": "a\nb\nc\nd\n"},
        {"CP": (2 / 3 + 1 / 2) / 3, "CR": (1 + 1 / 2) / 3, "OP": 3 / 6, "OR": 3 / 5,
         "averaged_classes": 3, "without_positives": ["d"], "without_tag": ["c"],
         "sha256": hashlib.sha256(b"a\nb\nc\nd\n").hexdigest()},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_figures_of(name, evaluate):
    predictions, truth, options, expected = CASES[name]
    files = dict(options.get("files", {}))
    for option in {"classes", "map_file"} & options.keys():
        files[option] = options[option]
    paths = {option: Path(option) for option in {"classes", "map_file"} & options.keys()}
    result = evaluate(predictions, truth, **{**options, **paths, "files": files})
    found = {**result, **result["photos"], **result["classes"]}
    assert {key: found[key] for key in expected} == {
        key: pytest.approx(value) if isinstance(value, int | float) else value
        for key, value in expected.items()
    }


@pytest.mark.parametrize("known", [True, False])
def test_labels_of_the_embedded_model_are_known_with_their_synonyms(evaluate, monkeypatch, known):
    names = "abc" if known else "abd"
    system = Labels([Label("a", synonyms=("first",)), *map(Label, names[1:])])
    monkeypatch.setattr("ramctl.evaluation.predictions.read_labels", lambda name: system)
    truth = [row("1", tags=["first"]), row("2", tags=["b"])]
    result = evaluate(dense([[0.9, 0, 0.8], [0, 0.9, 0]], "abc"), truth)
    assert result["OR"] == (1 if known else 0.5)


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        (dense(RIGHT), TRUTH, ""),
        (dense(LOGITS), TRUTH, "scores are not probabilities (-9 to -1.5); decided by 0.5"),
        (TWO, TRUTH, "1 classes without a predicted tag, AP 0 (see --map): b"),
        (GIVEN[:3], TRUTH, "many scores are missing, so mAP is a lower bound"),
    ],
)
def test_what_would_be_misread_is_reported(evaluate, capsys, predictions, truth, message):
    evaluate(predictions, truth)
    shown = capsys.readouterr().err.splitlines()
    assert any(message in line for line in shown) if message else len(shown) == 1


def test_the_table_of_classes_and_that_of_figures(evaluate):
    truth = [{**COUNTED[0], "uncertain": ["c"]}, *COUNTED[1:]]
    options = {"classes": Path("c"), "files": {"c": "a\nb\nc\nd\ne\nf\n"}}
    evaluate(GIVEN, truth, report_file=Path("t.csv"), format="table", ci=True, **options)
    table = csv.reader(Path("t.csv").read_text().splitlines())
    rows = {name: values for name, *values in table}
    assert rows["c"][:3] == ["1", "2", "1"]
    assert rows["a"] == ["2", "2", "0", "0.6667", "0.6667", "1.0000", "0.8000", "a"]
    assert rows["d"] == ["0", "4", "0", "", "0.0000", "0.0000", "0.0000", "d"]
    shown = dict(line.split(maxsplit=1) for line in Path("out").read_text().splitlines()
                 if " " in line.strip())  # fmt: skip
    assert (shown["OR"], shown["classes.names"]) == ("0.6000", "a, b, c, d, e, ... (6)")
    assert " to " in shown["mAP_ci"] and shown["classes.without_positives"] == "d, e, f"


@pytest.mark.shared
def test_the_authors_files_give_the_authors_figures(evaluate, shared):
    numbers = json.loads((shared / "parity" / "metrics_expected.json").read_text())
    names = [f"imgs/{line.split(',')[0]}.jpg" for line in numbers["gt_file"].splitlines()]
    rows = [row(name, dense=scores) for name, scores in zip(names, numbers["scores"], strict=True)]
    rows[0]["label_names"] = numbers["taglist"]
    files = {"c": "\n".join(numbers["taglist"]), "t": "\n".join(map(str, numbers["thresholds"]))}
    result = evaluate(rows, numbers["gt_file"], classes=Path("c"), threshold="t", files=files)
    assert result["photos"]["matched_by"] == {"base name": 40}
    assert result["classes"]["without_positives"] == ["never"]  # 0 in the authors' means
    for ours in ("mAP", "CP", "CR"):
        assert result[ours] * 5 / 6 == pytest.approx(numbers[ours], abs=1e-8)


BAD = [
    ('{"image": "3"}', "missing_field"),
    ('{"image": "1", "tags": ["a"]}', "bad_field"),  # is there already
    ('{"image": "3", "scores": {"a": "high"}}', "bad_field"),
    ('{"image": "3", "dense": [0, 0, 1]}', "bad_field"),
    ('{"image": "3", "dense": [1e300, 0]}', "bad_field"),
    ('{"image": "3", "dense": [[1, 2]]}', "bad_field"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_an_unusable_prediction_is_rejected_and_the_rest_counts(ramctl, tmp_path, line, reason):
    write_records(tmp_path / "truth.jsonl", TRUTH)
    words = ("eval", "-", "--truth", "truth.jsonl", "--rejects", "rejects.jsonl")
    done = ramctl(*words, stdin=lines(dense(RIGHT[:2])) + line.encode() + b"\n")
    (reject,) = map(json.loads, (tmp_path / "rejects.jsonl").open())
    assert (reject["stage"], reject["line"], reject["code"]) == ("eval", 3, reason)
    assert (done.returncode, json.loads(done.stdout)["photos"]["compared"]) == (3, 2)
    assert b"6 in, 2 out, 1 rejected" in done.stderr


STRANGE = [row("q/8.jpg", scores={"a": 1})]
REFUSED = [
    ([], TRUTH, {}, 1, "the predictions have no photo"),
    (STRANGE, TRUTH, {}, 1, "no photo is on both sides (truth: 1, predictions: q/8.jpg)"),
    (TWO, [row("1", tags=[])], {}, 1, "no photo has a tag of the class list"),
    (TWO, TRUTH, {"threshold": "t"}, 1, "t: thresholds without names need --classes"),
    (TWO, TRUTH, {"threshold": "t", "classes": "c"}, 1, "2 thresholds for 3 labels"),
    (TWO, TRUTH, {"map": "m"}, 1, "m:2: expected class<TAB>tag|tag"),
]


@pytest.mark.parametrize(("predictions", "truth", "options", "code", "message"), REFUSED)
def test_refused(ramctl, tmp_path, predictions, truth, options, code, message):
    write_records(tmp_path / "truth.jsonl", truth)
    files = {"t": "0.1\n0.8\n", "c": "a\nb\nc\n", "m": "a\ta\nb b\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = {"truth": "truth.jsonl"} | options
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    done = ramctl("eval", "-", *words, stdin=lines(predictions))
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr.decode() and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("truth", "predictions", "pairs", "by_key"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "c.jpg"], [[0, 1], [1, 0]], {"name": 2}),
        (["d/x.jpg", "b.jpg"], ["b.jpg", "e/x"], [[0, 1], [1, 0]], {"name": 1, "base name": 1}),
        (["x/1.jpg", "y/1.jpg"], ["z/1.jpg"], [], {}),  # two photos of a name
        (["z/1.jpg"], ["x/1.jpg", "y/1.jpg"], [], {}),  # two predictions of it
        (["a.jpg", "x/b.png"], ["a.jpg", "y/a.jpg"], [[0, 0]], {"name": 1}),  # used once
        (["set-0000.tar#x/a.jpg"], ["a.jpg"], [[0, 0]], {"base name": 1}),
    ],
)
def test_each_photo_has_one_prediction_and_none_that_is_another_s(
    truth, predictions, pairs, by_key
):
    found, how = match(truth, predictions)
    assert (found.tolist(), how) == (pairs, by_key)


RANDOM = np.random.default_rng(0)
TRUE = RANDOM.random((60, 3)) < 0.3
NOISE = RANDOM.random((60, 3))
SHOWN = [
    {"image": str(n), "tags": [tag for tag, is_true in zip("abc", row, strict=True) if is_true]}
    for n, row in enumerate(TRUE)
]


def system(skill, photos=range(60)):
    scores = (NOISE + skill * TRUE).tolist()
    return [{"image": str(n), "scores": dict(zip("abc", scores[n], strict=True))} for n in photos]


def test_the_first_system_is_compared_with_each_other_on_the_photos_of_all(evaluate):
    systems = {"good": system(1), "same": system(1), "poor": system(0, range(50))}
    result = evaluate(systems, SHOWN, threshold="0.8", ci=True)
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


@pytest.mark.parametrize(
    ("suffix", "n_classes"), [("png", 3), ("svg", 100), ("svg", 101), ("pdf", 3)]
)
def test_a_plot_has_a_curve_a_system_and_the_classes(evaluate, suffix, n_classes):
    more = [f"c{n}" for n in range(3, n_classes)]
    truth = [{**SHOWN[0], "tags": [*SHOWN[0]["tags"], *more]}, *SHOWN[1:]]
    evaluate({"good": system(1), "poor": system(0)}, truth, plot=Path(f"x.{suffix}"))
    content = Path(f"x.{suffix}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        assert b"good.jsonl (mAP " in content and b"<!-- recall -->" in content
        assert (b"<!-- c50 -->" in content) == (n_classes == 100)
