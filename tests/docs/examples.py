"""The examples of a document, run as a reader would run them."""

import doctest
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import captured

BLOCK = re.compile(r"```(console|python)( [a-z ]+)?\n(.*?)```", re.DOTALL)
UNRUN = {"network", "cluster", "gpu", "setup", "long"}


class Example(NamedTuple):
    """A block of a document that is run."""

    line: int
    language: str
    code: str


def examples(text: str) -> Iterator[Example]:
    """The examples of a document that are run."""
    for match in BLOCK.finditer(text):
        marks = set((match[2] or "").split())
        assert marks <= UNRUN, f"unknown mark {marks - UNRUN}"
        if not marks:
            yield Example(text[: match.start()].count("\n") + 2, match[1], match[3])


def run_example(
    name: str, example: Example, folder: Path, environment: dict[str, str],
    python: Path | str = sys.executable,
) -> None:  # fmt: skip
    """Run a document's example in a folder; AssertionError where it prints something else.

    Each `$` line runs in bash; its output follows, `...` standing for anything. Python runs whole.
    """
    place = f"{name}:{example.line}"
    if example.language == "python":
        _run_step([str(python), "-c", example.code], "", folder, environment, place)
        return
    for step in re.split(r"^\$ ", example.code, flags=re.MULTILINE)[1:]:
        # Lines of the command go on after a backslash; what it prints follows.
        command, expected = re.fullmatch(r"((?:.*\\\n)*.*\n?)((?:.*\n?)*)", step).groups()
        shell = ["bash", "-o", "pipefail", "-c", command]
        _run_step(shell, expected, folder, environment, place)


def _run_step(
    command: list[str], expected: str, folder: Path, environment: dict[str, str], place: str
) -> None:
    done = captured(command, cwd=folder, env=environment, timeout=600)
    output = done.stdout + done.stderr
    if not expected.strip():
        assert done.returncode == 0, f"{place}: {command[-1]}\n{output}"
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    matches = doctest.OutputChecker().check_output(expected, output, flags)
    assert matches, f"{place}: {command[-1]}\nexpected:\n{expected}\nprinted:\n{output}"
