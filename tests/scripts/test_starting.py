"""Scripts start under any Python; darktable's does what it says, as darktable runs it."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.forked import write_program
from tests.support import DATA, captured

PLUGINS, CAT = REPOSITORY / "scripts" / "plugins", DATA / "pictures" / "cat.jpg"
STUB = """package.preload.darktable = function()  -- as much of darktable as the script calls
  local function image(path)
    local tags = {}
    return { path = path:match("(.*)/"), filename = path:match("[^/]*$"), get_tags = function() return tags end,
      attach_tag = function(_, tag) tags[#tags + 1] = tag end,
      detach_tag = function(_, tag) for i, t in ipairs(tags) do if t.name == tag.name then table.remove(tags, i) end end end } end
  local function named(name) return { name = name } end
  return { print = print, print_log = print, configuration = {}, preferences = { read = function() return "" end },
    database = { import = image }, tags = { create = named, find = named } } end
"""  # noqa: E501
TRIAL = """local dt = require "darktable"
local photo, script = dt.database.import("%s"), dofile("%s")
for _, tag in ipairs { "auto|BMW", "auto|old" } do photo:attach_tag(dt.tags.create(tag)) end
script.tag_photos { photo }
for _, tag in ipairs(photo:get_tags()) do print("tag=" .. tag.name) end
"""


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A photo that has the tags auto/old of ramctl and auto/BMW of its owner."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "it's mine").mkdir()
    photo = Path(shutil.copy(CAT, tmp_path / "it's mine"))
    write_program(tmp_path / "ramctl")
    record = json.dumps({"image": str(photo), "tags": ["old"]})
    captured(["ramctl", "export", "--xmp"], input=record)
    xmp, field = Path(f"{photo}.xmp"), r"(<(?:lr:|digiKam:TagsList).*?<rdf:li>auto(.))old"
    xmp.write_text(re.sub(field, r"\1BMW</rdf:li><rdf:li>auto\2old", xmp.read_text()))
    return photo


@pytest.mark.slow
@pytest.mark.parametrize("program", ["lua5.4", "darktable-cli"])
def test_darktable_keeps_what_is_the_owners(program, photo, tmp_path, monkeypatch):
    if (place := shutil.which(program)) is None:
        pytest.skip(f"needs {program}")
    trial = TRIAL % (photo, PLUGINS / "ramctl.lua")
    folders = ["--configdir", tmp_path / "c", "--cachedir", tmp_path / "d"]
    core = ["--core", *folders, "--library", ":memory:", "--luacmd", trial]
    is_lua = program == "lua5.4"
    command = [place, "-e", STUB + trial] if is_lua else [place, CAT, tmp_path / "o.jpg", *core]
    tags = re.findall(r"tag=auto\|(.*)", captured(command).stdout)
    assert {"BMW", "cat"} < {*tags} and "old" not in tags
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "ramctl is not installed" in captured(command).stdout


def test_a_script_says_what_to_do_without_an_environment_and_finds_that_of_a_checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("build_docs.py", "venv_python.py"):
        content = (REPOSITORY / "scripts" / name).read_bytes()
        (tmp_path / "scripts" / name).write_bytes(content)
    (tmp_path / "ramctl").symlink_to(REPOSITORY / "ramctl")
    # -S: nothing that is installed is found.
    command = [sys.executable, "-S", tmp_path / "scripts" / "build_docs.py", "--check"]
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    bare["PATH"] = "/usr/bin:/bin"
    done = captured(command, env=bare)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("build_docs.py: needs click, ")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = captured(command, env=bare)
    assert (done.returncode, done.stderr) == (0, "")
