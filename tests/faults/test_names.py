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
    "xmp": ["export", "-f", "text", "--xmp"],
}


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
    found = {row["record"]["image"]: row["code"] for row in rejects_of(tmp_path)}
    assert found.keys() == BAD.keys()
    assert command == "xmp" or found == BAD
    assert f"{len(BAD) + 1} in, 1 out, {len(BAD)} rejected" in done.messages


@pytest.mark.parametrize("name", [TOO_LONG, "y" * 300, "y" * 300 + ".tar", "loop.jpg", "", "a\0b"])
def test_a_name_in_a_list_rejects_its_photo_alone(name, tmp_path, ramctl):
    (tmp_path / "ok.jpg").write_bytes(PHOTO)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for words in (["tag", "-R"], ["import"], ["tag"]):
        done = ramctl(*words, "-", "--rejects", "rejects", stdin=f"{name}\nok.jpg\n".encode())
        assert (done.returncode, len(done.rows)) == (3 if name else 0, 1), done.messages
    if "\0" not in name and not name.endswith(".tar"):  # else there is an archive to name
        done = ramctl("tag", name, "ok.jpg", "-q")
        assert (done.returncode, len(done.rows)) == (3, 1), done.messages


def test_a_name_that_is_not_utf8_is_a_reject_that_says_how_to_rename(tmp_path, ramctl):
    (tmp_path / "photos").mkdir()
    for name in (b"caf\xe9.jpg", b"ok.jpg"):
        (tmp_path / "photos" / os.fsdecode(name)).write_bytes(PHOTO)
    for words in (["tag"], ["import"]):
        done = ramctl(*words, "-R", "photos", "--rejects", "rejects")
        assert (done.returncode, [row["image"] for row in done.rows]) == (3, ["photos/ok.jpg"])
        (reject,) = rejects_of(tmp_path)
        assert (reject["code"], reject["source"]) == ("bad_utf8", "photos/caf\\xe9.jpg")
        assert reject["message"].startswith("the name is not UTF-8: rename it (convmv ")
