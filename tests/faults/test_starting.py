"""The start of a command: Ctrl-C while modules are imported, and a machine without a home."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support import DATA, captured

# Ctrl-C at the N-th import from the command's own module on.
COUNTING = """
import os, signal, sys

class Counting:
    n_left = None

    def find_spec(self, name, *_):
        if name == "ramctl.cli":
            self.n_left = int(os.environ["AT_IMPORT"])
        if self.n_left is not None:
            self.n_left -= 1
            if self.n_left == 0:
                os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Counting())
"""
SCRIPT = ["-c", "from ramctl.__main__ import main; main()"]  # as pip writes it
# No HOME, and no entry of the user's in the password file.
HOMELESS = """
import os, pwd
os.environ.pop("HOME", None)
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
"""


@pytest.fixture(autouse=True)
def ctrl_c_counts():
    """Tests that run in the background have SIGINT ignored, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("start", [["-m", "ramctl"], SCRIPT], ids=["module", "script"])
@pytest.mark.parametrize("at", [1, 2, 7, 20, 47, 90, 200])
def test_ctrl_c_at_an_import_is_one_line_at_most(at, start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(COUNTING)
    command = [sys.executable, *start, "parse", DATA / "captions.jsonl"]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")]), "."])
    done = captured(
        command, stdin=subprocess.DEVNULL, cwd=DATA.parents[1],
        env={**os.environ, "PYTHONPATH": paths, "AT_IMPORT": str(at)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGINT
    assert done.stderr in ("", "ramctl parse: interrupted\n")


def test_a_run_that_is_to_ignore_ctrl_c_does(ramctl):
    done = ramctl.process(
        "parse", DATA / "captions.jsonl", fresh=True,
        before="import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import ramctl.__main__; os.kill(os.getpid(), signal.SIGINT)",
    )  # fmt: skip
    assert done.returncode == 0, done.messages


@pytest.mark.parametrize("words", [
    ["tag", "-q", "-j1", next((DATA / "photos").glob("*.jpg"))],
    ["parse", "-q", DATA / "captions.jsonl"],
    ["doctor"],
], ids=lambda words: words[0])  # fmt: skip
def test_no_home_is_needed(words, ramctl, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "RAMCTL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    done = ramctl.process(*words, before=HOMELESS)
    assert (done.returncode, done.messages) == (0, "")


def test_what_needs_a_home_names_the_variables(ramctl, monkeypatch):
    for name in ("XDG_DATA_HOME", "RAMCTL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    done = ramctl.process("tag", "--model", "nothere", "a.jpg", before=HOMELESS)
    assert done.returncode == 1
    assert done.messages.endswith("no home folder: set HOME, or XDG_DATA_HOME to a folder\n")
    assert done.messages.count("\n") == 1
