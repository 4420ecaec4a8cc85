"""`./ramctl.toml`, which may have come with a folder: how things are done, not where or by whom."""

import json
from pathlib import Path

import pytest

from ramctl.commands import COMMANDS
from ramctl.commands.command import RamctlCommand
from tests.support import DATA

KITE = DATA / "photos" / "kite.jpg"

# The options of all commands. What writes or deletes, names a host or another program, or undoes
# what a person decided, is the user's alone; what says how, or which data to read, is not.
USER_S = """
    build_labels cache calibrate detector distill download endpoint events
    forget_refused gallery host out output port prompt ray rejects report
    restart review stats to txt txt_existing txt_remove xmp xmp_remove
"""
ANYBODY_S = """
    arch batch bom boxes calibrate caption caption_column caption_style captions ci
    classes decisions dense device dry_run dtype duplicates embedding epochs exclude
    explain format from group groups image_column include jobs keep_tags kinds labels
    lang leaf like long map max_bytes merge min_probability
    model null number outliers precision preset progress quiet
    recursive rename resume root runtime save_every seed self_contained set shard
    size sort steps strict style tags text text_encoder thorough threads threshold
    thresholds timeout title top truth txt_caption txt_caption_last txt_counts txt_trigger val
    verbose vocab xmp_name xmp_prefix
"""


def test_of_each_option_it_is_decided_who_may_set_it():
    options = [one for command in COMMANDS for one in RamctlCommand(command).all_options]
    by_rule = {True: set(), False: set()}
    for one in options:
        by_rule[one.may_be_set_by_folder("x")].add(one.name)
    assert by_rule == {True: {*ANYBODY_S.split()}, False: {*USER_S.split()}}
    # The photos that convert --calibrate reads, and the thresholds that eval --calibrate writes.
    assert by_rule[True] & by_rule[False] == {"calibrate"}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_of_the_user_is_set_by_the_folder(command, tmp_path, ramctl):
    for one in RamctlCommand(command).all_options:
        if one.may_be_set_by_folder("x"):
            continue
        for table in ("common", command):
            (tmp_path / "ramctl.toml").write_text(f"[{table}]\n{one.name} = 'x'\n")
            done = ramctl(command)
            assert (done.returncode, done.stdout) == (2, b"")
            flag = one.opts[-1]
            assert (
                f"./ramctl.toml: [{table}] {one.name}: only the user may set this " in done.messages
            )
            assert f": give {flag}, or move the line to " in done.messages
            assert done.messages.count("\n") == 1
            assert [path.name for path in tmp_path.iterdir()] == ["ramctl.toml"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("tag", "model = 'hf://owner/name'"),
        ("tag", "model = 'clip:here'"),
        ("train", "model = 'hf://owner/name'"),
        ("train", "preset = './theirs.toml'"),
        ("finetune", "model = 'siglip:x'"),
        ("tag", "labels = '+https://127.0.0.1:9/l.jsonl'"),
        ("tag", "root = 's3://bucket'"),
        ("train", "set = ['training.start=hf://owner/name:file']"),
        ("convert", "text-encoder = 'hf://owner/name'"),
    ],
)
def test_the_folder_names_no_host_and_no_other_program(command, line, tmp_path, ramctl):
    (tmp_path / "ramctl.toml").write_text(f"[{command}]\n{line}\n")
    done = ramctl(command, "x")
    assert done.returncode == 2 and "only the user may set this" in done.messages


def test_an_argument_is_no_setting(tmp_path, ramctl):
    (tmp_path / "ramctl.toml").write_text("[tag]\ninputs = ['/etc']\n")
    assert "[tag] has no option 'inputs'" in ramctl("tag").messages


def test_what_the_folder_sets_is_said_and_it_cannot_silence_that(tmp_path, ramctl):
    said = 'ramctl tag: ./ramctl.toml sets top = 1, format = "text"'
    (tmp_path / "ramctl.toml").write_text("[tag]\ntop = 1\nformat = 'text'\n")
    done = ramctl("tag", KITE)
    assert done.messages.splitlines()[0] == said
    assert done.stdout.decode().startswith(f"{KITE}\t")
    assert ramctl("tag", "-q", KITE).messages == ""
    assert ramctl("tag", KITE, RAMCTL_QUIET="1").messages == ""
    assert "sets format" in ramctl("tag", "--top", "2", KITE).messages  # what a flag overrides
    with (tmp_path / "ramctl.toml").open("a") as stream:
        stream.write("quiet = true\n")
    assert ramctl("tag", KITE).messages == f"{said}, quiet = true\n"
    assert ramctl("tag", "-q", KITE).messages == ""


def test_the_user_s_own_file_may_set_all_without_a_word(tmp_path, ramctl):
    folder = tmp_path / "ramctl"
    folder.mkdir()
    (folder / "ramctl.toml").write_text("[tag]\nstats = 's.json'\nquiet = true\n")
    for cwd in (tmp_path, folder):  # there it is the file of the folder as well
        done = ramctl("tag", KITE, cwd=cwd, XDG_CONFIG_HOME=str(tmp_path))
        assert (done.returncode, done.messages) == (0, "")
        assert json.loads((cwd / "s.json").read_text())["out"] == 1


def test_an_option_of_the_command_line_replaces_what_contradicts_it_in_a_file(tmp_path, ramctl):
    (tmp_path / "ramctl.toml").write_text("[tag]\nprecision = 0.99\n")
    few, many = ramctl("tag", KITE), ramctl("tag", KITE, "--threshold", "0.3")
    assert len(few.rows[0]["tags"]) < len(many.rows[0]["tags"])
    assert "sets precision" in few.messages and "sets precision" not in many.messages
    assert ramctl("tag", KITE, "--threshold", "0.3", "--precision", "0.9").returncode == 2


def test_a_value_of_the_folder_is_shown_in_one_line(tmp_path, ramctl):
    (tmp_path / "ramctl.toml").write_text('[export]\ntxt_trigger = "a\\nb\\u001b[2J"\n')
    done = ramctl("export", "-f", "jsonl", stdin=b"")
    first = done.messages.splitlines()[0]
    assert first == r'ramctl export: ./ramctl.toml sets txt_trigger = "a\nb\u001b[2J"'
    assert not Path(tmp_path, "x").exists()


def test_a_relative_folder_of_configuration_is_not_the_user_s(tmp_path, ramctl):
    (tmp_path / "theirs" / "ramctl").mkdir(parents=True)
    (tmp_path / "theirs" / "ramctl" / "ramctl.toml").write_text("[parse]\nstats = 's.json'\n")
    done = ramctl("parse", XDG_CONFIG_HOME="theirs", stdin=b'{"captions":["a dog"]}\n')
    assert done.returncode == 0
    assert not (tmp_path / "s.json").exists()
