"""What `--help` and TAB may load."""

import os
import subprocess
import sys

import pytest

from ramctl.cli import COMMANDS
from tests.conftest import REPOSITORY

HEAVY = ("torch", "torchvision", "timm", "transformers", "spacy", "sklearn", "onnxruntime", "PIL")
PROBE = f"""
import sys
from ramctl.cli import main
try:
    main(sys.argv[1:])
finally:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    sys.stderr.write("LOADED " + ",".join(loaded))
"""


def loaded_by(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        check=False,
    )
    return done.stderr.rsplit("LOADED ", 1)[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_the_group_loads_nothing_heavy(arguments):
    assert loaded_by(*arguments) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(command):
    assert loaded_by(command, "--help") == ""


@pytest.mark.parametrize("words", ["ramctl ", "ramctl tag --"])
def test_completion_loads_nothing_heavy(words):
    variables = {"_RAMCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert loaded_by(**variables) == ""
