"""Names and tags with control characters or ends of lines."""

import json
import shutil
from pathlib import Path

import pytest

from ramctl.errors import escaped, one_line
from tests.support import DATA

RED, CLEAR, TURNED = "\x1b[31m", "\x9b2J", "\u202e"
BAD = f"a{RED}b\nc{CLEAR}{TURNED}d"
SHOWN = r"a\x1b[31mb\nc\x9b2J\u202ed"
ORDINARY = "Café 日本語 עברית 👩‍👩‍👧 a\\b"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = {
        "image": f"={BAD}.jpg", "tags": [f"+{BAD}", "-1", "@x"], "scores": {"@x": 0.5},
        "generated_captions": ["=1+1"],
    }  # fmt: skip
    Path("in.jsonl").write_text(json.dumps(record) + "\n")
    return ramctl_lines


def ramctl_lines(done) -> list[str]:
    """The lines of an output, none of which has a control character."""
    assert done.returncode == 0, done.messages
    lines = done.stdout.decode().split("\n")[:-1]
    assert not any(
        character in line for line in lines for character in f"{RED[0]}{CLEAR[0]}{TURNED}"
    )
    return lines


def test_ordinary_text_stays_as_it_is():
    assert escaped(ORDINARY) == one_line(ORDINARY) == ORDINARY
    assert one_line(BAD) == escaped(BAD) == escaped(SHOWN) == SHOWN


@pytest.mark.parametrize(
    "words", [["tag"], ["tag", "-R"], ["search"], ["eval", "--truth"], ["parse"]]
)
def test_a_name_is_one_line_of_a_message(words, tmp_path, ramctl):
    extra = ["dog"] if words == ["search"] else []
    done = ramctl(*words, f"{BAD}.jpg", *extra)
    assert done.returncode in (1, 2, 3)
    assert f"{SHOWN}.jpg" in done.messages.splitlines()[0]
    assert done.messages.count("\n") == (2 if done.returncode == 3 else 1)


def test_a_tag_is_one_line_of_a_message(hostile, ramctl):
    assert SHOWN in ramctl("tag", "-q", "--lang", BAD, "in.jsonl").messages
    done = ramctl("eval", BAD, "--truth", "in.jsonl")
    assert done.messages.count("\n") == 1


def test_text_and_table_hold_a_photo_in_their_lines(hostile, ramctl):
    (line,) = hostile(ramctl("export", "-f", "text", "in.jsonl"))
    assert line == f"={SHOWN}.jpg\t+{SHOWN}, -1, @x"
    lines = hostile(ramctl("export", "-f", "table", "in.jsonl"))
    assert lines[0] == f"={SHOWN}.jpg" and len(lines) == 5


def test_a_csv_holds_a_photo_in_a_row(hostile, ramctl):
    _, row = hostile(ramctl("export", "-f", "csv", "in.jsonl"))
    assert row == f'={SHOWN}.jpg,"+{SHOWN}, -1, @x",0.5000,=1+1'


def test_tables_of_eval_hold_names_in_their_lines(hostile, ramctl):
    words = ["eval", "in.jsonl", "--truth", "in.jsonl"]
    shutil.copy("in.jsonl", f"+x{BAD}")
    hostile(ramctl(*words, f"+x{BAD}", "-f", "table"))


def test_the_models_here_are_lines(tmp_path, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, tmp_path / BAD)
    assert any(SHOWN in line for line in ramctl_lines(ramctl("doctor")))


@pytest.mark.parametrize("name", ['{"image":"kite.jpg"}', '{"image":"no.jpg"}.jpg', "\ufeffa.jpg"])
def test_with_0_what_looks_like_a_record_is_a_name(name, tmp_path, ramctl):
    shutil.copy(DATA / "photos" / "kite.jpg", tmp_path / name)
    done = ramctl("tag", "-q", "-0", "-", stdin=f"{name}\0".encode())
    assert (done.returncode, [row["image"] for row in done.rows]) == (0, [name]), done.messages
