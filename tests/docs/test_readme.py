"""README.md says what the program does: its helps, its examples, its lists."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ramctl.cli import COMMANDS
from ramctl.errors import REJECT_CODES
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text("utf-8")
CONSOLE = re.compile(r"```console( [a-z ]+)?\n(.*?)```", re.DOTALL)
UNRUN = {"network", "cluster", "gpu", "setup", "long"}


def examples():
    for match in CONSOLE.finditer(README):
        marks = set((match[1] or "").split())
        assert marks <= UNRUN, f"unknown mark {marks - UNRUN}"
        if not marks:
            yield README[: match.start()].count("\n") + 2, match[2]


def test_generated_parts_are_current():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "build_docs", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help_in_the_readme(command):
    assert f"<!-- help: {command} -->" in README


@pytest.mark.parametrize("code", REJECT_CODES)
def test_every_reject_code_is_explained(code):
    assert f"`{code}`" in README


def test_json_examples_parse():
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.strip().splitlines()]
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with the small photos and captions in which the examples run one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(REPOSITORY / "tests" / "data", folder, dirs_exist_ok=True)
    tools = folder / "bin"
    tools.mkdir()
    (tools / "ramctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ramctl "$@"\n')
    (tools / "ramctl").chmod(0o755)
    return folder


@pytest.mark.slow
def test_console_examples_print_what_they_show(workplace):
    """In order, each `$` line runs in bash; its output follows, `...` standing for anything."""
    environment = {
        **os.environ,
        "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    steps = [
        (step, f"README.md:{line}")
        for line, block in examples()
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    assert len(steps) > 20
    for step, place in steps:
        run_step(step, workplace, environment, place)


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_examples_run(workplace, code):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=workplace, env=environment, check=True)


def run_step(step: str, workplace: Path, environment: dict[str, str], place: str) -> None:
    command, expected = split_step(step)
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        cwd=workplace,
        env=environment,
        timeout=600,
        check=False,
    )
    output = done.stdout + done.stderr
    if not expected.strip():
        assert done.returncode == 0, f"{place}: $ {command}\n{output}"
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    matches = doctest.OutputChecker().check_output(expected, output, flags)
    assert matches, f"{place}: $ {command}\nexpected:\n{expected}\nprinted:\n{output}"


def split_step(step: str) -> tuple[str, str]:
    """The command, with its lines continued by a backslash, and the output after it."""
    lines = step.splitlines(keepends=True)
    n_lines = next((i for i, line in enumerate(lines, 1) if not line.endswith("\\\n")), len(lines))
    return "".join(lines[:n_lines]), "".join(lines[n_lines:])
