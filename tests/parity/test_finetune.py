"""The authors' checkpoints trained further by the real commands, without a network."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.weights import resize_table
from tests.parity.conftest import FILES
from tests.training.conftest import DATA, read_rows, settings, training_records, write_records

pytestmark = pytest.mark.shared

# Nothing is learnt, so that the weights stay what they were.
STILL = settings("training.lr=0.0", "training.weight_decay=0.0")


@pytest.fixture
def finetune(ramctl, convert, tmp_path):
    def run(architecture: str, *options: object) -> tuple[Bundle, list[dict], str]:
        convert(architecture)
        rows = [{**row, "tags": ["couch", "person", "dog"]} for row in training_records()]
        for row in rows:
            row.pop("caption_tags")
        done = ramctl(
            "finetune", write_records(tmp_path / "in.jsonl", rows), "--model",
            f"{tmp_path / 'bundle'}/", "--out", "tuned", "--root", DATA,
            "--set", "training.distill=[]", "--set", "training.steps=2",
            "--set", "training.workers=0",
            "--events", "e.jsonl", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.messages
        events = read_rows(tmp_path / "e.jsonl")
        return Bundle.open(tmp_path / "tuned"), events, done.messages

    return run


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(FILES))
def test_a_converted_model_is_trained_further_and_needs_no_text_encoder(
    architecture, finetune, tmp_path
):
    options = settings("preprocess.size=96", "model.encoder.window_size=3")
    if architecture == "ram-plus":
        options += settings("training.alignment_weight=0.0")
    bundle, events, said = finetune(architecture, *options, *STILL)
    assert "queries of" not in said
    losses = set(events[0]["losses"])
    assert losses == ({"tag"} if architecture == "ram-plus" else {"tag", "caption"})
    before = Bundle.open(tmp_path / "bundle").tensors()
    for name, value in bundle.tensors().items():
        assert value.shape == before[name].shape
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-3, err_msg=name)
    assert bundle.has("text/encoder.json") == (architecture != "tag2text")
    assert bundle.labels.tags == Bundle.open(tmp_path / "bundle").labels.tags


@pytest.mark.slow
def test_fine_tuning_at_384_resizes_the_tables_of_relative_positions(finetune, parity):
    bundle, _, _ = finetune("ram", *STILL)
    assert bundle.meta["preprocess"]["size"] == 384
    assert bundle.meta["architecture"]["encoder"]["window_size"] == 12
    official = load_file(parity / "ram_tiny.safetensors")
    name = "layers.1.blocks.1.attn.relative_position_bias_table"
    stored = bundle.tensors([f"encoder.backbone.{name}"])[f"encoder.backbone.{name}"]
    expected = resize_table(official[f"visual_encoder.{name}"].float(), 23 * 23)
    assert stored.shape == (529, 2)
    torch.testing.assert_close(torch.from_numpy(stored).float(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_fine_tuning_at_the_authors_rate_learns(finetune):
    # The same eight photos in each step, so that only learning changes the losses.
    changes = [
        "preprocess.size=96", "model.encoder.window_size=3", "training.batch_size=8",
        "training.warmup_steps=0", "training.augment.crop_scale=[1.0, 1.0]",
        "training.augment.flip=0", "training.augment.operations=0",
        "model.tag_decoder.dropout=0", "model.captioning.dropout=0",
        "model.encoder.options.drop_path_rate=0.0",
    ]  # fmt: skip
    _, events, _ = finetune("ram", "--set", "training.steps=8", *settings(*changes))
    steps = [event for event in events if event["event"] == "step"]
    assert steps[0]["lr"] == 5e-6
    tag, caption = ([step["losses"][name] for step in steps] for name in ("tag", "caption"))
    assert tag == sorted(tag, reverse=True) and tag[-1] < 0.8 * tag[0]
    assert caption[-1] < 0.97 * caption[0]  # an epoch each, which draws other captions
