"""What helps, TAB, and commands without a model of torch may load."""

import os
import sys

import pytest

from ramctl.cli import COMMANDS
from tests.conftest import REPOSITORY
from tests.support import DATA, captured

TRUTH, PHOTO = str(DATA / "truth.jsonl"), str(DATA / "photos" / "kite.jpg")
HEAVY = [
    "torch", "torchvision", "timm", "transformers", "spacy", "scipy", "sklearn", "onnx",
    "onnxruntime", "PIL",
]  # fmt: skip
PROBE = f"""
import sys
from ramctl.cli import main
try:
    main(sys.argv[1:])
finally:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    sys.stderr.write("LOADED " + ",".join(loaded))
"""


def loaded_by(*arguments: str, **environment: str) -> set[str]:
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    done = captured([sys.executable, "-c", PROBE, *arguments], env=variables)
    return set(filter(None, done.stderr.rsplit("LOADED ", 1)[-1].split(",")))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)],
    ids=" ".join,
)
def test_helps_load_nothing_heavy(arguments):
    assert loaded_by(*arguments) == set()


@pytest.mark.parametrize("words", ["ramctl ", "ramctl tag --"])
def test_completion_loads_nothing_heavy(words):
    variables = {"_RAMCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert loaded_by(**variables) == set()


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["eval", "-q", TRUTH, "--truth", TRUTH], {"PIL"}),
        (["tag", "-q", PHOTO], {"onnxruntime", "PIL"}),
        (["export", "-q", TRUTH, "-f", "text"], {"PIL"}),
    ],
    ids=["eval", "tag", "export"],
)
def test_a_command_loads_no_model_library_that_it_does_not_need(arguments, needed):
    assert loaded_by(*arguments) == needed
