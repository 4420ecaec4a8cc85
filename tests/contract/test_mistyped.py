"""Commands, options, keys and variables that are mistyped are named, with what was meant."""

from pathlib import Path

import pytest

from ramctl.commands.command import RamctlCommand
from tests.support import DATA

SETTINGS = Path("user", "ramctl", "ramctl.toml")


@pytest.fixture
def problem(ramctl, tmp_path, monkeypatch):
    """What wrong usage says, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    SETTINGS.parent.mkdir(parents=True)

    def run(*arguments: str) -> str:
        done = ramctl(*arguments)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
        return done.messages

    return run


def test_a_mistyped_command_or_option_gets_a_suggestion(problem):
    assert problem("tga", "a.jpg") == (
        "ramctl: no command 'tga'; did you mean 'tag'? (see ramctl --help)\n"
    )
    assert problem("photo.jpg") == "ramctl: no command 'photo.jpg' (see ramctl --help)\n"
    assert "--threshold" in problem("tag", "--thresold", "0.5", "a.jpg")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tga]\ntop = 3\n", "ramctl.toml: 'tga' is neither [common] nor a command; "),
        ("threshold = 0.5\n", "ramctl.toml: 'threshold' is neither [common] nor a command"),
        ("[tag]\nthresold = 0.5\n", "[tag] has no option 'thresold'; did you mean 'threshold'?"),
        ("[common]\nquite = true\n", "[common] has no option 'quite'; did you mean 'quiet'?"),
    ],
)
def test_a_mistyped_key_is_told(content, message, problem):
    SETTINGS.write_text(content)
    assert message in problem("tag", "a.jpg")


def test_keys_are_named_as_the_options_are_and_may_be_other_commands(problem):
    tables = "[common]\nsteps = 3\n[tag]\nformat = 'text'\n[export]\ntxt-trigger = 'a'\n"
    SETTINGS.write_text(tables)
    assert RamctlCommand("tag").make_context("tag", []).params["format"] == "text"


def test_a_mistyped_variable_of_a_command_is_told(problem, monkeypatch):
    monkeypatch.setenv("RAMCTL_TAG_THRESOLD", "0.5")
    message = "RAMCTL_TAG_THRESOLD: tag has no such option; did you mean 'RAMCTL_TAG_THRESHOLD'?"
    assert message in problem("tag", "a.jpg")


@pytest.mark.parametrize(
    "words",
    [
        "tag folder", "tag none.tar", "tag none.jsonl", "tag -R none", "tag --shard 1/2 folder",
        "import folder", "caption --model x folder", "export none.jsonl -f jsonl",
        "export folder -f jsonl", "parse none.jsonl", "generate folder", "clean folder",
    ],
)  # fmt: skip
def test_a_mistyped_input_leaves_what_earlier_runs_wrote(words, problem, ramctl, tmp_path):
    assert ramctl("import", DATA / "photos/kite.jpg", "-o", "o.jsonl").returncode == 0
    Path("o.jsonl").rename("o.jsonl.part")  # as a killed run leaves it
    Path("folder").mkdir()

    def content():
        return {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    before = content()
    assert len(before) == 2  # with the state
    problem(*words.split(), "-o", "o.jsonl")
    assert content() == before


@pytest.mark.parametrize("words", ["", "empty", ",", "lines.txt"])
def test_a_list_of_only_tags_without_any_is_wrong_usage(words, problem):
    Path("empty").write_bytes(b"")
    Path("lines.txt").write_text("\n# none\n")
    Path("in.jsonl").write_text('{"image": "a.jpg", "tags": ["dog"]}\n')
    assert "--include" in problem("export", "in.jsonl", "-f", "jsonl", "--include", words)


def test_resume_without_an_output_is_wrong_usage(problem):
    assert "--resume needs -o FILE" in problem("import", "a.jpg", "--resume")


def test_a_mistyped_input_prints_no_header(ramctl, tmp_path):
    assert ramctl("tag", "-f", "csv", tmp_path).stdout == b""


@pytest.mark.parametrize("words", ["clean --outliers nan", "tag --precision NaN x.jpg"])
def test_a_fraction_is_a_number(words, ramctl):
    done = ramctl(*words.split(), stdin=b"")
    assert done.returncode == 2 and "is not a number" in done.messages
