"""`run` called from Python: predictions and truth as rows, the figures as a dictionary."""

import json
from pathlib import Path

import pytest

from ramctl.evaluation.evaluate import EvalOptions, run
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


def write(name: str, *rows: dict) -> Path:
    """A file of JSON lines in the working directory."""
    return write_records(Path(name), rows)


def write_lines(path, rows) -> str:
    """A file of JSON lines; text as it is."""
    path.write_bytes(rows.encode() if isinstance(rows, str) else lines(rows))
    return path.name


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluates rows below `tmp_path`, or predictions at `source`; options as in `EvalOptions`."""
    monkeypatch.chdir(tmp_path)

    def go(predictions, truth, code=0, lists=False, source=None, **options):
        suffix = "txt" if lists else "jsonl"
        rows = tmp_path / f"predictions.{suffix}"
        names = {"predictions": str(source) if source else write_lines(rows, predictions)}
        if truth is not None:
            names["truth"] = write_lines(tmp_path / f"truth.{suffix}", truth)
        out = Path("out.txt")
        assert run(EvalOptions(**names, output=out, **options)).exit_code == code
        return json.loads(out.read_text()) if options.get("format", "json") == "json" else None

    return go
