"""What ramctl replaces and removes is its own: somebody's folders and files stay, whoever asks."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import DATA

RECORD = '{"image": "photos/steps.jpg", "captions": ["a boy on steps"], "tags": ["boy"]}\n'
REJECT = '{"source": "-", "line": 1, "stage": "parse", "code": "bad_json", "message": "m"}\n'

# `photos` is a folder of somebody's, `notes.txt` a file, `mine.jsonl` records that nobody has a
# state of; those with a suffix after them are what ramctl would use on its way to `new`.
FOLDERS = {
    "a graph": "convert {model} --to onnx --out photos",
    "an int8 graph": "convert {model} --to onnx --dtype int8 --calibrate photos --out photos",
    "a checkpoint": "convert notes.txt --arch ram --tags notes.txt --out photos",
    "training": "train in.jsonl --preset tiny --steps 1 --out photos",
    "training, looked at only": "train in.jsonl --preset tiny --steps 1 --out photos --dry-run",
    "training over a file": "train in.jsonl --preset tiny --steps 1 --out notes.txt",
    "fine-tuning": "finetune in.jsonl --model {model} --steps 1 --out photos",
    "a run's folder": "train in.jsonl --preset tiny --steps 1 --out taken",
    "a run's folder, again": "train in.jsonl --preset tiny --steps 1 --out taken --restart",
    "a run's folder, resumed": "train in.jsonl --preset tiny --steps 1 --out taken --resume",
}
OUTPUTS = {
    "caption": "caption in.jsonl --model m",
    "parse": "parse in.jsonl",
    "generate": "generate in.jsonl --model {model}",
    "clean": "clean in.jsonl --model {model}",
    "tag": "tag in.jsonl --model {model}",
    "tables": "tag in.jsonl --model {model} -f csv",
}
PAGES = {
    "a gallery": "export in.jsonl --gallery notes.txt",
}
READ_AND_WRITTEN = {
    "parse": "parse in.jsonl -o in.jsonl",
    "generate": "generate old.jsonl --model {model} -o old.jsonl",
    "through a link": "parse in.jsonl -o link.jsonl",
    "rejects": "parse rejects.jsonl --rejects rejects.jsonl",
    "figures": "eval old.jsonl --truth in.jsonl -o in.jsonl",
    "thresholds": "eval old.jsonl --truth in.jsonl --calibrate old.jsonl",
    "a label system": "parse in.jsonl --build-labels in.jsonl",
    "a photo": "tag photos/cat.jpg --model {model} --stats photos/cat.jpg",
}


@pytest.fixture
def somebody(tmp_path, monkeypatch, tiny_bundle) -> Path:
    """A folder with what somebody keeps there, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("photos", "taken.work", "old-epoch-1"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "letter.txt").write_text("dear")
        shutil.copy(DATA / "photos" / "steps.jpg", tmp_path / name / "cat.jpg")
        (tmp_path / name / "step-1-1.pt").write_text("mine")
        (tmp_path / name / "download.part").write_text("half")
        (tmp_path / name / "labels.jsonl").write_text("mine\n")
    for name in ("notes.txt", "notes.html"):
        (tmp_path / name).write_text("buy milk\n")
    for name in (
        "in.jsonl",
        "mine.jsonl",
        "old.jsonl",
        "half.jsonl.part",
        ".odd.jsonl.state.jsonl",
    ):
        (tmp_path / name).write_text(RECORD + RECORD)
    (tmp_path / "rejects.jsonl").write_text(REJECT)
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    state = {"format": 1, "command": "generate", "fingerprint": {}}
    (tmp_path / ".old.jsonl.state.jsonl").write_text(json.dumps(state) + "\n")
    return tmp_path


def refuses(somebody: Path, model: Path, line: str, ramctl) -> str:
    """Run a command that must end with 2 and leave everything as it is; its message."""
    before = contents(somebody)
    done = ramctl(*line.format(model=model).split())
    assert (done.returncode, done.messages.count("\n")) == (2, 1), done.messages
    assert contents(somebody) == before
    return done.messages


def contents(folder: Path) -> dict[str, tuple]:
    """Names, contents and times of all that is in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        is_file = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = (
            path.read_bytes() if is_file else facts.st_mode,
            facts.st_mtime_ns if is_file else 0,
        )
    return found


@pytest.mark.parametrize("line", [*FOLDERS.values(), *PAGES.values()], ids=[*FOLDERS, *PAGES])
def test_a_folder_of_somebodys_is_refused_before_any_work(line, somebody, tiny_bundle, ramctl):
    refuses(somebody, tiny_bundle, line, ramctl)


@pytest.mark.parametrize("line", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("name", ["mine.jsonl", "half.jsonl", "odd.jsonl", "photos/cat.jpg"])
def test_an_output_without_a_state_is_refused(name, line, somebody, tiny_bundle, ramctl):
    assert "state.jsonl" in refuses(somebody, tiny_bundle, f"{line} -o {name}", ramctl)


@pytest.mark.parametrize("line", [*OUTPUTS.values(), "train in.jsonl --steps 1 --preset tiny"])
def test_a_file_that_holds_no_rejects_is_refused(line, somebody, tiny_bundle, ramctl):
    refuses(somebody, tiny_bundle, f"{line} --rejects notes.txt", ramctl)


@pytest.mark.parametrize("line", READ_AND_WRITTEN.values(), ids=READ_AND_WRITTEN)
def test_what_a_run_reads_it_does_not_replace(line, somebody, tiny_bundle, ramctl):
    assert "this run reads that file" in refuses(somebody, tiny_bundle, line, ramctl)


def test_files_in_a_bundles_folder_move_to_its_successor(somebody, tiny_bundle):
    from ramctl.checkpoints.bundle import Bundle
    from ramctl.conversion import add_graph

    shutil.copytree(tiny_bundle, somebody / "model")
    (somebody / "model" / "runs").mkdir()
    (somebody / "model" / "runs" / "notes.txt").write_text("seed 3 was better")
    (somebody / "model" / "latest").symlink_to("runs")
    (somebody / "current").symlink_to("model")
    bundle = add_graph(Bundle.open(Path("current")), Path("current"))
    assert (somebody / "model" / "runs" / "notes.txt").read_text() == "seed 3 was better"
    assert (somebody / "model" / "latest").readlink() == Path("runs")
    assert (somebody / "current").readlink() == Path("model")
    assert bundle.has("model.onnx") and not bundle.has("runs/notes.txt")
    hidden = {path.name for path in somebody.iterdir() if path.name.startswith(".")}
    assert hidden == {".old.jsonl.state.jsonl", ".odd.jsonl.state.jsonl"}


@pytest.mark.parametrize("name", ["model.int8.onnx", "README.md"])
def test_what_a_bundle_would_hide_is_refused(name, somebody, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, somebody / "model")
    (somebody / "model" / name).write_text("my own")
    refuses(somebody, tiny_bundle, "convert {model} --to onnx --out model", ramctl)


def test_files_in_a_runs_folder_stay_when_it_is_removed(somebody, ramctl):
    line = "train in.jsonl --preset tiny --out model --steps"
    ramctl(*line.split(), 400, "--max-time", 0.001)
    work = somebody / "model.work"
    (work / "checkpoints").mkdir(exist_ok=True)
    for name in ("notes.txt", "checkpoints/why.txt"):
        (work / name).write_text("stopped at noon")
    done = ramctl(*line.split(), 1, "--restart", "-q")
    left = sorted(str(path.relative_to(work)) for path in work.rglob("*"))
    assert left == ["checkpoints", "checkpoints/why.txt", "notes.txt"], done.messages
