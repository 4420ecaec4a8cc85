"""Settings from options, variables and the user's file; what is mistyped is named."""

from pathlib import Path

import click
import pytest

from ramctl.cli import COMMANDS, cli
from ramctl.commands.config import default_map
from tests.support import DATA

SETTINGS = Path("user", "ramctl", "ramctl.toml")
KITE = DATA / "photos" / "kite.jpg"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder, which is the working directory and has the user's settings below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    SETTINGS.parent.mkdir(parents=True)
    return tmp_path


@pytest.fixture
def problem(ramctl):
    """The message of wrong usage."""

    def run(*arguments: str) -> str:
        done = ramctl(*arguments)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        return done.messages

    return run


def test_the_nearest_setting_wins(here, ramctl, monkeypatch):
    def chosen(*words: str) -> str:
        done = ramctl("parse", *words, stdin=b'{"captions":["a horse"]}\n')
        assert (done.returncode, done.messages) == (0, "")  # quiet
        (path,) = here.glob("*.json")
        path.unlink()
        return path.stem

    SETTINGS.write_text("[common]\nstats = 'common.json'\nquiet = true\nepochs = 3\n")
    assert chosen() == "common"
    SETTINGS.write_text(SETTINGS.read_text() + "[parse]\nstats = 'own.json'\n")
    assert chosen() == "own"
    monkeypatch.setenv("RAMCTL_STATS", "variable.json")
    assert chosen() == "variable"
    monkeypatch.setenv("RAMCTL_PARSE_STATS", "own-variable.json")
    assert chosen() == "own-variable"
    assert chosen("--stats", "option.json") == "option"


def test_values_of_the_file_are_as_on_the_command_line():
    SETTINGS.write_text("[train]\nset = ['a=1', 'b=2']\n[export]\ntxt-trigger = 'x'\ntop = 3\n")
    group = click.Context(cli, default_map=default_map(COMMANDS))
    export = COMMANDS["export"].make_context("export", [], parent=group).params
    assert (export["trigger"], export["top"]) == ("x", 3)
    assert COMMANDS["train"].make_context("train", [], parent=group).params["overrides"] == (
        "a=1", "b=2",
    )  # fmt: skip


def test_the_model_that_tags_is_no_start_of_a_training(monkeypatch):
    SETTINGS.write_text('[common]\nmodel = "elsewhere"\n')
    monkeypatch.setenv("RAMCTL_MODEL", "elsewhere")
    group = click.Context(cli, default_map=default_map(COMMANDS))
    for command, field, model in [
        ("tag", "model", "elsewhere"), ("train", "init", None), ("finetune", "init", "elsewhere"),
    ]:  # fmt: skip
        assert COMMANDS[command].make_context(command, [], parent=group).params[field] == model


def test_a_mistyped_command_or_option_gets_a_suggestion(problem):
    assert problem("tga", "a.jpg") == (
        "ramctl: no command 'tga'; did you mean 'tag'? (see ramctl --help)\n"
    )
    assert "--threshold" in problem("tag", "--thresold", "0.5", "a.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tga]\ntop = 3\n", "ramctl.toml: 'tga' is neither [common] nor a command"),
        ("tag = 0.5\n", "ramctl.toml: 'tag' is neither [common] nor a command"),
        ("[tag]\ninputs = ['/etc']\n", "[tag] has no option 'inputs'"),
        ("[common]\nquite = true\n", "[common] has no option 'quite'"),
        ("[tag\n", "ramctl.toml: "),
    ],
)
def test_a_mistyped_key_is_reported(content, message, problem):
    SETTINGS.write_text(content)
    assert message in problem("tag", "a.jpg")
