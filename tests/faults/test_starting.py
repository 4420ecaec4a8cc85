"""The start of a command on a machine without a home."""

import pytest

from tests.support import DATA

# No HOME, and no entry of the user's in the password file.
HOMELESS = """
import os, pwd
os.environ.pop("HOME", None)
def no_entry(uid):
    raise KeyError(uid)
pwd.getpwuid = no_entry
"""


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
