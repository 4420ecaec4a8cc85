"""Galleries, sidecars, tables and messages of runs that go wrong."""

import json
import re
import signal

import pytest

from ramctl.export.sidecar_merge import merge_tags
from tests.support import remove_tags, wait_for

CONTROL = "bell\x07 and\x00null"


def test_a_control_character_in_a_label_does_not_break_a_sidecar():
    new = merge_tags(None, [CONTROL, "a\r\nb", "\ufffe", "\ud800"], "auto")
    assert b"bell  and null" in new
    again = merge_tags(new, [CONTROL, "a\r\nb", "\ufffe", "\ud800"], "auto")
    assert again is None  # nothing to change: what was written is what is read
    assert remove_tags(new) is not None


def test_what_could_not_be_read_again_is_not_written(monkeypatch):
    from ramctl.export import xmp_document

    monkeypatch.setattr(xmp_document, "_NO_XML", re.compile("(?!)"))
    with pytest.raises(ValueError, match="not well-formed"):
        merge_tags(None, [CONTROL], "auto")


@pytest.mark.parametrize(
    "words",
    [
        ["parse", "in", "-o", "x", "--rejects", "./x"],
        ["parse", "in", "--rejects", "x", "--stats", "x"],
        ["parse", "in", "--build-labels", "x", "--review", "x"],
        ["generate", "in", "-o", "x", "--rejects", "x"],
        ["tag", "in.jpg", "-o", "x", "--rejects", "x"],
        ["export", "in", "-f", "csv", "-o", "x", "--gallery", "x"],
        ["eval", "in", "--truth", "in", "-o", "x", "--calibrate", "x"],
    ],
    ids=lambda words: " ".join(words),
)
def test_two_outputs_in_one_file_are_wrong_usage(words, tmp_path, ramctl):
    (tmp_path / "in").write_text('{"captions":["a horse"],"image":"a.jpg","tags":[]}\n')
    done = ramctl(*words)
    assert (done.returncode, "are the same file" in done.messages) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "name",
    [
        "x.part",
        ".x.state.jsonl",
        "x.state.jsonl",
        "./x.part.lock",
        "x.part.kept",
        ".x.state.jsonl.kept",
        "x.work/a",
    ],
)
@pytest.mark.parametrize("option", ["--rejects", "--stats"])
def test_what_stands_beside_an_output_is_no_other_output(option, name, tmp_path, ramctl):
    (tmp_path / "in").write_text('{"captions":["a horse"]}\n')
    done = ramctl("parse", "in", "-o", "x", option, name)
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert f"{option}: -o x uses that name for a temporary file" in done.messages
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert ramctl("parse", "in", "-o", "x", option, "y.part").returncode == 0


def test_the_part_of_an_output_is_no_input(tmp_path, ramctl):
    (tmp_path / "x.part").write_text('{"captions":["a horse"]}\n')
    done = ramctl("parse", "x.part", "-o", "x")
    assert done.returncode == 2 and "would overwrite a file that this run reads" in done.messages


@pytest.mark.parametrize(
    ("output", "stats"),
    [
        ("{here}/o.jsonl", "o.jsonl"), ("o.jsonl", "{here}/o.jsonl"), ("linked/o.jsonl", "o.jsonl"),
        ("{here}/linked/o.jsonl", "there/../o.jsonl"), ("link.jsonl", "o.jsonl"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_there", [False, True])
def test_one_file_by_two_names_is_wrong_usage(is_there, output, stats, tmp_path, ramctl):
    (tmp_path / "in").write_text('{"image":"a.jpg","tags":["sky"]}\n')
    (tmp_path / "there").mkdir()
    (tmp_path / "linked").symlink_to(".")
    (tmp_path / "link.jsonl").symlink_to("o.jsonl")
    words = ["export", "-q", "-f", "jsonl", "in"]
    if is_there:
        assert ramctl(*words, "-o", "o.jsonl").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    names = [name.format(here=tmp_path) for name in (output, stats)]
    done = ramctl(*words, "-o", names[0], "--stats", names[1])
    assert (done.returncode, "are the same file" in done.messages) == (2, True), done.messages
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_two_outputs_may_go_to_one_device(ramctl):
    words = ["parse", "-o", "/dev/null", "--rejects", "/dev/null"]
    assert ramctl(*words, stdin=b'{"captions":["a horse"]}\n').returncode == 0


def test_the_workers_of_a_killed_run_end_without_a_word(tmp_path, ramctl):
    lines = json.dumps({"captions": ["a horse in a field near a house by the river"] * 50}) + "\n"
    (tmp_path / "in.jsonl").write_text(lines * 400)
    run = ramctl.start("parse", "in.jsonl", "-o", "out", "-j2", "-b2")
    state = tmp_path / ".out.state.jsonl"
    wait_for(lambda: state.exists() and state.stat().st_size > 300)
    run.send_signal(signal.SIGKILL)
    assert run.stderr.read() == b""  # its end comes when the last worker has gone
