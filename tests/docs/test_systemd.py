"""The recipe for every night: systemd's own check passes the units."""

import os
import re
import shutil

import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

README = (REPOSITORY / "ramctl" / "inference" / "README.md").read_text("utf-8")
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
    assert [path.suffix for path in paths] == [".service", ".timer"]
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = captured(["systemd-analyze", "--user", "verify", *paths], env=environment)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
