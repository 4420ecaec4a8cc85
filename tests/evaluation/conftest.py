"""`run` called from Python: predictions and truth as rows, the figures as a dictionary."""

import json
from pathlib import Path

import pytest

from ramctl.evaluation.run import EvalOptions, run


def write_lines(path, rows) -> str:
    """A file of JSON lines; text as it is."""
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return path.name


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluates rows below `tmp_path`, or predictions at `source`; options as in `EvalOptions`."""
    monkeypatch.chdir(tmp_path)

    def go(predictions, truth, code=0, baseline=None, lists=False, source=None, **options):
        suffix = "txt" if lists else "jsonl"
        rows = tmp_path / f"predictions.{suffix}"
        names = {
            "predictions": str(source) if source else write_lines(rows, predictions),
        }
        if truth is not None:
            names["truth"] = write_lines(tmp_path / f"truth.{suffix}", truth)
        if baseline is not None:
            names["baseline"] = write_lines(tmp_path / "baseline.jsonl", baseline)
        out = Path("out.txt")
        assert run(EvalOptions(**names, output=out, **options)).exit_code == code
        return json.loads(out.read_text()) if options.get("form", "json") == "json" else None

    return go
