"""`ramctl tag` from the outside: inputs, choices, forms of output."""

import contextlib
import csv
import io
import os
import subprocess

import pytest

from tests.command import ONE_BY_ONE, Ramctl
from tests.inference.conftest import names, save_photo, tags
from tests.support import lines, read_rows


def test_a_photo_gets_its_tags_with_scores_by_falling_score(tag):
    done = tag("red.png")
    (row,) = done.rows
    assert done.returncode == 0
    assert list(row) == ["image", "tags", "scores"]
    assert row["image"] == "red.png"
    assert row["tags"] == list(row["scores"]) == ["red", "colour"]
    assert row["scores"]["red"] == pytest.approx(1 / (1 + 2.718281828**-6), abs=1e-4)


def test_good_photos_are_tagged_and_bad_ones_named_with_their_reason(tag, photos):
    done = tag("red.png", "broken.jpg", "nowhere.jpg", "notes.txt", "--rejects", "rejects.jsonl")
    assert done.returncode == 3
    assert names(done) == ["red.png"]
    rejects = read_rows(photos / "rejects.jsonl")
    assert [(r["source"], r["line"], r["code"]) for r in rejects] == [
        ("broken.jpg", None, "unreadable_image"),
        ("nowhere.jpg", None, "missing_image"),
        ("notes.txt", None, "unreadable_image"),
    ]
    assert b"ramctl tag: nowhere.jpg: no such file\n" in done.stderr
    tag("red.png", "broken.jpg", "-o", "out.jsonl")
    save_photo(photos / "broken.jpg", "red")
    assert tag("red.png", "broken.jpg", "-o", "out.jsonl", "--resume").returncode == 0
    assert [row["image"] for row in read_rows(photos / "out.jsonl")] == ["red.png", "broken.jpg"]
    (photos / "broken.jpg").write_bytes(b"broken")
    again = tag("rejects.jsonl")
    assert b"3 in, 0 out, 3 rejected" in again.stderr


def test_files_that_are_no_photos_are_counted_by_their_endings(tag, photos):
    for name in ("a.mp4", "b.MP4", "red.png.xmp"):
        (photos / name).write_bytes(b"")
    assert b", 1 .mp4 files skipped, 1 .MP4 files skipped, " in tag("-R", ".").stderr


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["--lang", "zh"], "--lang"),
        (["--top", "1", "-f", "text"], "--top, -f"),
        (["--dense"], "--dense"),
    ],
)
def test_resume_names_the_options_that_differ(words, other, tag):
    tag("red.png", "-o", "out.jsonl")
    done = tag("red.png", "-o", "out.jsonl", "--resume", *words)
    assert done.returncode == 2 and f"out.jsonl: was made with another {other}; " in done.messages


def test_names_and_records_mix_on_standard_input_or_names_end_with_nul(tag, photos):
    record = b'{"id": 1, "image": "blue.png", "tags": ["old"], "kinds": {"old": "object"}}'
    first, second = tag("-", stdin=b"red.png\n\n" + record + b"\n").rows
    assert first["image"] == "red.png"
    assert second["id"] == 1 and second["tags"] == ["blue", "colour"]
    assert second["kinds"] == {"blue": "attribute", "colour": "attribute"}
    save_photo(photos / (odd := "line\nbreak.png"), "red")
    assert names(tag("-0", "-", stdin=f"{odd}\0red.png\0".encode())) == [odd, "red.png"]


def test_what_another_model_said_of_a_photo_does_not_stay_and_what_its_owner_said_does(tag):
    said = {"boxes": {"red": [[0, 0, 1, 1], 0.5]}, "dense": [0.1], "label_names": ["red"]}
    said |= {"tag_language": "de", "sources": {"red": ["human"], "sky": ["parsed"]}}
    record = {"image": "red.png", "tags": ["red", "sky"], "mine": 1, **said}
    own = {"labels": ["mine"], "boxes": [[0, 0, 9, 9]], "label_names": ["my own"]}
    first, second = tag("-", stdin=lines([record, {"image": "red.png", **own}])).rows
    assert first["tags"] == ["red", "colour"]
    assert first.keys() - {"scores", "kinds"} == {"image", "tags", "mine", "sources"}
    assert first["sources"] == {"red": ["human"]}
    assert {name: second[name] for name in own} == own


