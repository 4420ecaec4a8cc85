"""`ramctl eval` as a user runs it."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.support import lines, write_records

TRUTH = [
    {"image": "p/1.jpg", "tags": ["cat"]},
    {"image": "p/2.jpg", "tags": ["dog"], "uncertain": ["cat"]},
    {"image": "p/3.jpg", "tags": ["cat", "dog"]},
    {"image": "p/4.jpg", "tags": []},
]
NAMES = ["kitten", "dog", "cat", "tv", "television"]
DENSE = [[0.1, 0.2, 0.9, 0, 0], [0.1, 0.7, 0.95, 0, 0], [0.6, 0.8, 0.2, 0, 0], [0, 0.3, 0.3, 0, 0]]


def dense_rows(values=DENSE) -> list[dict]:
    """Predictions as `tag --dense` writes them: the names on the first line only."""
    rows = [
        {"image": row["image"], "labels": "sha256:1", "dense": scores}
        for row, scores in zip(TRUTH, values, strict=True)
    ]
    rows[0]["label_names"] = NAMES
    return rows


@pytest.fixture
def truth(tmp_path) -> Path:
    return write_records(tmp_path / "truth.jsonl", TRUTH)


@pytest.fixture
def evaluated(ramctl, truth, tmp_path):
    """Evaluates predictions from stdin; returns the result and the finished process."""

    def run(rows, *options, code=0):
        stdin = rows if isinstance(rows, bytes) else lines(rows)
        done = ramctl("eval", "-", "--truth", truth, *options, stdin=stdin)
        assert done.returncode == code, done.stderr.decode()
        return json.loads(done.stdout), done

    return run


def test_parquet_gives_the_figures_of_the_lines(evaluated, ramctl, truth, tmp_path):
    expected, _ = evaluated(dense_rows())
    write_records(tmp_path / "rows.jsonl", (row | {"tags": []} for row in dense_rows()))
    assert ramctl("export", "rows.jsonl", "-f", "parquet", "-o", "x.parquet").returncode == 0
    (result,) = ramctl("eval", "x.parquet", "--threshold", 0.5, "--truth", truth).rows
    for figure in ("mAP", "CP", "CR", "OP", "OR"):
        assert result[figure] == expected[figure], figure


def test_figures_come_out_as_one_object(evaluated):
    result, done = evaluated(dense_rows())
    # cat: positives .9 and .2 among .9 .3 .2 (.95 is uncertain); dog: both on top.
    assert result["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert (result["CP"], result["CR"]) == (1.0, 0.75)
    assert (result["OP"], result["OR"]) == (1.0, 0.75)
    assert result["decided_by"] == "0.5"
    assert result["photos"]["compared"] == 4
    assert done.stdout.count(b"\n") == 1
    assert b"8 in, 4 out, 0 rejected" in done.stderr


def test_what_the_figures_stand_on_is_always_printed(evaluated, tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ncat\nunicorn\n")
    result, done = evaluated(dense_rows(), "--classes", "classes.txt")
    classes = result["classes"]
    assert classes["names"] == ["dog", "cat", "unicorn"]
    assert classes["sha256"] == hashlib.sha256(b"dog\ncat\nunicorn\n").hexdigest()
    assert classes["without_positives"] == classes["without_tag"] == ["unicorn"]
    assert result["averaged_classes"] == 2
    assert b"classes without a predicted tag (see --map, --labels): unicorn" in done.stderr


@pytest.mark.shared
def test_the_authors_files_give_the_authors_figures(ramctl, shared, tmp_path):
    numbers = json.loads((shared / "parity" / "metrics_expected.json").read_text())
    (tmp_path / "annots.txt").write_text(numbers["gt_file"])
    (tmp_path / "classes.txt").write_text("\n".join(numbers["taglist"]))
    (tmp_path / "thresholds.txt").write_text("\n".join(map(str, numbers["thresholds"])))
    names = [line.split(",")[0] for line in numbers["gt_file"].splitlines()]
    rows = [
        {"image": f"imgs/{name}.jpg", "dense": scores}
        for name, scores in zip(names, numbers["scores"], strict=True)
    ]
    rows[0]["label_names"] = numbers["taglist"]
    done = ramctl(
        *("eval", "-", "--truth", "annots.txt", "--classes", "classes.txt"),
        *("--threshold", "thresholds.txt"),
        stdin=lines(rows),
    )
    result = json.loads(done.stdout)
    assert result["photos"]["matched_by"] == {"base name": 40}
    assert result["classes"]["without_positives"] == ["never"]  # 0 in the authors' means
    for ours in ("mAP", "CP", "CR"):
        assert result[ours] * 5 / 6 == pytest.approx(numbers[ours], abs=1e-8)
    (tmp_path / "pred.txt").write_text(numbers["pred_file"])
    done = ramctl("eval", "pred.txt", "--truth", "annots.txt", "--classes", "classes.txt")
    assert json.loads(done.stdout)["photos"]["matched_by"] == {"name": 40}


BAD = [
    ("{oops", "bad_json"),
    ('{"scores": {}}', "missing_field"),
    ('{"image": "p/4.jpg"}', "missing_field"),
    ('{"image": "p/4.jpg", "dense": [0.1], "labels": "sha256:2"}', "missing_field"),
    ('{"image": "p/1.jpg", "scores": {"cat": 0.5}}', "bad_field"),
    ('{"image": "p/1.jpg", "tags": ["cat"]}', "bad_field"),
]
WRONG = ["[1, 2]", "[0, 0, 0, 0, 0, 1]", '["0.1", 0, 0, 0, 0]', "[1, [2], 0, 0, 0]", "[[1, 2]]"]
WRONG += ["[1, null, 0, 0, 0]", "[true, false, true, true, true]", "{}", '"abcde"', "[]"]
SCORES = [f'"dense": {dense}, "labels": "sha256:1"' for dense in WRONG]
SCORES += ['"scores": {"cat": "high"}', '"scores": {"cat": true}']
BAD += [(f'{{"image": "p/4.jpg", {scores}}}', "bad_field") for scores in SCORES]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_an_unusable_prediction_is_rejected_and_the_rest_counts(evaluated, tmp_path, line, reason):
    text = lines(dense_rows()[:3]) + line.encode() + b"\n"
    result, _ = evaluated(text, "--rejects", "rejects.jsonl", code=3)
    (reject,) = [json.loads(row) for row in (tmp_path / "rejects.jsonl").open()]
    assert (reject["stage"], reject["line"], reject["code"]) == ("eval", 4, reason)
    assert result["photos"]["compared"] == 3


def test_an_unusable_line_of_the_truth_is_rejected(evaluated, truth):
    more = b'{"image": "p/5.jpg"}\n{"image": "p/6.jpg", "tags": "cat"}\n'
    truth.write_bytes(lines(TRUTH) + more)
    _, done = evaluated(dense_rows(), code=3)
    assert b"truth.jsonl:5: no tags field" in done.stderr
    assert b"truth.jsonl:6: tags is not a list of strings" in done.stderr


def failure(ramctl, *arguments, stdin=b"") -> tuple[int, str]:
    done = ramctl("eval", *arguments, stdin=stdin)
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    return done.returncode, done.stderr.decode()


def test_nothing_to_evaluate_is_one_line_and_exit_1(ramctl, truth, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    write_records(tmp_path / "dull.jsonl", [{"image": "p/1.jpg", "tags": []}])
    prediction = lines([{"image": "p/1.jpg", "scores": {"cat": 1}}])
    strange = lines([{"image": "q/8.jpg", "scores": {"cat": 1}}])
    for file, stdin, reason in (
        ("truth.jsonl", b"", "the predictions have no photo"),
        ("empty.jsonl", prediction, "the truth has no photo"),
        ("truth.jsonl", strange, "no photo is on both sides"),
        ("dull.jsonl", prediction, "no photo has a tag of the class list"),
    ):
        code, message = failure(ramctl, "-", "--truth", file, stdin=stdin)
        assert code == 1
        assert f"nothing to evaluate: {reason}" in message


def test_wrong_usage_and_files_that_are_not_there_or_no_map_are_one_line(ramctl, truth, tmp_path):
    (tmp_path / "map.tsv").write_text("cat\tcat\ndog dog\n")
    for words, expected, said in (
        (["x.jsonl"], 2, "--truth"),
        (["-", "--truth", "-"], 2, "stdin"),
        (["-", "--truth", truth, "--threshold", "7"], 2, "--threshold"),
        (["nowhere.jsonl", "--truth", truth], 2, "nowhere.jsonl: no such file"),
        (["-", "--truth", truth, "--map", "map.tsv"], 1, "map.tsv:2: expected class<TAB>tag|tag"),
    ):
        code, message = failure(ramctl, *words)
        assert code == expected and said in message


def test_the_table_fits_80_columns_and_loses_nothing(ramctl, truth):
    names = [f"a class with a rather long name, number {n}" for n in range(30)]
    truth.with_name("classes.txt").write_text("cat\ndog\n" + "\n".join(names) + "\n")
    long = f"{'folder' * 12}/{'file' * 8}.jsonl"
    truth.with_name(long.split("/")[0]).mkdir()
    for name in (long, "b.jsonl"):
        write_records(truth.with_name(long.split("/")[0]).parent / name, dense_rows())
    arguments = ("eval", long, "b.jsonl", "--truth", truth, "--classes", "classes.txt")
    done = ramctl(*arguments, "-f", "table")
    shown = done.stdout.decode().splitlines()
    assert max(map(len, shown)) <= 80
    text = "".join(line.strip() for line in shown)
    for name in names:
        assert name.replace(" ", "") in text.replace(" ", "")
    assert f"comparison.systems.{long}.mAP" in text.replace(" ", "")
    alone = ramctl("eval", long, "--truth", truth, "--ci", "-f", "table")
    lines_alone = alone.stdout.decode().splitlines()
    assert max(map(len, lines_alone)) <= 80
    names = ("mAP", "CP", "OF1", "mAP_ci", "photos.compared")
    short = [line for line in lines_alone if line.split(" ")[0] in names]
    assert len(short) == len(names)
    assert len({line.index(line.split()[1], len(line.split()[0])) for line in short}) == 1
