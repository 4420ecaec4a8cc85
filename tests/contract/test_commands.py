"""Each help is one screen of 60 lines; commands are their dataclass and `run`."""

import json
import re
from importlib import import_module

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
from tests.support import DATA

OPTIONS = {
    "caption": ("ramctl.captions.caption_photos", "CaptionOptions", {}),
    "parse": ("ramctl.parsing.parse_run", "ParseOptions", {}),
    "train": ("ramctl.training.job", "TrainOptions", {}),
    "generate": ("ramctl.data_engine.additions", "GenerateOptions", {}),
    "clean": ("ramctl.data_engine.cleaning", "CleanOptions", {}),
    "search": ("ramctl.apps.search_photos", "SearchOptions", {"file": "tags.jsonl"}),
    "tag": ("ramctl.inference.tag_photos", "TagOptions", {}),
    "export": ("ramctl.apps.export_records", "ExportOptions", {}),
    "import": ("ramctl.apps.import_photos", "ImportOptions", {}),
    "eval": ("ramctl.evaluation.evaluate", "EvalOptions", {"truth": "truth.jsonl"}),
    "serve": ("ramctl.apps.server", "ServeOptions", {}),
    "convert": ("ramctl.apps.conversion", "ConvertOptions", {"source": "ram.pth"}),
    "doctor": ("ramctl.apps.doctor", "DoctorOptions", {}),
}


def printed(*words: str, width: int = 80) -> str:
    return CliRunner().invoke(cli, words, prog_name="ramctl", terminal_width=width).output


def command_of(name: str) -> click.Command:
    return cli.get_command(click.Context(cli), name)


@pytest.mark.parametrize("command", COMMANDS)
def test_variables_and_keys_are_named_as_the_options_are(command):
    for parameter in command_of(command).params:
        if isinstance(parameter, click.Option):
            name = parameter.opts[-1].removeprefix("--").replace("-", "_")
            assert parameter.name == name
            variables = [f"RAMCTL_{command.upper()}_{name.upper()}", f"RAMCTL_{name.upper()}"]
            variables = [one for one in variables if one != "RAMCTL_MODELS"]  # a folder
            assert parameter.envvar == variables[: None if parameter.inherits else 1]


def test_the_model_that_tags_is_no_start_of_a_training(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "ramctl").mkdir()
    (tmp_path / "ramctl" / "ramctl.toml").write_text('[common]\nmodel = "elsewhere"\n')
    monkeypatch.setenv("RAMCTL_MODEL", "elsewhere")
    values = {
        command: command_of(command).make_context(command, [], resilient_parsing=True).params
        for command in ("tag", "train", "finetune")
    }
    assert [values[command]["model"] for command in values] == ["elsewhere", None, "elsewhere"]


def test_a_variable_chooses_the_format(tmp_path):
    photo = str(DATA / "photos" / "kite.jpg")
    for variable in ("RAMCTL_TAG_FORMAT", "RAMCTL_FORMAT"):
        done = CliRunner().invoke(cli, ["tag", photo], env={variable: "text"})
        assert (done.exit_code, done.output.startswith(photo + "\t")) == (0, True), done.output


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_has_each_option_and_fits_sixty_lines(command):
    text = printed(command, "--help", width=100)
    assert printed(command, "-h", width=100) == text
    lines = text.splitlines()
    assert lines[2].strip() == COMMANDS[command]
    assert len(lines) <= 60 and max(map(len, lines)) <= 100
    for parameter in command_of(command).params:
        if isinstance(parameter, click.Option):
            assert re.search(rf"^  (-\w, )?{parameter.opts[-1]}( |$)", text, re.MULTILINE)


def test_the_help_of_the_group_fits_a_screen():
    text = printed("--help")
    assert len(text.splitlines()) <= 36 and all(name in text for name in COMMANDS)


@pytest.mark.parametrize("command", OPTIONS)
def test_a_command_s_defaults_are_the_library_s(command):
    module, name, required = OPTIONS[command]
    kind = getattr(import_module(module), name)
    click_command = command_of(command)
    context = click_command.make_context(command, [], resilient_parsing=True)
    given = click_command.field_values(context.params) | required
    assert filled(kind, given) == kind(**required)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dash_is_standard_output(command):
    for item in command_of(command).params:
        if item.name == "output":
            assert item.process_value(click.Context(command_of(command)), "-") is None


def test_records_to_a_dash_reach_a_pipe(ramctl, tmp_path):
    row = b'{"image":"a.jpg","tags":["dog"]}\n'
    done = ramctl("export", "-", "-f", "jsonl", "-o", "-", stdin=row)
    assert (done.stdout, [*tmp_path.iterdir()]) == (row, [])


def test_an_option_without_a_field_is_an_error():
    with pytest.raises(TypeError, match="ParseOptions has no field 'colour'"):
        filled(import_module("ramctl.parsing.parse_run").ParseOptions, {"colour": 3})


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
