"""A reader that an installed package brings, and formats that nothing reads."""

import re
import sys

import pytest

from ramctl.readers.caption_formats import GROUP, READERS
from tests.conftest import REPOSITORY

PARSE = "ramctl.commands.parse"


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """The example of the manual as an installed package."""
    manual = (REPOSITORY / "ramctl" / "parsing" / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```text\n(.*?)```", manual, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    (entry,) = re.findall(r'^(\w+) = "(scenes:\w+)"', project, re.MULTILINE)
    assert f'[project.entry-points."{GROUP}"]' in project
    (tmp_path / "scenes.py").write_text(code)
    info = tmp_path / "ramctl_scenes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ramctl-scenes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{' = '.join(entry)}\nbroken = scenes:No\n")
    (tmp_path / "films.txt").write_text("heat 12 a man on a horse\n\nheat 90\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(PARSE, None)  # it lists the formats when it is imported
    yield
    for name in ("scenes", PARSE):
        sys.modules.pop(name, None)


def test_an_installed_package_brings_a_reader(scenes, ramctl):
    done = ramctl("parse", "-q", "--from", "scenes", "films.txt", "--rejects", "-")
    assert done.returncode == 3
    assert [row["image"] for row in done.rows] == ["heat-12.jpg"]
    assert "horse" in done.rows[0]["tags"]
    assert done.messages.count("no film, second and caption") == 2
    done = ramctl("parse", "--from", "broken", "films.txt")
    assert (done.returncode, done.messages.count("\n")) == (1, 1)
    assert "--from broken: scenes:No cannot be imported" in done.messages
    assert "ram, broken, scenes [default" in " ".join(
        ramctl("parse", "--help").stdout.decode().split()
    )


def test_an_unknown_format_is_one_line(ramctl):
    done = ramctl("parse", "--from", "scenes", "films.txt")
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert "'scenes' is not one of 'jsonl'" in done.messages
    assert all(f"'{name}'" in done.messages for name in READERS)
