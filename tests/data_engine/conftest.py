"""A tiny model with random weights, and records of the photos in tests/data."""

import json
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.bundle import BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.labels import Label, LabelSystem
from ramctl.model.build import build_ram
from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
from ramctl.model.config import load_preset
from tests.command import Done

DATA = Path(__file__).resolve().parents[1] / "data"
LABELS = [
    Label("horse", synonyms=("pony",)), Label("field", "scene"), Label("sky"), Label("train"),
    Label("man"), Label("red", "attribute"), Label("stand", "action"), Label("mountain"),
]  # fmt: skip


@pytest.fixture
def run_here(ramctl, tmp_path, monkeypatch):
    """Runs a command below `tmp_path`, in this process or apart, checking its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*words, stdin: bytes = b"", code: int = 0, apart: bool = False) -> Done:
        done = (ramctl.process if apart else ramctl)(*words, stdin=stdin)
        assert done.returncode == code, done.messages
        return done

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
    model = build_ram(preset.model, image_size=64, n_labels=len(LABELS), vocabulary=len(tokenizer))
    model.labels.set_text(torch.nn.functional.normalize(torch.randn(len(LABELS), 32), dim=-1))
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model, tokenizer)
        writer.meta["thresholds"] = {"threshold": 0.5, "open_set_threshold": 0.5}
        LabelSystem(LABELS).write(writer.path / "labels.jsonl")
    return path


@pytest.fixture
def photo_records() -> list[dict]:
    """A record for each photo, with tags, kinds, sources and a field of someone else's."""
    kinds = {"horse": "object", "field": "scene", "sky": "object", "red": "attribute"}
    return [
        {
            "id": number, "image": str(path), "tags": list(kinds), "kinds": dict(kinds),
            "sources": {tag: ["parsed"] for tag in kinds}, "mine": {"deep": [1, None, 0.5]},
        }
        for number, path in enumerate(sorted((DATA / "photos").glob("*.jpg")))
    ]  # fmt: skip
