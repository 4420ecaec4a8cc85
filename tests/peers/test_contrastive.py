"""CLIP, SigLIP and BLIP against what transformers itself computes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl import Tagger
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.peers import open_peer
from tests.peers.support import LABELS, TEXT, VISION, randomise, save_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, clip_tokenizer) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), clip_tokenizer)


def test_clip_is_the_cosine_with_the_text(clip_folder, photos):
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(
        images=[Image.fromarray(photo) for photo in photos], return_tensors="pt"
    )
    texts = [f"a photo of a {label}" for label in LABELS]
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    with torch.no_grad():
        found = CLIPModel.from_pretrained(clip_folder)(
            **tokenizer(texts, padding=True, return_tensors="pt"), **pixels
        )
    scores = open_peer(f"clip:{clip_folder}", LABELS, device="cpu").scores(photos)
    assert scores.dtype == np.float32
    expected = found.image_embeds @ found.text_embeds.T
    np.testing.assert_allclose(2 * scores - 1, expected.numpy(), atol=1e-5)
    assert scores.std(0).min() > 1e-3


def test_a_photo_scores_the_same_alone_in_a_batch_and_in_bf16_nearly(clip_folder, photos):
    peer = open_peer(f"clip:{clip_folder}", LABELS, device="cpu")
    alone = peer.scores(photos)
    peer.batch = 2
    np.testing.assert_allclose(peer.scores(photos), alone, atol=1e-6)
    half = open_peer(f"clip:{clip_folder}", LABELS, device="cpu", dtype="bf16")
    np.testing.assert_allclose(half.scores(photos), alone, atol=0.02)
    assert half.fingerprint != peer.fingerprint


def test_incomplete_weights_are_an_error_not_random_numbers(clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunProblem, match=r"1 weights are missing.*visual_projection"):
        open_peer(f"clip:{copy}", LABELS, device="cpu")


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory, clip_tokenizer) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    own = {"vocab_size": len(clip_tokenizer), "projection_size": 48, "max_position_embeddings": 64}
    config = SiglipConfig(text_config=TEXT | own, vision_config=VISION)
    model = randomise(SiglipModel(config))
    model.logit_scale.data.fill_(1.5)
    model.logit_bias.data.fill_(-1.0)
    model.save_pretrained(folder)
    clip_tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_siglip_equals_the_librarys_pipeline(siglip_folder, photos):
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=str(siglip_folder), device="cpu")
    scores = open_peer(f"siglip:{siglip_folder}", LABELS, device="cpu").scores(photos)
    for photo, row in zip(photos[:2], scores, strict=False):
        found = classify(Image.fromarray(photo), candidate_labels=LABELS)
        expected = {answer["label"]: answer["score"] for answer in found}
        np.testing.assert_allclose(row, [expected[label] for label in LABELS], atol=1e-5)
    assert scores.std() > 1e-3


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory, bert_tokenizer) -> Path:
    from transformers import BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor

    folder = tmp_path_factory.mktemp("blip")
    ends = {
        "bos_token_id": bert_tokenizer.cls_token_id,
        "eos_token_id": bert_tokenizer.sep_token_id,
    }
    special = {"pad_token_id": bert_tokenizer.pad_token_id, "vocab_size": len(bert_tokenizer)}
    special |= ends | {"encoder_hidden_size": 48}
    config = BlipConfig(text_config=TEXT | special, vision_config=VISION, image_text_hidden_size=24)
    randomise(BlipForImageTextRetrieval(config)).save_pretrained(folder)
    bert_tokenizer.save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("head", ["blip", "blip-itc"])
def test_blip_equals_the_librarys_model_text_by_text(blip_folder, photos, head):
    from transformers import BlipForImageTextRetrieval, BlipProcessor

    model = BlipForImageTextRetrieval.from_pretrained(blip_folder).eval()
    processor = BlipProcessor.from_pretrained(blip_folder)
    expected = np.zeros((len(photos), len(LABELS)))
    for row, photo in enumerate(photos):
        for column, label in enumerate(LABELS):
            inputs = processor(
                images=Image.fromarray(photo), text=f"a picture of {label}", return_tensors="pt"
            )
            inputs = {name: inputs[name] for name in ("pixel_values", "input_ids")}
            with torch.no_grad():
                answer = model(**inputs, use_itm_head=head == "blip").itm_score[0]
            expected[row, column] = answer.softmax(0)[1] if head == "blip" else (1 + answer[0]) / 2
    scores = open_peer(f"{head}:{blip_folder}", LABELS, device="cpu").scores(photos)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.std(1).min() > 1e-3


def test_the_tagger_runs_a_peer_as_it_runs_a_bundle(clip_folder, photos, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(LABELS))
    paths = [tmp_path / f"{number}.png" for number in range(len(photos))]
    for photo, path in zip(photos, paths, strict=True):
        Image.fromarray(photo).save(path)
    words = str(tmp_path / "words.txt")
    tagger = Tagger.from_pretrained(f"clip:{clip_folder}", labels=words, threshold=0, dense=True)
    expected = open_peer(f"clip:{clip_folder}", LABELS, device="cpu").scores(photos)
    found = np.array([row.dense for row in tagger.tag(paths)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UsageProblem, match=r"name some with --labels$"):
        Tagger.from_pretrained(f"clip:{clip_folder}")
    with pytest.raises(UsageProblem, match=r"^--boxes needs a bundle"):
        Tagger.from_pretrained(f"clip:{clip_folder}", labels=words, boxes=True)


def test_a_photo_that_is_too_thin_is_a_reject(clip_folder):
    tagger = Tagger.from_pretrained(f"clip:{clip_folder}", labels=LABELS, threshold=0)
    dot, strip = np.zeros((1, 1, 3), np.uint8), np.zeros((3, 2000, 3), np.uint8)
    (first, problem) = tagger.outcomes([dot, strip])
    assert len(first.scores) == len(LABELS)
    assert problem.code == "too_large" and "2000x3 pixels: too thin" in problem.message
