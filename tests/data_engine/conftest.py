"""A tiny model with random weights, and records of the photos in tests/data."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from ramctl.checkpoints.bundle import BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.model.build_ram import build_ram
from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
from ramctl.model.preset import load_preset
from ramctl.records.labels import Label, Labels
from tests.support import DATA, command, one_thread

__all__ = ["DATA", "command", "one_thread"]

LABELS = [
    Label("horse", synonyms=("pony",)), Label("field", "scene"), Label("sky"), Label("train"),
    Label("man"), Label("red", "attribute"), Label("stand", "action"), Label("mountain"),
]  # fmt: skip


@pytest.fixture
def clean(command, engine_bundle):
    return partial(command, "clean", "--model", engine_bundle)


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
        writer.meta["thresholds"] = {"threshold": 0.5}
        Labels(LABELS).write(writer.path / "labels.jsonl")
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
