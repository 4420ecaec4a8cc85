"""Texts for trainers over several runs: ramctl's words are replaced, a person's stay."""

import json
from pathlib import Path

import pytest
from PIL import Image

from ramctl.export.sidecars import TEXT_RECORD
from tests.support import write_records

TAGS = ["woman", "red dress", "smile", "field"]


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with TAGS, and returns its text."""
    Image.new("RGB", (8, 8)).save("a.jpg")

    def run(*options: str, tags=TAGS, **fields) -> str | None:
        write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": tags} | fields])
        command("export", "in.jsonl", "--txt", *options)
        return text()

    return run


def text(name="a.txt") -> str | None:
    return Path(name).read_text().rstrip("\n") if Path(name).exists() else None


def test_a_photo_without_caption_gets_trigger_and_tags(export):
    assert export("--txt-caption", "--txt-trigger", "sks", tags=["woman"]) == "sks, woman"


def test_empty_tags_are_not_written(export):
    assert [export(tags=["", "woman", " "]) for _ in range(2)] == ["woman", "woman"]


def test_trigger_and_tags_of_an_earlier_run_are_replaced_and_a_person_s_words_stay(export):
    assert export("--txt-trigger", "sks") == "sks, woman, red dress, smile, field"
    Path("a.txt").write_text("sks, woman, my bike, red dress, smile, field\n")
    assert export("--txt-trigger", "ohwx", "--top", "2") == "ohwx, woman, my bike, red dress"
    assert export() == "woman, my bike, red dress, smile, field"
    assert export(tags=["Smile"]) == "my bike, smile"


def test_a_word_that_a_person_wrote_first_stays_when_the_model_drops_it(export):
    Path("a.txt").write_text("smile,my bike\n")
    assert export() == "smile,my bike, woman, red dress, field"
    assert export(tags=["field"]) == "smile,my bike, field"
    Path("a.txt").write_text("my bike, field\n")
    assert export() == "my bike, field, woman, red dress, smile"  # it was dropped, then deleted


@pytest.mark.parametrize("source", ["captions", "generated_captions"])
def test_a_caption_is_replaced_moved_and_removed(export, source):
    first, second = {source: ["a woman, in a field"]}, {source: ["she sits"]}
    assert export("--txt-caption", tags=["woman"], **first) == "a woman, in a field, woman"
    Path("a.txt").write_text("my bike, a woman, in a field, woman\n")
    line = export("--txt-caption-last", tags=["woman"], **first)
    assert line == "my bike, woman, a woman, in a field"
    assert export("--txt-caption", tags=["woman"], **second) == "my bike, she sits, woman"
    assert export(tags=["woman"], **second) == "my bike, woman"
    assert export("--txt-caption", tags=["woman"], **second) == "my bike, she sits, woman"


def test_a_caption_that_a_person_changed_or_wrote_is_hers(export):
    caption = {"captions": ["she sits"]}
    export("--txt-caption", tags=["woman"], **caption)
    Path("a.txt").write_text("she sits there, woman\n")
    for _ in range(2):
        assert export("--txt-caption", tags=["smile"], **caption) == "she sits there, smile"
    line = export("--txt-caption", "--forget-refused", tags=["woman"], captions=["so she sits"])
    assert line == "she sits there, so she sits, woman"
    Path(TEXT_RECORD).unlink()
    Path("a.txt").write_text("so she sits\n")
    assert export("--txt-caption", tags=["woman"], captions=["so she sits"]) == "so she sits, woman"
    assert export(tags=["woman"]) == "so she sits, woman"


def test_replacing_keeps_a_copy_of_what_a_person_wrote(export):
    Path("a.txt").write_text("a photo,\nof my bike")
    assert export("--txt-existing", "replace", tags=["woman"]) == "woman"
    assert Path("a.txt.bak").read_text() == "a photo,\nof my bike\n"
    assert export("--txt-existing", "replace", tags=["smile"]) == "smile"
    Path("a.txt").write_text("smile, mine\n")
    assert export("--txt-existing", "replace", tags=["woman"]) == "woman"
    assert text("a.txt.bak") == "a photo,\nof my bike\nmine"


def test_ramctl_s_words_are_removed(export, command):
    Path("a.txt").write_text("my bike,  old\n")
    export("--txt-trigger", "sks", "--txt-caption", captions=["she sits"])
    command("export", "--txt-remove", "--dry-run", "a.jpg")
    assert "woman" in text()
    for _ in range(2):
        command("export", "--txt-remove", "a.jpg")
        assert Path("a.txt").read_text() == "my bike,  old\n"
    Path("a.txt").unlink()
    export()
    command("export", "--txt-remove", "-R", ".")
    assert text() is None


def test_what_a_person_refused_stays_refused_after_removal(export, command):
    export()
    Path("a.txt").write_text("woman, field\n")
    command("export", "--txt-remove", "a.jpg")
    assert text() is None
    assert export() == "woman, field"


def test_words_in_a_record_of_an_older_version_stay(export, command):
    row = {"text": "a.txt", "given": ["woman", "smile"], "refused": []}
    Path(TEXT_RECORD).write_text(json.dumps(row) + "\n")
    Path("a.txt").write_text("smile, woman\n")
    command("export", "--txt-remove", "a.jpg")
    assert text() == "smile, woman"
    assert export(tags=["field"]) == "smile, woman, field"


def test_tags_are_excluded_by_a_list_or_a_file(export, command):
    assert export("--exclude", "woman, smile") == "red dress, field"
    Path("list").write_text("woman\n")
    assert export("--exclude", "list") == "red dress, field, smile"
    assert export("--include", "woman") == "woman"
    done = command("export", "in.jsonl", "-f", "jsonl", "--exclude", "gone.txt", code=2)
    assert "gone.txt: no such file" in done.messages


def test_counts_of_words_in_all_texts(export, command):
    rows = [{"image": f"{n}.jpg", "tags": ["woman", "sky"][: n + 1]} for n in range(2)]
    for row in rows:
        Image.new("RGB", (8, 8)).save(row["image"])
    write_records(Path("set.jsonl"), [row | {"captions": ["she"]} for row in rows])
    Path("0.txt").write_text("mine\n")
    words = ("--txt", "--txt-counts", "--dry-run", "--txt-trigger", "sks", "--txt-caption")
    assert command("export", "set.jsonl", *words).stdout.decode().splitlines() == [
        "2 texts",
        "     2   100 %  woman  over 80 %",
        "     1    50 %  mine",
        "     1    50 %  sky",
    ]
    assert not Path("1.txt").exists()
    for wrong in (["--xmp", "--txt-counts"], ["--txt", "--txt-counts", "-f", "jsonl"]):
        assert "--txt-counts" in command("export", "set.jsonl", *wrong, code=2).messages


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["--xmp", "--txt-trigger", "sks"], "--txt-trigger needs --txt"),
        (["-f", "text", "--txt-caption-last"], "--txt-caption-last needs --txt"),
        (["--txt", "--xmp-name", "stem"], "--xmp-name needs --xmp"),
    ],
)
def test_what_has_no_effect_without_another_option_is_refused(words, needs, ramctl, tmp_path):
    assert ramctl("export", *words, stdin=b"").messages == f"ramctl export: {needs}\n"
    (tmp_path / "ramctl.toml").write_text("[export]\ntxt-trigger = 'sks'\nxmp-name = 'stem'\n")
    assert ramctl("export", "-f", "text", stdin=b"").returncode == 0
