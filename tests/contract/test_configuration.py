"""The user's own file: what it sets, and what it does not."""

import json

from tests.support import DATA

KITE = DATA / "photos" / "kite.jpg"


def test_the_user_s_file_sets_defaults_and_the_command_line_wins(tmp_path, ramctl):
    folder = tmp_path / "ramctl"
    folder.mkdir()
    (folder / "ramctl.toml").write_text("[tag]\nstats = 's.json'\nquiet = true\nformat = 'text'\n")
    done = ramctl("tag", KITE, XDG_CONFIG_HOME=str(tmp_path))
    assert (done.returncode, done.messages, done.stdout[:1]) == (0, "", b"/")
    assert json.loads((tmp_path / "s.json").read_text())["out"] == 1
    done = ramctl("tag", KITE, "-f", "jsonl", XDG_CONFIG_HOME=str(tmp_path))
    assert done.rows[0]["image"] == str(KITE)


def test_an_argument_is_no_setting_and_the_file_of_a_folder_is_not_read(tmp_path, ramctl):
    (tmp_path / "ramctl").mkdir()
    for name in ("ramctl.toml", "ramctl/ramctl.toml"):
        (tmp_path / name).write_text("[tag]\ninputs = ['/etc']\n")
    assert ramctl("tag", KITE).returncode == 0
    done = ramctl("tag", KITE, XDG_CONFIG_HOME=str(tmp_path))
    assert "[tag] has no option 'inputs'" in done.messages


def test_a_relative_folder_of_configuration_is_not_the_user_s(tmp_path, ramctl):
    (tmp_path / "theirs" / "ramctl").mkdir(parents=True)
    (tmp_path / "theirs" / "ramctl" / "ramctl.toml").write_text("[parse]\nstats = 's.json'\n")
    done = ramctl("parse", XDG_CONFIG_HOME="theirs", stdin=b'{"captions":["a dog"]}\n')
    assert done.returncode == 0
    assert not (tmp_path / "s.json").exists()
