"""CLIP as text space and as teacher, with a small random one in transformers' format."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.model.config import load_preset
from ramctl.training.objectives.clip_teacher import ClipTeacher

WIDTH = 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A CLIP of a few thousand random weights."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    signs = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = signs + [sign + "</w>" for sign in signs] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 1, "projection_dim": WIDTH}
    text = {**sizes, "vocab_size": len(pieces), "max_position_embeddings": 77}
    ends = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text | ends, vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=WIDTH,
    )  # fmt: skip
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Label vectors are kept in the user's cache folder: not in the real one here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def test_ram_trains_on_clip_queries_and_a_clip_teacher(command, tiny_options, parsed, clip):
    options = [*tiny_options[:4], "--text", f"clip:{clip}", "--distill", f"clip:{clip}"]
    done = command("train", parsed, "--out", "x", "--steps", 2, "--events", "e.jsonl", *options)
    assert done.returncode == 0, done.messages
    steps = [json.loads(line) for line in Path("e.jsonl").read_text().splitlines()]
    assert steps[0]["losses"]["distill clip"] > 0
    bundle = Bundle.open(Path("x"), verify=True)
    assert json.loads((bundle.path / "text/encoder.json").read_text())["kind"] == "clip"
    lengths = np.linalg.norm(bundle.tensors(["labels.text"])["labels.text"].astype(float), axis=1)
    assert np.allclose(lengths, 1, atol=1e-2)


def test_ram_plus_aligns_photos_with_their_captions(command, tiny_options, parsed, clip):
    changes = (
        "model.captioning=false", "model.prior=false", "model.encoder.mean_token=true",
        "model.labels.kind=descriptions", "model.labels.own_width=0", "model.labels.own_bias=false",
        "training.objective=ram-plus", "training.caption_weight=0",
        "training.alignment_weight=1.0", "training.loss=ram-official",
    )  # fmt: skip
    options = [*tiny_options[:4], "--text", f"clip:{clip}", "--distill", f"clip:{clip}"]
    options += [part for change in changes for part in ("--set", change)]
    done = command("train", parsed, "--out", "x", "--steps", 2, "--events", "e.jsonl", *options)
    assert done.returncode == 0, done.messages
    losses = json.loads(Path("e.jsonl").read_text().splitlines()[0])["losses"]
    assert set(losses) == {"tag", "distill clip", "alignment"}
    assert losses["alignment"] > 0
