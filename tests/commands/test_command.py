"""Each help is one screen of 60 lines; commands are their dataclass and `run`; completions."""

import json
import re
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ramctl.cli import COMMANDS, cli
from ramctl.commands.command import filled
from ramctl.inference import tag_photos as tagging
from ramctl.inference.tagger import TaggerOptions
from ramctl.parsing import parse_run as parsing
from ramctl.photos.finding import PhotoInputs
from ramctl.records.stream import StreamOptions
from tests.conftest import REPOSITORY
from tests.support import DATA

# What has no default, of commands whose defaults are those of the library alone.
REQUIRED = {
    "search": {"file": "tags.jsonl"},
    "eval": {"truth": "truth.jsonl"},
    "convert": {"source": "ram.pth"},
}
OTHERS = {"finetune", "fit", "doctor"}


def settings_of(command: str) -> Any:
    module, _, name = COMMANDS[command].target.partition(":")
    return getattr(import_module(module), name)


def printed(*words: str, width: int = 80) -> str:
    return CliRunner().invoke(cli, words, prog_name="ramctl", terminal_width=width).output


def fields_of(kind: Any) -> set[str]:
    """The names of the fields of a dataclass and of those in it."""
    names = set()
    for field in fields(kind):
        nested = field.default_factory() if field.default_factory is not MISSING else None
        names |= fields_of(nested) if is_dataclass(nested) else {field.name}
    return names


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_each_option_and_fits_sixty_lines_and_every_option_has_a_field(command):
    text = printed(command, "--help", width=100)
    assert printed(command, "-h", width=100) == text
    lines = text.splitlines()
    assert lines[2].strip() == COMMANDS[command].short_help
    assert len(lines) <= 60 and max(map(len, lines)) <= 100
    for parameter in COMMANDS[command].params:
        if isinstance(parameter, click.Option):
            assert re.search(rf"^  (-\w, )?{parameter.opts[-1]}( |$)", text, re.MULTILINE)
    names = fields_of(settings_of(command)) | {"ray"}
    assert {parameter.name for parameter in COMMANDS[command].params} <= names


def test_the_help_of_the_group_fits_a_screen(ramctl):
    text = printed("--help")
    assert len(text.splitlines()) <= 36 and all(name in text for name in COMMANDS)
    photos, training = text[text.index("Photos:") :].split("Training:")
    assert [line.split()[0] for line in photos.splitlines()[1:6]] == [
        "tag", "search", "export", "import", "serve",
    ]  # fmt: skip
    assert "train" in training
    done = ramctl()
    assert (done.returncode, done.stdout) == (2, b"") and "Usage: ramctl" in done.messages


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in OTHERS])
def test_a_command_s_defaults_are_the_library_s(command):
    kind, required = settings_of(command), REQUIRED.get(command, {})
    context = COMMANDS[command].make_context(command, [], resilient_parsing=True)
    assert filled(kind, context.params | required) == kind(**required)


def test_commands_run_from_python(tmp_path):
    """Without a command line: options in, a report and files out."""
    quiet, root = {"quiet": True}, str(DATA)
    parsed, tagged = tmp_path / "parsed.jsonl", tmp_path / "tagged.jsonl"
    given, stream = (str(DATA / "captions.jsonl"),), StreamOptions(output=parsed)
    report = parsing.run(parsing.ParseOptions(inputs=given, stream=stream, root=root, **quiet))
    assert (report.n_out, report.exit_code) == (8, 0)
    given, stream = (str(parsed),), StreamOptions(output=tagged)
    tagger = TaggerOptions(labels=["field"])
    photos = PhotoInputs(root=root)
    report = tagging.run(
        tagging.TagOptions(inputs=given, photos=photos, tagger=tagger, stream=stream, **quiet)
    )
    rows = [json.loads(line) for line in tagged.read_bytes().splitlines()]
    assert len(rows) == report.n_out == 8
    assert {tag for row in rows for tag in row["tags"]} == {"field"}


@pytest.mark.parametrize(
    ("shell", "name"), [("bash", "ramctl.bash"), ("zsh", "_ramctl"), ("fish", "ramctl.fish")]
)
def test_committed_completions_are_what_the_program_gives(shell, name, ramctl):
    made = ramctl(_RAMCTL_COMPLETE=f"{shell}_source").stdout
    assert made == (REPOSITORY / "completions" / name).read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_files_are_offered_wherever_one_is_taken(command):
    for parameter in COMMANDS[command].params:
        is_read = isinstance(parameter.type, click.types.FuncParamType)  # parse --labels
        if not is_read and re.search("FILE|PHOTO|BUNDLE|DIR", parameter.metavar or ""):
            (offered,) = parameter.shell_complete(click.Context(COMMANDS[command]), "ph")
            assert offered.type in ("file", "dir"), parameter.name
