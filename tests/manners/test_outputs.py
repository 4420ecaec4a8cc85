"""Where a command writes: as the shell's `>`, but whole, and never over what the run reads."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.support import DATA

RECORD = {"image": "photos/steps.jpg", "captions": ["a boy on steps"], "tags": ["boy"]}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with records, a photo and somebody's notes, as the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    shutil.copy(DATA / "photos" / "steps.jpg", "photos")
    Path("in.jsonl").write_text(json.dumps(RECORD) + "\n")
    Path("link.jsonl").symlink_to("in.jsonl")
    Path("notes").mkdir()
    Path("notes/today.txt").write_text("buy milk\n")
    return tmp_path


@pytest.mark.parametrize("target", ["notes/today.txt", "new.jsonl"])
def test_a_file_is_replaced_and_a_link_is_followed(target, here, ramctl):
    Path("link").symlink_to(target)
    for more in ([], ["--resume"]):
        assert ramctl("parse", "-q", "in.jsonl", "-o", "link", *more).returncode == 0
        assert Path("link").is_symlink()
        assert json.loads(Path(target).read_bytes())["tags"] == ["boy", "step"]


def test_a_pipe_is_written_as_it_comes(here, ramctl):
    os.mkfifo("pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_bytes()))
    reader.start()
    assert ramctl("parse", "-q", "in.jsonl", "-o", "pipe").returncode == 0
    reader.join()
    assert json.loads(read[0])["tags"] == ["boy", "step"] and Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("parse in.jsonl -o notes", "-o notes is a folder"),
        ("parse in.jsonl -o out.jsonl.gz", "-o out.jsonl.gz: not compressed here"),
        ("eval in.jsonl --truth in.jsonl -o out.json.gz", "| gzip > out.json.gz"),
        ("parse in.jsonl -o in.jsonl", "this run reads that file"),
        ("parse in.jsonl -o link.jsonl", "this run reads that file"),
        ("parse in.jsonl --build-labels in.jsonl", "this run reads that file"),
        ("parse in.jsonl --stats in.jsonl", "this run reads that file"),
        ("export in.jsonl -f jsonl --include lines.txt", "--include"),
        ("import photos/steps.jpg --resume", "--resume needs -o FILE"),
        ("train in.jsonl --preset tiny --epochs 1 --out notes", "is no bundle"),
        ("finetune in.jsonl --model {model} --epochs 1 --out notes/today.txt", "is a file"),
        ("convert {model} --to onnx --out notes", "is no bundle"),
        ("convert {model} --to onnx --out mine", "notes.txt: is not part of the bundle"),
    ],
)
def test_what_is_refused_before_any_work(line, said, here, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, "mine")
    Path("lines.txt").write_text("\n# none\n")
    Path("mine/notes.txt").write_text("seed 3 was better")
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    done = ramctl(*line.format(model=tiny_bundle).split())
    assert (done.returncode, done.messages.count("\n")) == (2, 1), done.messages
    assert said in done.messages
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before


@pytest.mark.parametrize(
    "words",
    ["tag none.tar", "tag -R none", "import folder", "caption --model x folder",
     "parse none.jsonl", "clean folder"],
)  # fmt: skip
def test_a_mistyped_input_leaves_what_earlier_runs_wrote(words, here, ramctl):
    assert ramctl("import", "photos/steps.jpg", "-o", "o.jsonl").returncode == 0
    Path("o.jsonl").rename("o.jsonl.part")  # as a killed run leaves it
    Path("folder").mkdir()
    before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
    done = ramctl(*words.split(), "-o", "o.jsonl")
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before
