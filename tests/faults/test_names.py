"""Names that no file can have, or that leave no room for what stands beside a file."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.support import DATA

PHOTO = (DATA / "photos" / "steps.jpg").read_bytes()
TOO_LONG = "y" * 300 + ".jpg"
BAD = {
    TOO_LONG: "unreadable_image",
    "y" * 252 + ".jpg": "unreadable_image",
    "z" * 300 + ".tar#a.jpg": "unreadable_image",
    "a.tar#" + "z" * 250: "missing_image",
    "none.tar#" + "z" * 300: "missing_image",
    "q/" * 3000 + "a.jpg": "unreadable_image",
    "ok.jpg/inside.jpg": "missing_image",
    "loop.jpg": "unreadable_image",
    "a\0b.jpg": "unreadable_image",
    ".": "unreadable_image",
    "..": "unreadable_image",
    "/": "unreadable_image",
    "folder": "unreadable_image",
    "": "bad_field",
}
COMMANDS = {
    "caption": ["caption", "--model", "m"],
    "tag": ["tag"],
    "generate": ["generate", "--captions", "0"],
    "clean": ["clean"],
    "import": ["import"],
    "coco": ["export", "-f", "coco"],
    "gallery": ["export", "-f", "text", "--gallery", "page.html"],
    "xmp": ["export", "-f", "text", "--xmp"],
    "dry run": ["export", "--xmp", "--dry-run"],
    "txt": ["export", "-f", "text", "--txt"],
}

# Takes from root's process what lets it into every folder (CAP_DAC_OVERRIDE and _READ_SEARCH).
WITHOUT_RIGHTS = """
import ctypes
libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
sets[0] &= ~0b110
assert libc.capset(header, sets) == 0
"""


def rows_of(names):
    return "".join(
        json.dumps({"image": name, "captions": ["a dog"], "tags": ["dog"]}) + "\n" for name in names
    )


def rejects_of(folder: Path) -> list[dict]:
    return list(map(json.loads, (folder / "rejects").read_text().splitlines()))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_leads_to_no_photo_rejects_its_record_alone(
    command, tmp_path, captioner, ramctl
):
    (tmp_path / "ok.jpg").write_bytes(PHOTO)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "ok.jpg", "ok.jpg")
    (tmp_path / "in.jsonl").write_text(rows_of([*BAD, "ok.jpg"]))
    done = ramctl(*COMMANDS[command], "in.jsonl", "--rejects", "rejects")
    assert done.returncode == 3, done.messages
    expected = dict(BAD)
    if {"--xmp", "--txt"} & {*COMMANDS[command]}:
        expected |= {name: "write_failed" for name in BAD if "#" in name}
    if "--gallery" in COMMANDS[command]:  # it opens the archive at the end
        del expected["a.tar#" + "z" * 250]
    found = {row["record"]["image"]: row["code"] for row in rejects_of(tmp_path)}
    assert found == expected
    assert f"{len(BAD) + 1} in, {len(BAD) + 1 - len(expected)} out, " in done.messages


@pytest.mark.parametrize("name", [TOO_LONG, "y" * 300, "y" * 300 + ".tar", "loop.jpg", "", "a\0b"])
def test_a_name_in_a_list_rejects_its_photo_alone(name, tmp_path, ramctl):
    (tmp_path / "ok.jpg").write_bytes(PHOTO)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for words in (["tag", "-R"], ["import"], ["tag"]):
        done = ramctl(*words, "-", "-q", "--rejects", "rejects", stdin=f"{name}\nok.jpg\n".encode())
        assert (done.returncode, len(done.rows)) == (3 if name else 0, 1), done.messages
    if "\0" not in name and not name.endswith(".tar"):  # else there is an archive to name
        done = ramctl("tag", name, "ok.jpg", "-q")
        assert (done.returncode, len(done.rows)) == (3, 1), done.messages


@pytest.mark.parametrize("length", [248, 252, 253, 254, 255])
def test_a_photo_whose_sidecar_has_no_name_is_rejected_alone_and_else_read(
    length, tmp_path, ramctl
):
    name = "x" * (length - 4) + ".jpg"
    for photo in (name, "ok.jpg"):
        (tmp_path / photo).write_bytes(PHOTO)
    (tmp_path / "in.jsonl").write_text(rows_of([name, "ok.jpg"]))
    for words in (["tag"], ["import"], ["export", "-f", "coco"], ["export", "--xmp-remove"]):
        done = ramctl(*words, "in.jsonl")
        assert (done.returncode, "2 in, 2 out" in done.messages) == (0, True), done.messages
    if length > 251:
        done = ramctl("export", "in.jsonl", "--xmp", "--rejects", "rejects")
        assert done.returncode == 3 and "2 in, 1 out" in done.messages
        assert [row["code"] for row in rejects_of(tmp_path)] == ["write_failed"]
    assert sorted(path.name for path in tmp_path.glob("*.part*")) == []


@pytest.mark.parametrize("length", [250, 254, 300])
def test_an_output_whose_name_is_too_long_is_a_problem_of_one_line(length, tmp_path, ramctl):
    (tmp_path / "ok.jpg").write_bytes(PHOTO)
    (tmp_path / "in.jsonl").write_text(rows_of(["ok.jpg"]))
    name = "y" * length
    for words in (
        ["tag", "ok.jpg", "-o", name], ["tag", "ok.jpg", "-o", "out", "--rejects", name],
        ["eval", "in.jsonl", "--truth", "in.jsonl", "-o", name], ["clean", "in.jsonl", "-o", name],
        ["parse", "in.jsonl", "--build-labels", name],
    ):  # fmt: skip
        done = ramctl(*words, "-q")
        assert done.returncode in (1, 2), done.messages
        (line,) = done.messages.splitlines()
        assert line.endswith(": File name too long") and "internal error" not in line
        assert not os.path.lexists(tmp_path / "y") and not list(tmp_path.glob("*.part"))
