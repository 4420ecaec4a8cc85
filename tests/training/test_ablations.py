"""The switches of the paper's tables 4 and 5: each changes the model that `train` makes."""

import json
from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.training.conftest import DATA, training_records, write_records

LEARNT = [
    "model.labels.kind=learnt", "model.labels.projection=none", "model.labels.own_head=true",
    "model.labels.own_bias=true", "model.encoder.projection=0", "training.objective=tag2text",
    "training.distill=[]",
]  # fmt: skip


@pytest.fixture
def trained(command, swin_options, tmp_path):
    """Trains the shrunken RAM; the bundle and the losses of its first step."""

    def train(*changes: str, records=None, options=()):
        path = write_records(tmp_path / "in.jsonl", records or training_records())
        sets = [part for change in changes for part in ("--set", change)]
        done = command(
            "train", path, "--out", "x", "--steps", 2, "--events", "e.jsonl", "--restart",
            *swin_options, *sets, *options,
        )  # fmt: skip
        assert done.returncode == 0, done.messages
        first = json.loads((tmp_path / "e.jsonl").read_text().splitlines()[0])
        return Bundle.open(tmp_path / "x", verify=True), set(first["losses"])

    return train


def query_texts(bundle: Bundle) -> np.ndarray:
    return bundle.tensors(["labels.text"])["labels.text"]


def test_all_of_it_is_ram(trained):
    bundle, losses = trained()
    assert losses == {"tag", "caption", "distill caption"}
    assert bundle.has("tokenizer.json")


def test_captioning_can_be_left_out(trained):
    bundle, losses = trained("model.captioning=false")
    assert losses == {"tag", "distill caption"}
    assert not bundle.has("tokenizer.json")
    assert not [name for name in bundle.tensors() if name.startswith("captioning.")]


def test_distillation_can_be_left_out(trained):
    _, losses = trained(options=["--distill", "none"])
    assert losses == {"tag", "caption"}


@pytest.mark.slow
def test_text_queries_are_the_texts_vectors_and_stay_so(trained, command):
    rows = [query_texts(trained(options=["--seed", seed])[0]) for seed in (0, 7)]
    assert np.array_equal(*rows)
    Path("words.txt").write_text("horse\n")
    options = ["--labels", "words.txt", "--threshold", 0, "--runtime", "torch"]
    done = command("tag", "--model", "x/", DATA / "photos" / "kite.jpg", *options)
    assert json.loads(done.stdout)["tags"] == ["horse"]


@pytest.mark.slow
def test_learnt_queries_are_trained_and_take_no_new_words(trained, command):
    bundle, losses = trained(*LEARNT)
    assert losses == {"tag", "caption"}
    assert not bundle.has("text/encoder.json") and not bundle.has("text/table.safetensors")
    rows = [query_texts(bundle)]
    rows.append(query_texts(trained(*LEARNT, options=["--steps", 3])[0]))
    assert not np.array_equal(*rows)
    Path("words.txt").write_text("horse\n")
    done = command("tag", "--model", "x/", DATA / "photos" / "kite.jpg", "--labels", "words.txt")
    assert (done.returncode, "no text encoder" in done.messages) == (1, True)


def test_the_categories_are_those_of_the_label_file(trained, tmp_path):
    (tmp_path / "few.txt").write_text("sky\nfield\n")
    bundle, _ = trained(options=["--labels", "few.txt"])
    assert bundle.labels.tags == ["sky", "field"]
    data = bundle.meta["provenance"]["data"]
    assert data["tags_outside_the_labels"] > 0


@pytest.mark.slow
def test_the_tags_and_captions_of_the_data_engine_are_those_of_the_records(trained):
    parsed = training_records()
    generated = [
        {**row, "tags": [*row["tags"], "extra"], "generated_captions": ["something extra"],
         "generated_caption_tags": [["extra"]]}
        for row in parsed
    ]  # fmt: skip
    counts = []
    for records in (parsed, generated):
        bundle, _ = trained(records=records)
        counts.append(bundle.meta["provenance"]["data"])
    assert counts[1]["tag_mentions"] == counts[0]["tag_mentions"] + 8
    assert counts[1]["captions"] == counts[0]["captions"] + 8
    assert "extra" in bundle.labels.tags


def test_the_backbone_is_any_of_timm_s(trained):
    bundle, _ = trained("model.encoder.backbone=swin_small_patch4_window7_224")
    encoder = bundle.meta["architecture"]["encoder"]
    assert encoder["backbone"] == "swin_small_patch4_window7_224"
