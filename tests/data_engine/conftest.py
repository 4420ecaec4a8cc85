"""A tiny model with random weights, and records of the photos in tests/data."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.bundle import BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.cli import main
from ramctl.labels import Label, LabelSystem
from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
from ramctl.model.config import load_preset
from ramctl.model.ram import RAM

DATA = Path(__file__).resolve().parents[1] / "data"
LABELS = [
    Label("horse", synonyms=("pony",)),
    Label("field", "scene"),
    Label("sky"),
    Label("train"),
    Label("man"),
    Label("red", "attribute"),
    Label("stand", "action"),
    Label("mountain"),
]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfdbinary):
    """Runs a command in this process below `tmp_path`, checking its exit code."""

    def run(*arguments, stdin: bytes = b"", code: int = 0) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        assert ended.value.code == code, err.decode()
        return Done(code, out, err)

    return run


def lines(rows) -> bytes:
    """Records as JSONL."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(output: bytes) -> list[dict]:
    """The records of JSONL."""
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def engine_bundle(tmp_path_factory) -> Path:
    """A bundle of the preset `tiny`, random weights, thresholds in the middle of its scores."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    preset = load_preset("tiny")
    texts = [" ".join(json.loads(line)["captions"]) for line in (DATA / "captions.jsonl").open()]
    words = train_tokenizer(texts + [label.tag for label in LABELS], 200)
    tokenizer = CaptionTokenizer(words, preset.model.captioning)
    model = RAM(preset.model, image_size=64, n_labels=len(LABELS), vocabulary=len(tokenizer))
    model.labels.set_text(torch.nn.functional.normalize(torch.randn(len(LABELS), 32), dim=-1))
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model, tokenizer)
        writer.meta["thresholds"] = {"threshold": 0.5, "open_set_threshold": 0.5}
        LabelSystem(LABELS).write(writer.path / "labels.jsonl")
    return path


@pytest.fixture
def photo_records() -> list[dict]:
    """A record for each photo, with tags, kinds, sources and a field of someone else's."""
    rows = []
    for number, path in enumerate(sorted((DATA / "photos").glob("*.jpg"))):
        tags = ["horse", "field", "sky", "red"]
        rows.append(
            {
                "id": number,
                "image": str(path),
                "tags": tags,
                "kinds": {"horse": "object", "field": "scene", "sky": "object", "red": "attribute"},
                "sources": {tag: ["parsed"] for tag in tags},
                "mine": {"deep": [1, None, 0.5]},
            }
        )
    return rows
