"""Recipes of the documents: systemd's own check passes the units, and videos get tags."""

import os
import re
import shutil

import pytest

from tests.conftest import REPOSITORY
from tests.forked import program_for_shells
from tests.support import DATA, captured

README = (REPOSITORY / "ramctl" / "tagging" / "README.md").read_text("utf-8")
(UNITS,) = re.findall(r"```ini\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def home(tmp_path):
    """A home with the photos and the command where the units look for them."""
    (tmp_path / "Pictures").mkdir()
    for name in re.findall(r"^ExecStart=%h/(\S+)", UNITS, re.MULTILINE):
        command = tmp_path / name
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
    return tmp_path


def test_systemd_verifies_the_units_without_a_word(home):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    parts = re.split(r"^# ~/(\S+)\n", UNITS, flags=re.MULTILINE)[1:]
    paths = [home / name for name in parts[::2]]
    for path, text in zip(paths, parts[1::2], strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert [path.suffix for path in paths] == [".service", ".timer", ".path"]
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = captured(["systemd-analyze", "--user", "verify", *paths], env=environment)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("jq")), reason="needs ffmpeg, jq")
def test_the_tags_of_a_video_are_those_of_its_frames(tmp_path, monkeypatch):
    photo, video = DATA / "pictures" / "temple.jpg", tmp_path / "my temple.mp4"
    captured(["ffmpeg", "-v", "error", "-loop", "1", "-i", photo, "-t", "30", "-r", "1", video])
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    recipe = README.split("## Videos")[1].split("```sh\n")[1].split("```")[0]
    with program_for_shells(tmp_path / "ramctl"):
        done = captured(["sh", "-e", "-c", recipe], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert '{"video":"my temple.mp4","tags":["' in (tmp_path / "videos.jsonl").read_text()
