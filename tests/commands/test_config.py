"""Settings from options, variables and the user's file; what is mistyped is named."""

from pathlib import Path

import click
import pytest

from ramctl.cli import COMMANDS, cli
from ramctl.commands.config import default_map

SETTINGS = Path("user", "ramctl", "ramctl.toml")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder, which is the working directory and has the user's settings below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    SETTINGS.parent.mkdir(parents=True)
    return tmp_path


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


def parsed(command: str) -> dict:
    group = click.Context(cli, default_map=default_map(COMMANDS))
    return COMMANDS[command].make_context(command, [], parent=group).params


def test_values_of_the_file_are_as_on_the_command_line():
    SETTINGS.write_text("[train]\nset = ['a=1', 'b=2']\n[export]\ntxt-trigger = 'x'\ntop = 3\n")
    assert (parsed("export")["trigger"], parsed("export")["top"]) == ("x", 3)
    assert parsed("train")["overrides"] == ("a=1", "b=2")


def test_the_model_that_tags_is_no_start_of_a_training(monkeypatch):
    SETTINGS.write_text('[common]\nmodel = "elsewhere"\n')
    monkeypatch.setenv("RAMCTL_MODEL", "elsewhere")
    assert parsed("tag")["model"] == parsed("finetune")["init"] == "elsewhere"
    assert parsed("train")["init"] is None


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("", "tga a.jpg", "ramctl: no command 'tga'; did you mean 'tag'? (see ramctl --help)\n"),
        ("", "tag --thresold 0.5 a.jpg", "--threshold"),
        ("[tga]\ntop = 3\n", "tag a.jpg", "ramctl.toml: 'tga' is neither [common] nor a command"),
        ("tag = 0.5\n", "tag a.jpg", "ramctl.toml: 'tag' is neither [common] nor a command"),
        ("[tag]\ninputs = ['/etc']\n", "tag a.jpg", "[tag] has no option 'inputs'"),
        ("[common]\nquite = true\n", "tag a.jpg", "[common] has no option 'quite'"),
        ("[tag\n", "tag a.jpg", "ramctl.toml: "),
    ],
)
def test_what_is_mistyped_is_named(content, words, message, ramctl):
    SETTINGS.write_text(content)
    done = ramctl(*words.split())
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert message in done.messages


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("clean --kinds pet", "'pet' is not one of object, scene"),
        ("parse --jobs 0", "0 is not in the range"),
        ("tag --format pdf", "is not one of"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_wrong_usage(words, said, ramctl):
    done = ramctl(*words.split())
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert said in done.messages
