"""Texts for trainers: what is added to one that exists, and what stays."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support import write_records

TAGS = ["woman", "red dress", "smile"]


@pytest.fixture
def export(command):
    """Runs `ramctl export` for a photo with TAGS, and returns its text."""
    Image.new("RGB", (8, 8)).save("a.jpg")

    def run(*options: str, tags=TAGS, **fields) -> str:
        write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": tags} | fields])
        command("export", "in.jsonl", "--txt", *options)
        return Path("a.txt").read_text().rstrip("\n")

    return run


def test_trigger_and_caption_come_before_the_tags_and_nothing_empty(export):
    words = ["--txt-trigger", "sks", "--txt-caption"]
    assert export(*words, tags=["", "woman", "salt, pepper"]) == "sks, woman, salt\\, pepper"
    replaced = [*words, "--txt-existing", "replace"]
    captions = {"captions": ["she  sits"], "generated_captions": ["a woman, in a field"]}
    assert export(*replaced, tags=["woman"], **captions) == "sks, a woman, in a field, woman"
    assert export(*replaced, tags=[], captions=["she  sits"]) == "sks, she sits"


def test_a_text_gets_what_it_lacks_and_the_same_run_adds_nothing(export):
    Path("a.txt").write_text("smile,my bike\n")
    words = ["--txt-trigger", "sks", "--txt-caption"]
    for _ in range(2):
        line = export(*words, tags=["Smile", "field"], captions=["she sits"])
        assert line == "sks, she sits, smile,my bike, field"
    assert export("--txt-existing", "keep", tags=["cat"]) == line
    assert export("--txt-existing", "replace", tags=["cat"]) == "cat"
    Path("a.txt").write_text("my sks, sks\n")
    assert export("--txt-trigger", "sks", tags=["cat"]) == "my sks, sks, cat"


def test_tags_are_excluded_by_a_list_or_a_file(export, command):
    replaced = ["--txt-existing", "replace"]
    assert export(*replaced, "--exclude", "woman, smile") == "red dress"
    Path("list").write_text("woman\n")
    assert export(*replaced, "--exclude", "list") == "red dress, smile"
    assert export(*replaced, "--include", "woman") == "woman"
    done = command("export", "in.jsonl", "-f", "jsonl", "--exclude", "gone.txt", code=2)
    assert "gone.txt: no such file" in done.messages
