"""A file read by several processes in parts gives what one process reads."""

import json
from functools import partial

import numpy as np
import pytest

from ramctl.errors import RunProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.parts import read_table
from ramctl.evaluation.reading import Intake
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import LabelSystem
from ramctl.records.report import Rejects, Report
from ramctl.records.workers import ordered_workers

TAGS = ["dog", "cat", "tree"]


def six_digits(value):
    return float(f"{value:.6g}")


def dense_lines(n=200, number=six_digits, names=tuple(TAGS)):
    """Photos with scores, the labels on the first line."""
    random = np.random.default_rng(0)
    rows = [
        {"image": f"{photo}.jpg", "labels": "x", "dense": [number(v) for v in random.random(3)]}
        for photo in range(n)
    ]
    rows[0]["label_names"] = list(names)
    return [json.dumps(row) for row in rows]


def sparse_lines():
    rows = [
        {"image": f"{n}.jpg", "scores": {"dog": n - 50, "cat": -n / 7}, "tags": ["cat"]}
        for n in range(100)
    ]
    return [json.dumps(row) for row in rows]


def read(path, tmp_path, jobs, threshold=None, strict=False):
    """Everything that a table holds, and what was said and rejected of the file."""
    report = Report("eval", quiet=True)
    rejected = tmp_path / f"rejects-{jobs}.jsonl"
    classes = Classes(LabelSystem.from_tags([*TAGS, "lamp"]), None, {})
    with Rejects(report, str(rejected), strict=strict) as rejects:
        intake, cut = Intake(report, rejects), Cut.parse(threshold)
        table = read_table(str(path), classes, cut, intake, jobs=jobs, part_bytes=300)
    scores, packed, decided_by = table.select(np.arange(len(table.photos)))
    return {
        "photos": list(table.photos),
        "scores": scores.tolist(),
        "dtype": scores.dtype,
        "decisions": packed.tolist(),
        "decided_by": decided_by,
        "matched": table.reader.matched.tolist(),
        "stated": table.reader.are_stated,
        "n_in": report.n_in,
        "rejects": rejected.read_bytes(),
    }


def with_bad_lines():
    lines = dense_lines()
    lines[30] = '{"image": "30.jpg", "dense": [1, 2]}'
    lines[31] = "no JSON"
    lines[90] = lines[90].replace('"image"', '"photo"')
    return [*lines, "", "  ", '{"image": 3}']


def with_twins():
    lines = dense_lines()
    return [*lines[:150], lines[3], lines[149], *lines[150:], lines[150]]


def with_other_labels_later():
    later = dense_lines(names=["tree", "cat", "lamp"])
    return dense_lines() + [line.replace('"image": "', '"image": "b/') for line in later]


def with_more_digits_later():
    later = [line.replace('"image": "', '"image": "b/') for line in dense_lines(number=float)]
    return dense_lines() + later[1:]


FILES = {
    "dense": dense_lines,
    "doubles": lambda: dense_lines(number=float),
    "singles": lambda: dense_lines(number=lambda value: float(np.float32(value))),
    "sparse": sparse_lines,
    "bad lines": with_bad_lines,
    "twins": with_twins,
    "other labels later": with_other_labels_later,
    "more digits later": with_more_digits_later,
    "names on the second line": lambda: ["", *dense_lines()],
    "first line rejected": lambda: ["no JSON", *sparse_lines()],
}


@pytest.mark.parametrize("threshold", [None, "0.3"])
@pytest.mark.parametrize("kind", FILES)
def test_parts_are_the_whole(tmp_path, kind, threshold):
    path = tmp_path / "predictions.jsonl"
    path.write_text("\ufeff" + "\n".join(FILES[kind]()), "utf-8")
    alone = read(path, tmp_path, 1, threshold)
    assert alone["n_in"] >= 100
    assert read(path, tmp_path, 2, threshold) == alone


def test_strict_ends_at_the_first_reject(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(with_bad_lines()), "utf-8")
    for jobs in (1, 2):
        with pytest.raises(RunProblem, match=r"predictions.jsonl:31: dense has 2 numbers"):
            read(path, tmp_path, jobs, strict=True)


def test_a_photo_there_twice_names_the_first_line(tmp_path):
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(with_twins()), "utf-8")
    rejects = [json.loads(line) for line in read(path, tmp_path, 2)["rejects"].splitlines()]
    assert [reject["line"] for reject in rejects] == [151, 152, 203]
    assert rejects[0]["message"].endswith("is there already (" + str(path) + ":4)")


def test_the_command_takes_jobs(evaluate, monkeypatch):
    asked = []

    def workers(jobs, *arguments):
        asked.append(jobs)
        return ordered_workers(jobs, *arguments)

    monkeypatch.setattr("ramctl.evaluation.parts.ordered_workers", workers)
    monkeypatch.setattr("ramctl.evaluation.run.read_table", partial(read_table, part_bytes=300))
    truth = [{"image": f"{n}.jpg", "tags": ["dog"] if n % 3 else ["cat"]} for n in range(200)]
    predictions = "\n".join(dense_lines())
    alone, together = (evaluate(predictions, truth, workers=workers) for workers in (1, 3))
    assert alone == together
    assert asked == [3]