def test_thresholds_come_from_a_file(tag, photos):
    (photos / "by-tag.jsonl").write_text('{"tag": "colour", "threshold": 0.99}\n')
    assert tags(tag("--threshold", "by-tag.jsonl", "red.png")) == ["red"]
    (photos / "by-id.txt").write_text("1\n1\n1\n0\n")
    assert tags(tag("--threshold", "by-id.txt", "red.png")) == ["colour"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--threshold=nan"], 2, "not between 0 and 1"),
        (["--threshold", "short.txt"], 1, "short.txt: 1 thresholds for 4 labels"),
        (["--threshold", "by-tag"], 1, "by-tag:1: expected"),
        (["--threshold", "by-id"], 1, "by-id:2: expected"),
        (["--lang", "xx"], 2, "language 'xx': the labels have names in zh"),
        (["--labels", "words", "--lang", "zh"], 2, "have no names in other languages"),
        (["--caption", "-f", "text"], 2, " -f jsonl, parquet, csv or table, not text\n"),
        (["--boxes", "-f", "csv"], 2, " -f jsonl or parquet, not csv\n"),
        (["--dense", "-f", "table"], 2, " -f jsonl or parquet, not table\n"),
        (["--embedding", "-f", "text"], 2, " -f jsonl or parquet, not text\n"),
        (["-f", "parquet", "--resume"], 2, "-f parquet needs -o FILE"),
    ],
)
def test_what_cannot_be_is_refused_before_any_photo(options, code, said, tag, photos):
    (photos / "short.txt").write_text("0.5\n")
    (photos / "by-tag").write_text('{"tag": "red", "threshold": 1.5}\n')
    (photos / "by-id").write_text("0.1\n2\n0.3\n0.4\n")
    (photos / "words").write_text("red\n")
    done = tag("red.png", *options)
    assert (done.returncode, done.stdout) == (code, b"") and said in done.messages


def test_names_are_of_a_language_whatever_its_capitals(tag, photos):
    assert "blue" in tags(tag("blue.png", "--lang", "en-GB"))
    for code in ("zh", "ZH", "zh_CN"):
        done = tag("blue.png", "--lang", code)
        assert tags(done) == ["蓝色", "colour"]
        assert done.rows[0]["tag_language"] == "zh"
    (photos / "words.txt").write_text("blue\npurple\n")
    assert "蓝色" in tags(tag("blue.png", "--labels", "words.txt", "--lang", "zh"))


def test_new_words_are_found_instead_of_or_besides_the_model_s_labels(tag, photos):
    save_photo(photos / "purple.png", "magenta")
    (photos / "words.txt").write_text("purple\nwhite\nscarlet\n")
    instead = tags(tag("--labels", "words.txt", "purple.png"))
    assert instead == ["purple", "white", "scarlet"]
    besides = tags(tag("--labels", "+words.txt", "purple.png"))
    assert besides == ["purple", "colour", "red", "blue", "white"]
    (photos / "described.json").write_text('{"sunset": ["red purple", "red"]}')
    assert tags(tag("--labels", "described.json", "red.png")) == ["sunset"]


def test_dense_gives_every_score_and_the_names_once(tag):
    first, second = tag("--dense", "red.png", "blue.png").rows
    assert first["label_names"] == ["red", "green", "blue", "colour"]
    assert "label_names" not in second
    assert len(second["dense"]) == 4
    digits = [f"{score:.6g}" for score in first["dense"]]
    assert [float(d) for d in digits] == first["dense"]
    assert min(first["dense"]) > 0


def test_text_and_tables_have_one_line_a_photo(tag):
    assert tag("-f", "text", "red.png", "blue.png").stdout.decode().splitlines() == [
        "red.png\tred, colour",
        "blue.png\tblue, colour",
    ]
    (row,) = csv.DictReader(io.StringIO(tag("-f", "csv", "--top", 1, "red.png").stdout.decode()))
    assert (row["image"], row["tags"]) == ("red.png", "red")
    assert float(row["scores"]) > 0.99


def on_a_terminal(*words: object, folder) -> str:
    """What the command shows on a terminal that is its standard output and standard error."""
    import pty
    import termios

    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    streams = {"stdin": subprocess.DEVNULL, "stdout": terminal, "stderr": terminal}
    with Ramctl(folder).start(*words, **streams):
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while block := os.read(screen, 1 << 16):
                shown += block
    os.close(screen)
    return shown.decode().replace("\r\n", "\n")


def test_on_a_terminal_tags_are_shown_for_people_unless_a_form_or_fields_are_asked_for(
    colours, photos
):
    shown = on_a_terminal("tag", "--model", colours, "red.png", "blue.png", folder=photos)
    assert shown.split("ramctl tag: 2 in")[0] == (
        "red.png\n  1.00  red\n  0.95  colour\nblue.png\n  1.00  blue\n  0.95  colour\n"
    )
    words = ["tag", "-q", "--model", colours, "red.png"]
    assert on_a_terminal(*words, "-f", "text", folder=photos) == "red.png\tred, colour\n"
    assert on_a_terminal(*words, "--dense", folder=photos).startswith('{"image":"red.png"')
    assert on_a_terminal(*words, "-o", "tags.jsonl", folder=photos) == ""
    assert (photos / "tags.jsonl").read_bytes().startswith(b'{"image":"red.png"')


def test_each_record_comes_before_the_next_name_is_read(photos, colours):
    words = ("--model", colours, "-q", "-f", "text", "-j", "1", "-")
    run = Ramctl(photos).start("tag", *words, before=ONE_BY_ONE)
    for name in (b"red.png", b"blue.png"):
        run.stdin.write(name + b"\n")
        run.stdin.flush()
        assert run.stdout.readline().startswith(name)
    assert run.communicate(timeout=60)[0] == b""
