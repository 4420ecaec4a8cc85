"""Names and tags that are hostile: control characters, ends of lines, names that no file has."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from ramctl.errors import MAX_MESSAGE, escaped, one_line
from tests.support import DATA, read_rows, write_records

PHOTO = DATA / "photos" / "steps.jpg"
RED, CLEAR, TURNED = "\x1b[31m", "\x9b2J", "\u202e"
BAD = f"a{RED}b\nc{CLEAR}{TURNED}d"
SHOWN = r"a\x1b[31mb\nc\x9b2J\u202ed"
ORDINARY = "Café 日本語 עברית 👩‍👩‍👧 a\\b"
CODES = {
    "y" * 300 + ".jpg": "unreadable_image",
    "z" * 300 + ".tar#a.jpg": "unreadable_image",
    "a.tar#" + "z" * 250: "missing_image",
    "none.tar#" + "z" * 300: "missing_image",
    "ok.jpg/inside.jpg": "missing_image",
    "loop.jpg": "unreadable_image",
    "a\0b.jpg": "unreadable_image",
    "..": "unreadable_image",
    "folder": "unreadable_image",
    "": "bad_field",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_text_is_one_line_and_ordinary_text_stays_as_it_is():
    assert escaped(ORDINARY) == one_line(ORDINARY) == ORDINARY
    assert one_line(BAD) == escaped(BAD) == escaped(SHOWN) == SHOWN
    assert one_line("a" * MAX_MESSAGE) == "a" * MAX_MESSAGE
    cut = one_line("a" * MAX_MESSAGE + "b")
    assert cut.startswith("a" * 500 + " ... a") and cut.endswith("ab")


@pytest.mark.parametrize("words", ["tag", "tag -R", "search dog", "eval --truth", "tag --lang"])
def test_a_name_is_one_line_of_a_message(words, ramctl):
    end = [] if words == "tag --lang" else [".jpg"]
    first, *others = words.split()
    name = BAD + "".join(end)
    done = ramctl(first, *([name, *others] if first == "search" else [*others, name]))
    assert done.returncode in (1, 2, 3)
    assert "".join([SHOWN, *end]) in done.messages.splitlines()[0]
    assert done.messages.count("\n") == (2 if done.returncode == 3 else 1)


ROW = f'={SHOWN}.jpg,"+{SHOWN}, -1, @x",0.5000,=1+1'


@pytest.mark.parametrize(
    ("words", "line", "n_lines"),
    [
        ("export -f text in.jsonl", f"={SHOWN}.jpg\t+{SHOWN}, -1, @x", 1),
        ("export -f table in.jsonl", f"={SHOWN}.jpg", 5),
        ("export -f csv in.jsonl", ROW, 2),
        ("eval in.jsonl --truth in.jsonl -f table", None, None),
        ("doctor", None, None),
    ],
)
def test_tables_and_texts_hold_names_in_their_lines(words, line, n_lines, tiny_bundle, ramctl):
    write_records(Path("in.jsonl"), [{
        "image": f"={BAD}.jpg", "tags": [f"+{BAD}", "-1", "@x"], "scores": {"@x": 0.5},
        "generated_captions": ["=1+1"],
    }])  # fmt: skip
    shutil.copy("in.jsonl", f"+x{BAD}")
    shutil.copytree(tiny_bundle, BAD)
    more = [f"+x{BAD}"] if "eval" in words else []
    done = ramctl(*words.split(), *more)
    assert done.returncode == 0, done.messages
    text = done.stdout.decode()
    assert not any(character in text for character in f"{RED[0]}{CLEAR[0]}{TURNED}")
    assert SHOWN in text
    if line:
        lines = text.split("\n")[:-1]
        assert line in lines and len(lines) == n_lines


@pytest.mark.parametrize("command", ["tag", "import", "export -f text --xmp"])
def test_a_name_that_leads_to_no_photo_rejects_its_record_alone(command, ramctl):
    shutil.copy(PHOTO, "ok.jpg")
    Path("folder").mkdir()
    Path("loop.jpg").symlink_to("loop.jpg")
    with tarfile.open("a.tar", "w") as archive:
        archive.add("ok.jpg")
    names = [*CODES, "ok.jpg"]
    write_records(Path("in.jsonl"), [{"image": name, "tags": ["dog"]} for name in names])
    done = ramctl(*command.split(), "in.jsonl", "--rejects", "rejects")
    assert done.returncode == 3, done.messages
    found = {row["record"]["image"]: row["code"] for row in read_rows("rejects")}
    assert found.keys() == CODES.keys()
    assert "export" in command or found == CODES
    assert f"{len(names)} in, 1 out, {len(CODES)} rejected" in done.messages


def test_a_name_in_a_list_rejects_its_photo_alone(ramctl):
    shutil.copy(PHOTO, "ok.jpg")
    names = ["y" * 300 + ".jpg", "y" * 300 + ".tar", "", "a\0b", "ok.jpg"]
    for words in (["tag", "-R"], ["tag"]):
        done = ramctl(*words, "-", stdin="\n".join(names).encode())
        assert [row["image"] for row in done.rows] == ["ok.jpg"], done.messages
        assert ": 4 in, 1 out, 3 rejected" in done.messages


def test_a_name_that_is_not_utf8_is_a_reject_that_says_how_to_rename(ramctl):
    Path("photos").mkdir()
    for name in (b"caf\xe9.jpg", b"ok.jpg"):
        shutil.copy(PHOTO, Path("photos", os.fsdecode(name)))
    done = ramctl("tag", "-R", "photos", "--rejects", "rejects")
    assert (done.returncode, [row["image"] for row in done.rows]) == (3, ["photos/ok.jpg"])
    (reject,) = read_rows("rejects")
    assert (reject["code"], reject["source"]) == ("bad_utf8", "photos/caf\\xe9.jpg")
    assert reject["message"].startswith("the name is not UTF-8: rename it (convmv ")
    listed = os.fsdecode(b"\xff.jsonl")
    Path(listed).write_text('{oops\n{"captions":["a horse"]}\n')
    assert ramctl("parse", listed, "--rejects", "rejects").returncode == 3
    assert json.loads(Path("rejects").read_bytes())["source"] == "\\xff.jsonl"


def test_with_0_what_looks_like_a_record_is_a_name(ramctl):
    name = '{"image":"kite.jpg"}'
    shutil.copy(PHOTO, name)
    done = ramctl("tag", "-q", "-0", "-", stdin=f"{name}\0".encode())
    assert (done.returncode, [row["image"] for row in done.rows]) == (0, [name]), done.messages
