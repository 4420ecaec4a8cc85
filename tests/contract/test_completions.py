"""Completions: the committed scripts, and the names of files."""

import re

import click
import pytest

from ramctl.cli import COMMANDS
from tests.conftest import REPOSITORY

FILES = {"bash": "ramctl.bash", "zsh": "_ramctl", "fish": "ramctl.fish"}


@pytest.mark.parametrize("shell", FILES)
def test_committed_completions_are_what_the_program_gives(shell, ramctl):
    made = ramctl(_RAMCTL_COMPLETE=f"{shell}_source").stdout
    assert made == (REPOSITORY / "completions" / FILES[shell]).read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_files_are_offered_wherever_one_is_taken(command):
    for parameter in COMMANDS[command].params:
        is_read = isinstance(parameter.type, click.types.FuncParamType)  # parse --labels
        if not is_read and re.search("FILE|PHOTO|BUNDLE|DIR", parameter.metavar or ""):
            (offered,) = parameter.shell_complete(click.Context(COMMANDS[command]), "ph")
            assert offered.type in ("file", "dir"), parameter.name
