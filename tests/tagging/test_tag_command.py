"""`ramctl tag` from the outside: inputs, outputs, choices, resume."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.command import Ramctl
from tests.support import gallery_photos
from tests.tagging.conftest import save_photo, tags


def names(done) -> list:
    return [row["image"] for row in done.rows]


def test_a_photo_gets_its_tags_with_scores_by_falling_score(tag):
    done = tag("red.png")
    (row,) = done.rows
    assert done.returncode == 0
    assert list(row) == ["image", "tags", "scores"]
    assert row["image"] == "red.png"
    assert row["tags"] == list(row["scores"]) == ["red", "colour"]
    assert row["scores"]["red"] == pytest.approx(1 / (1 + 2.718281828**-6), abs=1e-4)


def test_the_model_s_own_thresholds_decide_per_tag(tag):
    assert tags(tag("green.png")) == ["green", "colour"]
    dim = tag("--threshold", "0.999", "green.png")
    assert tags(dim) == []


def test_good_photos_are_tagged_and_bad_ones_named_with_their_reason(tag, photos):
    done = tag("red.png", "broken.jpg", "nowhere.jpg", "notes.txt", "--rejects", "rejects.jsonl")
    assert done.returncode == 3
    assert names(done) == ["red.png"]
    rejects = [json.loads(line) for line in (photos / "rejects.jsonl").open()]
    assert [(r["source"], r["line"], r["code"]) for r in rejects] == [
        ("broken.jpg", None, "unreadable_image"),
        ("nowhere.jpg", None, "missing_image"),
        ("notes.txt", None, "unreadable_image"),
    ]
    assert b"ramctl tag: nowhere.jpg: no such file\n" in done.stderr
    again = tag("rejects.jsonl")
    assert b"3 in, 0 out, 3 rejected" in again.stderr


def test_names_come_from_standard_input_line_by_line_or_by_nul(tag, photos):
    odd = "line\nbreak.png"
    save_photo(photos / odd, "red")
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


def test_patterns_that_no_shell_expanded_are_expanded(tag):
    assert names(tag("*e*.png")) == ["blue.png", "green.png", "red.png"]
    assert tag("*.none").returncode == 3


def test_members_of_archives_are_tagged(tag, photos):
    with tarfile.open(photos / "shard-0.tar", "w") as tar:
        for name in ("red.png", "notes.txt", "blue.png"):
            tar.add(photos / name, name)
    assert names(tag("shard-0.tar")) == ["shard-0.tar#red.png", "shard-0.tar#blue.png"]
    record = b'{"image": "shard-0.tar#blue.png"}\n'
    assert tags(tag("-", stdin=record)) == ["blue", "colour"]


def test_names_that_are_not_utf8_survive(tag, photos):
    name = b"caf\xe9.png"
    Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(
        (photos / "red.png").read_bytes()
    )
    (row,) = tag("-", stdin=name + b"\n").rows
    assert row["image"] == {"bytes": "Y2Fm6S5wbmc="}
    again = tag("-", stdin=json.dumps(row).encode() + b"\n")
    assert again.rows == [row]
    text = tag("-f", "text", "-", stdin=name + b"\n")
    assert text.stdout == name + b"\tred, colour\n"


def test_text_and_tables_have_one_line_a_photo(tag):
    assert tag("-f", "text", "red.png", "blue.png").stdout.decode().splitlines() == [
        "red.png\tred, colour",
        "blue.png\tblue, colour",
    ]
    for form, delimiter in (("csv", ","), ("tsv", "\t")):
        table = io.StringIO(tag("-f", form, "red.png").stdout.decode())
        (row,) = csv.DictReader(table, delimiter=delimiter)
        assert row["image"] == "red.png"
        assert row["tags"] == "red, colour"
        assert float(row["scores"].split(", ")[0]) > 0.99


def test_top_include_exclude_rename_and_language(tag, photos):
    (photos / "only.txt").write_text("# colours\nscarlet\nblue\nno such tag\n")
    (photos / "names.tsv").write_text("scarlet\tRot\n")
    assert tags(tag("--top", 1, "red.png")) == ["red"]
    only = tag("--include", "only.txt", "red.png")
    assert tags(only) == ["red"]
    assert b"no such tag" in only.stderr
    assert tags(tag("--exclude", "only.txt", "red.png")) == ["colour"]
    assert tags(tag("--rename", "names.tsv", "red.png")) == ["Rot", "colour"]
    assert tags(tag("--leaf", "red.png")) == ["red"]


@pytest.mark.parametrize("option", ["--specified-tags=dog", "--caption-length=20"])
def test_what_shapes_a_caption_needs_a_caption(tag, option):
    done = tag(option, "blue.png")
    assert done.returncode == 2
    assert f"{option.partition('=')[0]} needs --caption\n".encode() in done.stderr


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


def test_a_word_that_the_text_encoder_does_not_know_is_named(tag, photos):
    (photos / "words.txt").write_text("purple\nxyzzy\n")
    done = tag("--labels", "words.txt", "red.png")
    assert done.returncode == 1
    assert b"xyzzy" in done.stderr


def test_dense_gives_every_score_and_the_names_once(tag):
    first, second = tag("--dense", "red.png", "blue.png").rows
    assert first["label_names"] == ["red", "green", "blue", "colour"]
    assert "label_names" not in second
    assert len(second["dense"]) == 4
    assert second["labels"].startswith("sha256:")
    digits = [f"{score:.6g}" for score in first["dense"]]
    assert [float(d) for d in digits] == first["dense"]
    assert min(first["dense"]) > 0


def test_resume_tags_only_what_is_new_or_changed(tag, photos):
    arguments = ["-R", ".", "-o", "tags.jsonl", "--resume"]
    assert b"5 in, 4 out, 1 rejected" in tag(*arguments).stderr
    assert b": 0 in, 0 out, 0 rejected, 5 done before" in tag(*arguments).stderr
    save_photo(photos / "red.png", "blue", size=(64, 64))
    save_photo(photos / "zebra.png", "white")
    assert b"2 in, 2 out, 0 rejected, 4 done before" in tag(*arguments).stderr
    lines = [json.loads(line) for line in (photos / "tags.jsonl").open()]
    by_name = {row["image"]: row["tags"] for row in lines}
    assert len(lines) == len(by_name) == 5
    assert by_name["./red.png"] == ["blue", "colour"]


def test_resume_refuses_other_thresholds_in_the_same_file(tag):
    arguments = ["red.png", "-o", "tags.jsonl", "--resume"]
    tag(*arguments)
    done = tag(*arguments, "--threshold", "0.3")
    assert done.returncode == 1
    assert b"another thresholds" in done.stderr
    assert b"another sidecars" in tag(*arguments, "--xmp").stderr


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_a_photo_on_standard_input_is_refused_in_a_line_without_its_bytes(form, tag):
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(stream, form)
    done = tag("-", stdin=stream.getvalue())
    message = "ramctl tag: standard input is a photo; - reads names of photos, and records"
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"{message}\n"


def test_a_hundred_missing_names_ask_for_the_root(tag, photos):
    lines = b"".join(b'{"image": "elsewhere/%d.jpg"}\n' % n for n in range(120))
    done = tag("-", stdin=lines)
    assert done.returncode == 1
    assert b"--root" in done.stderr


def test_output_does_not_depend_on_workers_or_neighbours(tag, photos):
    for number in range(11):
        Image.effect_noise((50, 40), 10 * number).save(photos / f"noise{number}.png")
    one = tag("-R", ".", "-j", 1).stdout
    assert tag("-R", ".", "-j", 3).stdout == one
    alone = b"".join(tag(name).stdout for name in ("./noise3.png", "./noise7.png"))
    assert set(alone.splitlines()) <= set(one.splitlines())


def test_xmp_sidecars_are_merged_and_removed(tag, photos):
    assert tag("--xmp", "red.png", "blue.png").returncode == 0
    assert "auto|red" in (photos / "red.png.xmp").read_text()
    before = (photos / "red.png.xmp").stat().st_mtime_ns
    tag("--xmp", "red.png")
    assert (photos / "red.png.xmp").stat().st_mtime_ns == before
    removed = tag("--xmp-remove", "red.png", "blue.png", "green.png")
    assert removed.returncode == 0
    assert names(removed) == ["red.png", "blue.png", "green.png"]
    assert not list(photos.glob("*.xmp"))


def test_a_dry_run_gives_its_changes_and_their_number_and_no_records(tag, photos):
    (photos / "blue.png.xmp").write_text("no sidecar")
    before = sorted(photos.iterdir())
    files = ["-o", "out.jsonl", "--rejects", "no.jsonl", "--gallery", "page.html", "--resume"]
    done = tag("--xmp", "--dry-run", "red.png", "green.png", "blue.png", *files)
    assert (done.returncode, done.stdout) == (3, b"")
    assert sorted(photos.iterdir()) == before
    *changes, rejected, _, last = done.stderr.decode().splitlines()
    assert [line.split(":")[1].strip() for line in changes] == [
        "would write red.png.xmp", "would write green.png.xmp",
    ]  # fmt: skip
    assert "blue.png" in rejected
    assert last == "ramctl tag: a dry run: 2 sidecars would change, none has"
    without = tag("--dry-run", "red.png")
    assert without.returncode == 2 and b"it needs --xmp, --txt or --xmp-remove" in without.stderr


def test_a_folder_without_photos_is_told_and_one_that_is_not_there_is_wrong_usage(tag, photos):
    (photos / "empty").mkdir()
    done = tag("-R", "empty", "--progress")
    assert done.returncode == 0
    assert done.stderr.decode().count("ramctl tag: empty: no photos in it\n") == 1
    missing = tag("-R", "nowhere", "red.png")
    assert (missing.returncode, missing.stdout) == (2, b"")
    assert missing.stderr == b"ramctl tag: nowhere: no such file\n"


def test_a_long_label_is_not_printed_whole(tag, photos):
    long = "very long word " * 7000
    (photos / "renames.tsv").write_text(f"{long}\tshort\nred\tshort\n")
    done = tag("red.png", "--rename", "renames.tsv")
    assert done.returncode == 0
    assert "1 tags that you named are not in the label system: very long word" in (
        said := done.stderr.decode()
    )
    assert max(map(len, said.splitlines())) < 1100
    refused = tag("red.png", "--threshold", long)  # said by another place
    assert refused.returncode == 1 and len(refused.stderr) < 1100


def test_a_dry_run_shows_additions_and_removals(tag, photos):
    tag("--xmp", "--txt", "red.png")
    (photos / "red.txt").write_text("my wall, red\n")
    only = ["--top", "1", "--rename", "names.tsv"]
    (photos / "names.tsv").write_text("red\tscarlet\n")
    dry = tag("--xmp", "--txt", "--dry-run", *only, "red.png").stderr.decode()
    line = "+ scarlet, + auto|scarlet, - red, - colour, - auto|red, - auto|colour"
    assert f"would write red.png.xmp: {line}\n" in dry
    assert "would write red.txt: + scarlet\n" in dry
    dry = tag("--xmp-remove", "--dry-run", "red.png").stderr.decode()
    assert "would delete red.png.xmp: - red, - colour, - auto|red, - auto|colour\n" in dry
    assert (photos / "red.png.xmp").exists()


def test_photos_of_one_name_do_not_share_a_text_in_silence(tag, photos):
    shutil.copy(photos / "blue.png", photos / "red.webp")
    done = tag("--txt", "red.png", "red.webp", "blue.png")
    assert done.returncode == 3
    assert b"red.txt would be the sidecar of red.webp as well" in done.stderr
    assert not (photos / "red.txt").exists()
    assert (photos / "blue.txt").exists()


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_the_readmes_exiftool_line_adds_and_may_run_twice(tag, photos):
    readme = (Path(__file__).parents[2] / "ramctl" / "tagging" / "README.md").read_text("utf-8")
    text = readme.split("```sh\nexiftool")[1].split("```")[0].replace("\\\n", " ")
    line = ["exiftool", *shlex.split(text)]
    (photos / "photos").mkdir()
    photo = photos / "photos" / "red.jpg"
    Image.open(photos / "red.png").save(photo)
    own = ["-IPTC:Keywords=Anna", "-XMP-dc:Subject=Paris, France", "-XMP-dc:Subject=red"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *own, photo], check=True)
    assert tag("-f", "exiftool-csv", "photos/red.jpg", "-o", "tags.csv").returncode == 0
    for _ in range(2):
        subprocess.run(line, check=True, capture_output=True, cwd=photos)
        done = subprocess.run(["exiftool", "-j", "-G1", photo], check=True, capture_output=True)
        (facts,) = json.loads(done.stdout)
        assert facts["XMP-dc:Subject"] == ["Paris, France", "red", "colour"]
        paths = ["Paris, France", "red", "Anna", "auto|red", "auto|colour"]
        assert facts["XMP-lr:HierarchicalSubject"] == paths
        assert facts["IPTC:Keywords"] == "Anna"


def test_a_sidecar_that_cannot_be_written_rejects_its_photo_only(tag, photos):
    (photos / "red.png.xmp").mkdir()
    done = tag("--xmp", "--xmp-name", "stem", "red.png", "blue.png", "--rejects", "-")
    assert done.returncode == 3
    assert names(done) == ["blue.png"]
    assert b'"write_failed"' in done.stderr
    assert (photos / "blue.xmp").exists()


def test_forms_of_other_programs_have_their_exact_names(tag):
    fiftyone = json.loads(tag("-f", "fiftyone", "red.png").stdout)
    assert fiftyone["classes"] == ["red", "green", "blue", "colour"]
    first, second = json.loads(tag("-f", "label-studio", "red.png", "blue.png").stdout)
    assert first["data"] == {"image": "red.png"}
    (prediction,) = second["predictions"]
    assert set(prediction) == {"model_version", "score", "result"}
    assert prediction["result"][0]["value"] == {"choices": ["blue", "colour"]}
    assert json.loads(tag("-f", "label-studio", "-", stdin=b"").stdout) == []
    table = io.StringIO(tag("-f", "exiftool-csv", "red.png").stdout.decode())
    assert list(csv.DictReader(table)) == [
        {
            "SourceFile": "red.png",
            "Subject": "red;colour",
            "HierarchicalSubject": "auto|red;auto|colour",
        }
    ]


def test_a_resumed_run_adds_to_the_gallery(tag, photos):
    arguments = ["--gallery", "page.html", "-o", "tags.jsonl", "--resume"]
    tag(*arguments, "red.png", "blue.png")
    save_photo(photos / "red.png", "blue", size=(64, 64))
    tag(*arguments, "red.png", "blue.png", "green.png")
    shown = gallery_photos(photos / "page.html")
    assert [photo["image"] for photo in shown] == ["blue.png", "red.png", "green.png"]
    assert "red" not in shown[1]["tags"]
    assert (photos / "page.html").read_text().count("</main>") == 1


def test_of_many_links_the_good_ones_are_tagged_and_the_broken_ones_rejected(tag, photos):
    (photos / "links").mkdir()
    for number in range(200):
        target = "broken.jpg" if number % 100 == 37 else ("red.png", "blue.png")[number % 2]
        (photos / "links" / f"{number:03}.jpg").symlink_to(photos / target)
    done = tag("-R", "links", "--rejects", "rejects.jsonl")
    assert done.returncode == 3
    assert len(done.rows) == 198
    assert len((photos / "rejects.jsonl").read_text().splitlines()) == 2


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
    assert on_a_terminal(*words, "-o", "tags.jsonl", folder=photos) == ""
    assert (photos / "tags.jsonl").read_bytes().startswith(b'{"image":"red.png"')


def test_a_table_shows_captions_and_what_has_no_score_and_escapes_what_controls(tag, photos):
    row = {"image": "a\u001b[2J.jpg", "tags": ["sky", "sea"], "scores": {"sea": 0.5}}
    row["generated_captions"] = ["the sea"]
    lines = [json.dumps(row), json.dumps({"image": "b.jpg", "tags": []})]
    (photos / "in.jsonl").write_text("\n".join(lines))
    done = tag("--from-tags", "in.jsonl", "-f", "table")
    assert done.stdout.decode() == (
        "a\\x1b[2J.jpg\n  the sea\n        sky\n  0.50  sea\nb.jpg\n  no tags\n"
    )


def test_progress_is_shown_with_a_total_beside_a_file_not_between_records(colours, photos):
    (photos / "many").mkdir()
    for number in range(400):
        (photos / "many" / f"{number:03}.png").symlink_to(photos / "red.png")
    words = ["tag", "--model", colours, "-R", "many", "-b1"]
    shown = on_a_terminal(*words, "-o", "tags.jsonl", folder=photos)
    assert re.search(r"\d+/400 \[00:0\d<00:0\d, ", shown)
    assert "/400" not in on_a_terminal(*words, folder=photos)
