"""What TAB offers, in the shells themselves where they are installed, and where pip puts it."""

import os
import shutil
import sys
import zipfile
from pathlib import Path

import click
import pytest

from ramctl.cli import COMMANDS, cli
from ramctl.commands.command import Command
from tests.conftest import REPOSITORY
from tests.support import captured

FILES = {"bash": "ramctl.bash", "zsh": "_ramctl", "fish": "ramctl.fish"}
PLACES = [
    (command, one)
    for command in COMMANDS
    for one in Command(command).params
    if isinstance(one.type, click.Path) or "FILE" in (one.metavar or "")
]


@pytest.mark.parametrize("shell", FILES)
def test_committed_completions_are_what_the_program_gives(shell, ramctl):
    made = ramctl(_RAMCTL_COMPLETE=f"{shell}_source").stdout
    assert made == (REPOSITORY / "completions" / FILES[shell]).read_bytes()


@pytest.mark.parametrize(
    ("command", "one"), PLACES, ids=[f"{name}-{one.name}" for name, one in PLACES]
)
def test_names_of_files_are_offered_wherever_one_is_taken(command, one):
    context = click.Context(cli.get_command(click.Context(cli), command))
    (offered,) = one.shell_complete(context, "ph")
    assert offered.type in ("file", "dir") and offered.value == "ph"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder `share` of an environment with the wheel, made of the project without its code."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(REPOSITORY / "completions", folder / "completions")
    (folder / "ramctl" / "parsing" / "english" / "data").mkdir(parents=True)
    (folder / "ramctl" / "__init__.py").touch()
    shutil.copy(REPOSITORY / "ramctl" / "parts.py", folder / "ramctl")  # for its version
    (folder / "ramctl" / "parsing" / "english" / "data" / "WORDNET-LICENSE").touch()
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    made = captured([sys.executable, "-c", build], cwd=folder)
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(folder / made.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "unpacked")
    (data,) = (folder / "unpacked").glob("ramctl-*.data/data")
    return data / "share"


@pytest.fixture
def shell(installed, tmp_path):
    """What a shell prints, where the command is on its path and the wheel is installed."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ramctl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ramctl "$@"\n')
    command.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "photos.jsonl").touch()
    environment = {
        **os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY), "XDG_DATA_DIRS": f"{installed}:/usr/share",
    }  # fmt: skip

    def run(*words: str) -> str:
        if shutil.which(words[0]) is None:
            pytest.skip(f"needs {words[0]}")
        return captured(words, cwd=tmp_path / "work", env=environment, timeout=120).stdout

    return run


def test_fish_finds_them_and_shows_whole_descriptions_and_files(shell):
    options = shell("fish", "-c", "complete -C 'ramctl tag --thor'")
    assert options == "--thorough\tScore parts of each photo too: 3 to 5 times slower.\n"
    assert shell("fish", "-c", "complete -C 'ramctl tag --labels ph'") == "photos.jsonl\n"


def test_bash_completion_finds_them(shell):
    if not Path("/usr/share/bash-completion/bash_completion").exists():
        pytest.skip("needs bash-completion")
    load = """source /usr/share/bash-completion/bash_completion
        _comp_load ramctl || __load_completion ramctl; complete -p ramctl"""
    assert "-F _ramctl_completion ramctl" in shell("bash", "--norc", "-c", load)


def test_zsh_finds_them(shell, installed):
    load = f"""fpath=({installed}/zsh/site-functions $fpath)
        autoload -Uz compinit; compinit -D -u; print $_comps[ramctl]"""
    assert shell("zsh", "-fc", load) == "_ramctl\n"
