"""Text encoders: CLIP out of a folder, the static table, and the `text` folder that keeps one."""

import json

import numpy as np
import pytest
import torch
from text_distillation import build_tokenizer, quantise_table

from ramctl.checkpoints.clip import ClipTextEncoder, label_prompts, templates
from ramctl.checkpoints.static_table import read_text_encoder, unit
from ramctl.errors import RunProblem, UsageProblem
from tests.inference.peers.support import LABELS


@pytest.fixture(scope="module")
def encoder(clip_folder):
    return ClipTextEncoder(str(clip_folder))


def test_texts_are_unit_vectors_in_the_order_given_and_long_ones_are_cut(encoder, clip_folder):
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection.from_pretrained(clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    texts = ["a photo of a dog", "red", " ".join(["dog"] * 200)]
    rows = encoder.embed_sentences(texts)
    assert rows.shape == (3, encoder.width) and rows.dtype == np.float32
    for text, row in zip(texts, rows, strict=True):
        given = tokenizer(text, return_tensors="pt", truncation=True, max_length=77)
        with torch.no_grad():
            expected = model(**given).text_embeds[0]
        np.testing.assert_allclose(row, (expected / expected.norm()).numpy(), atol=1e-6)


def test_a_label_is_the_unit_mean_of_its_prompts_unit_vectors(encoder):
    rows = encoder.embed_names(LABELS)
    for label, row in zip(LABELS, rows, strict=True):
        mean = encoder.embed_sentences(label_prompts(label)).mean(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("name", ["dog", "st. bernard", "co."])
def test_ram_plus_puts_a_bare_name_into_its_fixed_sentence(name, clip_folder):
    encode = ClipTextEncoder(str(clip_folder), "ram-plus")
    sentence = encode.embed_sentences([f"a photo of a {name}."])
    np.testing.assert_allclose(encode.embed_names([name]), sentence, atol=1e-6)


def test_a_clip_without_a_tokenizer_or_one_that_is_not_there_says_so(clip_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(RunProblem, match="tokenizer"):
        ClipTextEncoder(str(tmp_path)).embed_names(LABELS)
    with pytest.raises(UsageProblem, match=r"no-such-clip: .*; `convert --text-encoder DIR` takes"):
        ClipTextEncoder("no-such-clip").embed_names(LABELS)


@pytest.mark.shared
def test_prompts_equal_the_authors_for_every_name_of_the_fixture(shared):
    facts = json.loads((shared / "parity" / "misc_expected.json").read_text("utf-8"))
    expected = facts["openset_prompts"]
    assert len(expected) == 8 and len(set(templates())) == 63
    for name, texts in expected.items():
        assert label_prompts(name) == texts


def small_table():
    tokenizer = build_tokenizer({"[UNK]": 0, "red": 1, "bus": 2, "##s": 3})
    rows = np.array([[9, 9], [1, 0], [0, 2], [0.1, 0.1]], np.float32)
    return quantise_table(rows, np.eye(3, 2), tokenizer.to_str())


def test_a_text_is_the_sum_of_its_known_pieces_at_length_one():
    table = small_table()
    expected = unit(np.array([[1, 0], [0, 1], [1, 2], [1, 0], [0, 0], [0, 0]], np.float32))
    texts = ["red", "Bus", "red bus", "red 日", "日本", ""]
    np.testing.assert_allclose(table.embed_names(texts), expected, atol=0.01)
    np.testing.assert_allclose(table.project(np.array([[3.0, 4.0, 9.0]])), [[0.6, 0.8]], atol=1e-6)
    assert [table.knows(word) for word in ("bus", "buss", "日")] == [True, False, False]
    for width, rows in {1: [[0], [1]], 3: [[0, 1, 0], [1, 0, 0]]}.items():
        assert table.resized(width).embed_names(["bus", "red"]).tolist() == rows


def test_a_text_folder_gives_back_the_encoder_that_was_saved_there(tmp_path):
    ClipTextEncoder("hf://owner/clip", "ram-plus").save(tmp_path / "text")
    clip = read_text_encoder(tmp_path / "text")
    assert clip == ClipTextEncoder("hf://owner/clip", "ram-plus")
    assert clip.name == "the CLIP text encoder hf://owner/clip"
    assert json.loads((tmp_path / "text" / "encoder.json").read_bytes()) == {
        "kind": "clip", "name": "hf://owner/clip", "prompts": "ram-plus",
    }  # fmt: skip
    folder = tmp_path / "model" / "text"
    small_table().save(folder)
    table = read_text_encoder(folder)
    assert table.name == f"the static table of {tmp_path / 'model'}"
    assert np.array_equal(table.embed_names(["red bus"]), small_table().embed_names(["red bus"]))
