"""CLIP and SigLIP against what transformers itself computes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from ramctl import Tagger
from ramctl.errors import RunProblem
from ramctl.inference.peers import open_peer
from tests.inference.peers.support import LABELS, TEXT, VISION, randomise, save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory, clip_tokenizer) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), clip_tokenizer)


def test_clip_is_the_cosine_with_the_text_whatever_the_batch_and_nearly_so_in_bf16(clip, photos):
    pixels = transformers.CLIPImageProcessor.from_pretrained(clip)(
        images=[Image.fromarray(photo) for photo in photos], return_tensors="pt"
    )
    texts = [f"a photo of a {label}" for label in LABELS]
    tokens = transformers.CLIPTokenizer.from_pretrained(clip)(
        texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        found = transformers.CLIPModel.from_pretrained(clip)(**tokens, **pixels)
    peer = open_peer(f"clip:{clip}", LABELS, device="cpu")
    scores = peer.scores(photos)
    expected = found.image_embeds @ found.text_embeds.T
    np.testing.assert_allclose(2 * scores - 1, expected.numpy(), atol=1e-5)
    assert scores.dtype == np.float32 and scores.std(0).min() > 1e-3
    peer.batch = 2
    np.testing.assert_allclose(peer.scores(photos), scores, atol=1e-6)
    half = open_peer(f"clip:{clip}", LABELS, device="cpu", dtype="bf16")
    np.testing.assert_allclose(half.scores(photos), scores, atol=0.02)
    assert half.fingerprint != peer.fingerprint


def test_incomplete_weights_are_an_error_not_random_numbers(clip, tmp_path):
    copy = shutil.copytree(clip, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunProblem, match=r"1 weights are missing.*visual_projection"):
        open_peer(f"clip:{copy}", LABELS, device="cpu")


def test_siglip_equals_the_librarys_pipeline(tmp_path, clip_tokenizer, photos):
    own = {"vocab_size": len(clip_tokenizer), "projection_size": 48, "max_position_embeddings": 64}
    config = transformers.SiglipConfig(text_config=TEXT | own, vision_config=VISION)
    model = randomise(transformers.SiglipModel(config))
    model.logit_scale.data.fill_(1.5)
    model.logit_bias.data.fill_(-1.0)
    model.save_pretrained(tmp_path)
    clip_tokenizer.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    transformers.SiglipImageProcessor(size=size).save_pretrained(tmp_path)
    task = "zero-shot-image-classification"
    classify = transformers.pipeline(task, model=str(tmp_path), device="cpu")
    scores = open_peer(f"siglip:{tmp_path}", LABELS, device="cpu").scores(photos)
    for photo, row in zip(photos[:2], scores, strict=False):
        found = classify(Image.fromarray(photo), candidate_labels=LABELS)
        expected = {answer["label"]: answer["score"] for answer in found}
        np.testing.assert_allclose(row, [expected[label] for label in LABELS], atol=1e-5)
    assert scores.std() > 1e-3


def test_the_tagger_runs_a_peer_as_it_runs_a_bundle_and_rejects_what_is_too_thin(clip, photos):
    tagger = Tagger.from_pretrained(f"clip:{clip}", labels=LABELS, threshold=0, dense=True)
    expected = open_peer(f"clip:{clip}", LABELS, device="cpu").scores(photos)
    found = np.array([row.dense for row in tagger.tag(photos)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    dot, strip = np.zeros((1, 1, 3), np.uint8), np.zeros((3, 2000, 3), np.uint8)
    (first, problem) = tagger.outcomes([dot, strip])
    assert len(first.scores) == len(LABELS)
    assert problem.code == "too_large" and "2000x3 pixels: too thin" in problem.message
