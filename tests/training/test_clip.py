"""CLIP as text space and as teacher, with a small random one in transformers' format."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.model.preset import load_preset
from ramctl.training.teachers import ClipTeacher
from tests.peers.conftest import clip_tokenizer, own_cache
from tests.peers.support import save_clip
from tests.training.conftest import settings, steps_of

__all__ = ["clip_tokenizer", "own_cache"]  # label vectors are kept in the user's cache folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory, clip_tokenizer) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), clip_tokenizer, width=32)  # as tiny's labels


def test_the_teacher_sees_the_student_s_crop_in_its_own_normalisation(clip):
    from transformers import CLIPModel

    preprocess = load_preset("tiny").preprocess
    teacher = ClipTeacher(clip, preprocess)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    given = teacher.photo_features((pixels - mean) / std)
    clip_mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    clip_std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=(pixels - clip_mean) / clip_std).pooler_output
        expected = model.visual_projection(pooled)
    assert torch.allclose(given, expected, atol=1e-5)


@pytest.fixture
def arguments(tiny_options, parsed, clip) -> list[object]:
    """What `train` is given for CLIP's queries and CLIP as teacher."""
    options = ["--distill", f"clip:{clip}", "--events", "e.jsonl"]
    return [parsed, *tiny_options[:4], *options, "--out", "x", "--steps", 2]


def test_ram_trains_on_clip_queries_and_a_clip_teacher(command, arguments):
    command("train", *arguments)
    assert steps_of("e.jsonl")[0]["losses"]["distill clip"] > 0
    bundle = Bundle.open(Path("x"))
    assert json.loads((bundle.path / "text/encoder.json").read_text())["kind"] == "clip"
    lengths = np.linalg.norm(bundle.tensors(["labels.text"])["labels.text"].astype(float), axis=1)
    assert np.allclose(lengths, 1, atol=1e-2)


def test_ram_plus_aligns_photos_with_their_captions(command, arguments):
    changes = settings(
        "model.captioning=false", "model.prior=false", "model.encoder.mean_token=true",
        "model.labels.kind=descriptions", "model.labels.own_width=0", "model.labels.own_bias=false",
        "training.objective=ram-plus", "training.caption_weight=0",
        "training.alignment_weight=1.0", "training.loss=ram-official",
    )  # fmt: skip
    command("train", *arguments, *changes)
    losses = steps_of("e.jsonl")[0]["losses"]
    assert set(losses) == {"tag", "distill clip", "alignment"}
    assert losses["alignment"] > 0
