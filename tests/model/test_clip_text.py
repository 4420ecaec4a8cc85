"""New words through a CLIP text encoder of a local folder."""

import json

import numpy as np
import pytest
import torch

from ramctl.errors import RunProblem
from ramctl.model.clip_text import ClipText
from ramctl.model.prompts import ram_prompts


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a tiny random CLIP text model and a letter tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(33, 127)]
    pieces = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.model_max_length = 77
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=8, eos_token_id=len(pieces) - 1,
        bos_token_id=len(pieces) - 2,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


def test_a_name_is_the_unit_mean_over_rams_prompts(clip):
    encoder = ClipText(str(clip), "ram")
    vectors = encoder.encode(["dog", "ice cream"])
    assert vectors.shape == (2, 8)
    sentences = ClipText(str(clip), "ram-plus").encode(ram_prompts("dog"))
    mean = sentences.mean(0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_ram_plus_embeds_sentences_as_they_are_and_names_in_one(clip):
    encoder = ClipText(str(clip), "ram-plus")
    name, sentence = encoder.encode(["dog", "a photo of a dog."])
    np.testing.assert_allclose(name, sentence, atol=1e-6)
    assert np.linalg.norm(name) == pytest.approx(1, abs=1e-5)


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(RunProblem, match=r"text encoder .*cannot be loaded"):
        ClipText(str(tmp_path), "ram").encode(["dog"])
    with pytest.raises(RunProblem, match=r"encoder\.json: names no text encoder"):
        ClipText.load(tmp_path)
