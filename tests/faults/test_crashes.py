"""A run that is killed before a step that it makes on the disk, and resumed, is as never killed."""

import json
import shutil
from pathlib import Path

import pytest

from tests.faults.crashes import crash_matrix, resumed_by, run
from tests.faults.streams import GOOD, LINES, stream, with_lines
from tests.support import DATA

PARSE = ["parse", "in.jsonl", "-o", "out", "--rejects", "rejects"]


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    monkeypatch.setattr("ramctl.records.stream.BATCH", 1)


def changed(folder: Path) -> None:
    """A finished run of which an input was changed, one mended, one added, and one is bad now."""
    with_lines(*LINES, GOOD[0])(folder)
    assert run(folder, stream())[0] == 3
    again = [LINES[0], LINES[1], '{"captions":["a green boat"]}', '{"captions":["a dog"]}']
    with_lines(*again, LINES[4], "{worse", GOOD[1])(folder)


def test_files_are_on_the_disk_before_they_have_their_names(folder):
    changed(folder)
    _, steps, err = run(folder, stream(resume=True))
    steps = [
        step for step in steps if step.startswith(("fsync", "os.rename")) and "run" not in step
    ]
    copy = ".out.part.ramctl-part"
    assert steps == [
        f"fsync {copy}", f"os.rename {copy}",  # to append to
        f"fsync {copy}", f"os.rename {copy}",  # without the lines of changed inputs
        "fsync .out.done", "fsync out.part", "os.rename out.part",
    ], err  # fmt: skip


def test_a_first_run(tmp_path):
    again = resumed_by(stream(resume=True))
    assert crash_matrix(tmp_path / "run", with_lines(*LINES), stream(), again) > 4


def test_a_resumed_run_with_changed_inputs(tmp_path):
    work = stream(resume=True)
    assert crash_matrix(tmp_path / "run", changed, work, resumed_by(work), in_order=False) > 10
    head, *lines = (tmp_path / "run" / "out").read_text().splitlines()
    tags = [json.loads(line)["tags"] for line in lines]
    assert head == "[head]"
    assert tags == [["horse"], ["red", "house"], ["green", "boat"], ["dog"], ["boat"]]
    rejects = (tmp_path / "run" / "rejects").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [2, 6]


@pytest.mark.slow
def test_parse(tmp_path):
    again = resumed_by([*PARSE, "--resume"])
    assert crash_matrix(tmp_path / "run", with_lines(*LINES), PARSE, again) > 4


def photos(folder: Path) -> None:
    for name in ("steps", "horses"):
        shutil.copy2(DATA / "photos" / f"{name}.jpg", folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")


@pytest.mark.slow
def test_tag(tiny_bundle, tmp_path):
    words = ["tag", "--model", tiny_bundle, "-R", ".", "-f", "csv", "-j1", "-o", "out"]
    words += ["--rejects", "rejects"]
    again = resumed_by([*words, "--resume"])
    assert crash_matrix(tmp_path / "run", photos, words, again, every=4) > 4
