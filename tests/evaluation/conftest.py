"""`run` called from Python: predictions and truth as rows, the figures as a dictionary."""

import json
from pathlib import Path

import pytest

from ramctl.evaluation.evaluate import EvalOptions, run
from tests.support import write_records

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

    def go(predictions, truth=TRUTH, *, code=0, files=None, **options):
        for name, text in (files or {}).items():
            Path(name).write_text(text)
        if not isinstance(predictions, dict):
            predictions = {"predictions": predictions}
        systems = tuple(write(name, rows) for name, rows in predictions.items())
        report = run(EvalOptions(write("truth", truth), systems, output=Path("out"), **options))
        assert report.exit_code == code
        return json.loads(Path("out").read_text()) if "format" not in options else None

    return go
