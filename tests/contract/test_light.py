"""What helps, TAB, and commands without a model of torch may load."""

import json
import os
import sys

import pytest

from ramctl.cli import COMMANDS
from tests.conftest import REPOSITORY
from tests.support import DATA, captured

TRUTH, PHOTO = str(DATA / "truth.jsonl"), str(DATA / "photos" / "kite.jpg")
HEAVY = [
    "torch", "torchvision", "timm", "transformers", "spacy", "scipy", "sklearn", "onnx",
    "onnxruntime", "PIL", "openai",
]  # fmt: skip
PROBE = f"""
import json, sys
from ramctl.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    finally:
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        sys.stderr.write("LOADED " + ",".join(loaded) + "\\n")
        continue
"""
RUNS = [
    *(([*words, "--help"], set()) for words in ([], *([command] for command in COMMANDS))),
    (["--version"], set()),
    (["export", TRUTH, "-f", "text"], {"PIL"}),
    (["eval", TRUTH, "--truth", TRUTH], {"PIL"}),
    (["tag", "-q", PHOTO], {"onnxruntime", "PIL"}),
    (["parse", "-q", str(DATA / "captions.jsonl")], {"onnxruntime", "PIL", "spacy"}),
    (["generate", "-q", "--captions", "0", TRUTH], {"onnxruntime", *HEAVY[:3], "PIL", "spacy"}),
]


def loaded_after(*runs: list[str], **environment: str) -> list[set[str]]:
    """The heavy modules that a process has loaded after each of these commands."""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    done = captured([sys.executable, "-c", PROBE, json.dumps(runs)], env=variables)
    told = [line for line in done.stderr.splitlines() if line.startswith("LOADED ")]
    return [set(filter(None, line.removeprefix("LOADED ").split(","))) for line in told]


def test_helps_load_nothing_heavy_and_commands_no_model_library_that_they_do_not_need():
    """One process runs them all; those that need most come last."""
    assert loaded_after(*(words for words, _ in RUNS)) == [needed for _, needed in RUNS]


@pytest.mark.parametrize("words", ["ramctl ", "ramctl tag --"])
def test_completion_loads_nothing_heavy(words):
    variables = {"_RAMCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert loaded_after([], **variables) == [set()]
