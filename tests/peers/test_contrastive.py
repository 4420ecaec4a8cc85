"""CLIP, SigLIP and BLIP against what transformers itself computes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl import Tagger
from ramctl.engine.peers import open_peer
from ramctl.engine.peers.peer import crop_strip
from ramctl.errors import RunProblem, UsageProblem
from ramctl.text.clip import label_prompts
from tests.peers.support import LABELS, TEXT, VISION, randomise, save_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, clip_tokenizer) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"), clip_tokenizer)


def test_clip_is_the_cosine_with_the_mean_of_the_prompts(clip_folder, photos):
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(clip_folder)
    tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(
        images=[Image.fromarray(photo) for photo in photos], return_tensors="pt"
    )
    expected = []
    for label in LABELS:
        tokens = tokenizer(label_prompts(label), padding=True, return_tensors="pt")
        with torch.no_grad():
            cosines = model(**tokens, **pixels)
        mean = cosines.text_embeds.mean(0)
        expected.append(cosines.image_embeds @ mean / mean.norm())
    scores = open_peer(f"clip:{clip_folder}", LABELS, device="cpu").scores(photos)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(2 * scores - 1, torch.stack(expected, 1).numpy(), atol=1e-5)
    assert scores.std(0).min() > 1e-3


def test_a_photo_scores_the_same_alone_in_a_batch_and_in_bf16_nearly(clip_folder, photos):
    peer = open_peer(f"clip:{clip_folder}", LABELS, device="cpu")
    alone = peer.scores(photos)
    peer.batch = 2
    np.testing.assert_allclose(peer.scores(photos), alone, atol=1e-6)
    np.testing.assert_array_equal(peer.scores(photos[2:]), peer.scores([photos[2], photos[0]])[:1])
    half = open_peer(f"clip:{clip_folder}", LABELS, device="cpu", dtype="bf16")
    np.testing.assert_allclose(half.scores(photos), alone, atol=0.02)
    assert half.fingerprint != peer.fingerprint


def test_the_fingerprint_follows_labels_and_weights(clip_folder, tmp_path):
    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    first = open_peer(f"clip:{clip_folder}", LABELS, device="cpu").fingerprint
    assert open_peer(f"clip:{copy}", LABELS, device="cpu").fingerprint == first
    assert open_peer(f"clip:{copy}", LABELS[:2], device="cpu").fingerprint != first
    (copy / "vocabulary.txt").write_text("changed")
    assert open_peer(f"clip:{copy}", LABELS, device="cpu").fingerprint != first


def test_incomplete_weights_are_an_error_not_random_numbers(clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(clip_folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunProblem, match=r"1 weights are missing.*visual_projection"):
        open_peer(f"clip:{copy}", LABELS, device="cpu")


def test_a_folder_of_another_model_says_so(clip_folder):
    with pytest.raises(RunProblem, match="type 'clip', expected siglip"):
        open_peer(f"siglip:{clip_folder}", LABELS, device="cpu")


def test_a_folder_that_is_not_there_and_a_list_without_labels_are_wrong_usage(clip_folder):
    with pytest.raises(UsageProblem, match="no such file or folder"):
        open_peer(f"clip:{clip_folder / 'none'}", LABELS)
    with pytest.raises(UsageProblem, match="--labels"):
        open_peer(f"clip:{clip_folder}", [])


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


def test_a_long_photo_keeps_its_middle_only():
    photo = np.arange(2 * 101 * 3).reshape(2, 101, 3).astype(np.uint8)
    np.testing.assert_array_equal(crop_strip(photo), photo[:, 34:66])
    turned = photo.transpose(1, 0, 2)
    np.testing.assert_array_equal(crop_strip(turned), turned[34:66])
    np.testing.assert_array_equal(crop_strip(photo[:, :30]), photo[:, :30])


@pytest.mark.parametrize("kind", ["clip", "siglip", "blip", "blip-itc"])
def test_photos_of_extreme_shapes_are_scored(kind, request, odd_photos):
    folder = request.getfixturevalue(f"{kind.partition('-')[0]}_folder")
    scores = open_peer(f"{kind}:{folder}", LABELS, device="cpu").scores(odd_photos)
    assert scores.shape == (len(odd_photos), len(LABELS))
    assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


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
    with pytest.raises(UsageProblem, match=r"name some with labels$"):
        Tagger.from_pretrained(f"clip:{clip_folder}")
    with pytest.raises(UsageProblem, match=r"^boxes needs a bundle"):
        Tagger.from_pretrained(f"clip:{clip_folder}", labels=words, boxes=True)
