"""`ramctl tag` from the outside: inputs, outputs, choices, resume."""

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.command import ONE_BY_ONE, Ramctl
from tests.support import DATA, lines, read_rows
from tests.tagging.conftest import names, save_photo, tags

PHOTO = DATA / "photos" / "horses.jpg"


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
    again = tag("rejects.jsonl")
    assert b"3 in, 0 out, 3 rejected" in again.stderr


def test_names_come_from_standard_input_line_by_line_or_by_nul(tag, photos):
    save_photo(photos / (odd := "line\nbreak.png"), "red")
    assert names(tag("-", stdin=b"red.png\n\nblue.png\n")) == ["red.png", "blue.png"]
    assert names(tag("-0", "-", stdin=f"{odd}\0red.png\0".encode())) == [odd, "red.png"]


def test_records_and_names_mix_on_standard_input(tag):
    record = b'{"id": 1, "image": "blue.png", "tags": ["old"], "kinds": {"old": "object"}}'
    done = tag("-", stdin=b"red.png\n" + record + b"\n")
    first, second = done.rows
    assert first["image"] == "red.png"
    assert second["id"] == 1
    assert second["tags"] == ["blue", "colour"]
    assert second["kinds"] == {"blue": "attribute", "colour": "attribute"}


def test_what_another_model_said_of_a_photo_does_not_stay(tag):
    said = {"boxes": {"red": [[0, 0, 1, 1], 0.5]}, "dense": [0.1]}
    record = {"image": "red.png", "tags": ["red", "sky"], "mine": 1, **said}
    (row,) = tag("-", stdin=lines([record])).rows
    assert row["tags"] == ["red", "colour"]
    assert row.keys() - {"scores", "kinds"} == {"image", "tags", "mine"}


def test_fields_of_the_owner_that_have_such_a_name_stay(tag):
    own = {"labels": ["mine"], "boxes": [[0, 0, 9, 9]]}
    (row,) = tag("-", stdin=lines([{"image": "red.png", **own}])).rows
    assert {name: row[name] for name in own} == own


def test_members_of_archives_are_tagged(tag, photos):
    with tarfile.open(photos / "shard-0.tar", "w") as tar:
        for name in ("red.png", "notes.txt", "blue.png"):
            tar.add(photos / name, name)
    assert names(tag("shard-0.tar")) == ["shard-0.tar#red.png", "shard-0.tar#blue.png"]
    record = b'{"image": "shard-0.tar#blue.png"}\n'
    assert tags(tag("-", stdin=record)) == ["blue", "colour"]


def test_text_and_tables_have_one_line_a_photo(tag):
    assert tag("-f", "text", "red.png", "blue.png").stdout.decode().splitlines() == [
        "red.png\tred, colour",
        "blue.png\tblue, colour",
    ]
    (row,) = csv.DictReader(io.StringIO(tag("-f", "csv", "red.png").stdout.decode()))
    assert (row["image"], row["tags"]) == ("red.png", "red, colour")
    assert float(row["scores"].split(", ")[0]) > 0.99


@pytest.mark.parametrize(
    ("option", "form", "forms"),
    [("--caption", "text", "-f jsonl, parquet, csv or table")]
    + [("--boxes", form, "-f jsonl or parquet") for form in ("text", "csv", "table")],
)
def test_formats_that_would_leave_out_what_is_asked_for_are_wrong_usage(option, form, forms, tag):
    done = tag("red.png", option, "-f", form)
    assert (done.returncode, done.stdout) == (2, b"")
    assert option in done.messages and done.messages.endswith(f" {forms}, not {form}\n")


def test_top_gives_the_likeliest_main_things(tag):
    assert tags(tag("--top", 1, "red.png")) == ["red"]


def test_thresholds_come_from_a_file(tag, photos):
    (photos / "by-tag.jsonl").write_text('{"tag": "colour", "threshold": 0.99}\n')
    assert tags(tag("--threshold", "by-tag.jsonl", "red.png")) == ["red"]
    (photos / "by-id.txt").write_text("1\n1\n1\n0\n")
    assert tags(tag("--threshold", "by-id.txt", "red.png")) == ["colour"]
    (photos / "short.txt").write_text("0.5\n")
    assert tag("--threshold", "short.txt", "red.png").returncode == 1


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


@pytest.mark.parametrize("name", ["threshold", "caption"])
def test_resume_refuses_a_bundle_whose_threshold_changed(name, tiny_bundle, ramctl, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "model")
    (tmp_path / "words.txt").write_text("wild horse\n")
    words = ["tag", "--model", bundle, "--labels", "+words.txt", "--caption", PHOTO]
    assert ramctl(*words, "-o", "out.jsonl").returncode == 0
    meta = json.loads((bundle / "bundle.json").read_text())
    meta["thresholds"][name] = -1.5 if name == "caption" else 0.4
    (bundle / "bundle.json").write_text(json.dumps(meta))
    done = ramctl(*words, "-o", "out.jsonl", "--resume")
    assert done.returncode == 2
    assert "was made with another model" in done.messages


def on_a_terminal(*words: object, folder: Path) -> str:
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


def test_on_a_terminal_tags_are_shown_for_people_and_in_pipes_as_records(colours, photos, tag):
    shown = on_a_terminal("tag", "--model", colours, "red.png", "blue.png", folder=photos)
    assert shown.split("ramctl tag: 2 in")[0] == (
        "red.png\n  1.00  red\n  0.95  colour\nblue.png\n  1.00  blue\n  0.95  colour\n"
    )
    words = ["tag", "-q", "--model", colours, "red.png"]
    assert on_a_terminal(*words, "-f", "text", folder=photos) == "red.png\tred, colour\n"
    assert on_a_terminal(*words, "-f", "jsonl", folder=photos).startswith('{"image":"red.png"')
    assert tag("red.png").stdout.startswith(b'{"image":"red.png"')
    assert tag("red.png", "-f", "table").stdout.startswith(b"red.png\n  1.00  red\n")
    assert "need -f" not in on_a_terminal(*words, "--boxes", folder=photos)
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
