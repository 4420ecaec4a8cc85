"""The judge of the judged photos: a program beside them that says what counts as right."""

import importlib.util
from pathlib import Path
from typing import Any


def open_judge(path: Path) -> Any:
    """The module `judge.py`, with its `fold`, `name` and word lists."""
    spec = importlib.util.spec_from_file_location("judge", path)
    assert spec is not None and spec.loader is not None
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    return judge
