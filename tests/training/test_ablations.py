"""The switches of the paper's tables 4 and 5: each changes the model that `train` makes."""

from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import Bundle
from tests.training.conftest import DATA, settings, steps_of

LEARNT = [
    "model.labels.kind=learnt", "model.labels.projection=none", "model.labels.own_head=true",
    "model.labels.own_bias=true", "model.encoder.projection=0", "training.objective=tag2text",
    "training.distill=[]",
]  # fmt: skip


@pytest.fixture
def trained(command, parsed, swin_options, tmp_path):
    """Trains the shrunken RAM; the bundle and the losses of its first step."""

    def train(*changes: str, options=()):
        command(
            "train", parsed, "--out", "x", "--steps", 2, "--events", "e.jsonl",
            *swin_options, *settings(*changes), *options,
        )  # fmt: skip
        return Bundle.open(tmp_path / "x"), set(steps_of("e.jsonl")[0]["losses"])

    return train


def query_texts(bundle: Bundle) -> np.ndarray:
    return bundle.tensors(["labels.text"])["labels.text"]


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ([], [], {"tag", "caption", "distill caption"}),
        (["model.captioning=false"], [], {"tag", "distill caption"}),
        ([], ["--distill", "none"], {"tag", "caption"}),
    ],
    ids=["RAM", "without captioning", "without distillation"],
)
def test_captioning_and_distillation_can_be_left_out(trained, changes, options, expected):
    bundle, losses = trained(*changes, options=options)
    assert losses == expected
    assert bundle.has("tokenizer.json") == ("caption" in expected)
    own = [name for name in bundle.tensors() if name.startswith("captioning.")]
    assert bool(own) == ("caption" in expected)


@pytest.mark.slow
def test_learnt_queries_are_trained_and_take_no_new_words(trained, command):
    bundle, losses = trained(*LEARNT)
    assert losses == {"tag", "caption"}
    assert not bundle.has("text/encoder.json") and not bundle.has("text/table.safetensors")
    rows = [query_texts(bundle)]  # before it is replaced
    rows.append(query_texts(trained(*LEARNT, options=["--steps", 3])[0]))
    assert not np.array_equal(*rows)
    Path("words.txt").write_text("horse\n")
    photo = DATA / "photos" / "kite.jpg"
    done = command("tag", "--model", "x/", photo, "--labels", "words.txt", code=1)
    assert "the model knows none of the words" in done.messages
