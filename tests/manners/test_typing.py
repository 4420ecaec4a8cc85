"""`py.typed` holds: a user's script passes a strict type checker, and its mistakes are found."""

import re
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

SCRIPT = """\
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramctl import (
    Box, CaptionParser, Labels, Photo, RamctlError, RecordProblem, Tagger, TagResult,
    write_sidecar,
)

tagger = Tagger.from_pretrained(
    Path("model"), labels=["zebra", "horse"], threshold={"zebra": 0.4}, top=5, notify=print
)
array: NDArray[np.uint8] = np.zeros((4, 4, 3), np.uint8)
photos: list[Photo] = ["a.jpg", Path("a.jpg"), b"", array, Image.new("L", (1, 1))]
paths = sorted(Path().glob("*.jpg"))
assert_type(tagger.tag("a.jpg"), TagResult)
assert_type(tagger.tag(array), TagResult)
assert_type(tagger.tag(paths), list[TagResult])
assert_type(tagger.tag(photos), list[TagResult])
assert_type(tagger.tag(Path().glob("*.jpg")), Iterator[TagResult])
try:
    result = tagger.tag("a.jpg")
    assert_type(result.tags, list[str])
    assert_type(result.scores, dict[str, float])
    assert_type(result.boxes["horse"], Box)
    assert_type(result.caption, str | None)
    record: dict[str, Any] = result.to_dict()
    assert_type(write_sidecar(Path("a.jpg"), result), list[Path])
except RamctlError as error:
    assert_type(error.message, str)
for outcome in tagger.outcomes(paths):
    if isinstance(outcome, RecordProblem):
        assert_type(outcome.code, str)
    else:
        assert_type(outcome, TagResult)
assert_type(tagger.labels, Labels)
assert_type(CaptionParser.open().tags("A dog on a beach"), list[str])
"""
MISTAKES = """\
from ramctl import Tagger, Taggr
tagger = Tagger.from_pretrained("mini")
tagger.tag(3)
tagger.tag("a.jpg")["tags"]
tagger.tag("a.jpg").tag
tagger.tag(["a.jpg"]).tags
tagger.tag("a.jpg").caption.upper()
"""
MYPY = f"""\
[mypy]
mypy_path = {REPOSITORY}
strict = true
follow_imports = silent
[mypy-torch.*,torchvision.*,timm.*,transformers.*,spacy.*,sklearn.*,scipy.*,ray.*]
follow_imports = skip
ignore_missing_imports = true
"""


@pytest.mark.slow
def test_a_right_script_passes_and_each_mistake_of_a_wrong_one_is_found(tmp_path):
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(MISTAKES)
    (tmp_path / "mypy.ini").write_text(MYPY)
    done = captured([sys.executable, "-m", "mypy", "right.py", "wrong.py"], cwd=tmp_path)
    errors = re.findall(r"(\w+)\.py:(\d+):.*error.*", done.stdout)
    assert {int(line) for name, line in errors if name == "wrong"} == {1, 3, 4, 5, 6, 7}
    assert not [line for name, line in errors if name != "wrong"], done.stdout
