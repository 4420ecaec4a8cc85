"""CLIP's text encoder out of a folder: what RAM's and RAM++'s open sets are made of."""

import json

import numpy as np
import pytest
import torch

from ramctl.checkpoints.clip import ClipTextEncoder, label_prompts, templates
from ramctl.errors import RunProblem
from tests.inference.peers.support import LABELS


@pytest.fixture(scope="module")
def encoder(clip_folder):
    return ClipTextEncoder(str(clip_folder))


def test_texts_are_unit_vectors_in_the_order_given(encoder, clip_folder):
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection.from_pretrained(clip_folder)
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    texts = ["a photo of a dog", "red", "a traffic light and a living room"]
    rows = encoder.embed_sentences(texts)
    assert rows.shape == (3, encoder.width) and rows.dtype == np.float32
    for text, row in zip(texts, rows, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).text_embeds[0]
        np.testing.assert_allclose(row, (expected / expected.norm()).numpy(), atol=1e-6)


def test_a_label_is_the_unit_mean_of_its_prompts_unit_vectors(encoder):
    rows = encoder.embed_names(LABELS)
    for label, row in zip(LABELS, rows, strict=True):
        mean = encoder.embed_sentences(label_prompts(label)).mean(0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_descriptions_stay_apart_and_long_ones_are_cut(encoder):
    long = " ".join(["dog"] * 200)
    rows = encoder.embed_sentences(["a dog", long, "a red umbrella"])
    assert rows.shape == (3, encoder.width)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    others = encoder.embed_sentences(["a dog", "a red umbrella"])
    np.testing.assert_allclose(rows[[0, 2]], others, atol=1e-6)


def test_a_folder_without_a_tokenizer_says_so(clip_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    with pytest.raises(RunProblem, match="tokenizer"):
        ClipTextEncoder(str(tmp_path)).embed_names(LABELS)


@pytest.mark.shared
def test_prompts_equal_the_authors_for_every_name_of_the_fixture(shared):
    facts = json.loads((shared / "parity" / "misc_expected.json").read_text("utf-8"))
    expected = facts["openset_prompts"]
    assert len(expected) == 8
    for name, texts in expected.items():
        assert label_prompts(name) == texts


def test_there_are_63_templates_and_an_empty_label_gets_them_all():
    assert len(set(templates())) == 63
    assert len(label_prompts("")) == 63
