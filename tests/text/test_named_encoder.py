"""New words for a converted bundle: its `text/encoder.json` names the CLIP that embeds them."""

import numpy as np
import orjson
import pytest

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.text.clip import ClipTextEncoder
from ramctl.text.encoder import read_text_encoder
from tests.peers.support import randomise


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, clip_tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    folder = tmp_path_factory.mktemp("named-clip")
    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=12,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
    )
    randomise(CLIPTextModelWithProjection(config)).save_pretrained(folder)
    clip_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "text").mkdir()
    return Bundle(tmp_path, {"files": {}})


@pytest.fixture
def name_encoder(bundle):
    def write(**facts):
        (bundle.path / "text" / "encoder.json").write_bytes(orjson.dumps(facts))
        return read_text_encoder(bundle.path / "text")

    return write


def test_a_name_goes_through_rams_templates(name_encoder, clip_folder):
    encode = name_encoder(kind="clip", name=str(clip_folder), prompts="ram")
    expected = ClipTextEncoder(str(clip_folder)).embed_names(["dog", "red umbrella"])
    np.testing.assert_allclose(encode.embed_names(["dog", "red umbrella"]), expected, atol=1e-6)


def test_descriptions_are_embedded_as_they_are(name_encoder, clip_folder):
    texts = ["a dog is an animal", "a photo of a dog."]  # a full stop makes no difference
    expected = ClipTextEncoder(str(clip_folder)).embed_sentences(texts)
    for prompts in ("ram", "ram-plus"):
        encode = name_encoder(kind="clip", name=str(clip_folder), prompts=prompts)
        np.testing.assert_allclose(encode.embed_sentences(texts), expected, atol=1e-6)


def test_ram_plus_puts_a_bare_name_into_its_fixed_sentence(name_encoder, clip_folder):
    encode = name_encoder(kind="clip", name=str(clip_folder), prompts="ram-plus")
    for name in ("dog", "st. bernard", "co."):
        sentence = encode.embed_sentences([f"a photo of a {name}."])
        np.testing.assert_allclose(encode.embed_names([name]), sentence, atol=1e-6)


def test_a_broken_name_is_an_error_that_says_where(name_encoder, bundle):
    with pytest.raises(RunProblem, match=r"encoder\.json: names no text encoder"):
        name_encoder(kind="clip")
    with pytest.raises(RunProblem, match="prompts must be one of ram, ram-plus, not 'other'"):
        name_encoder(kind="clip", name="x", prompts="other")


def test_words_that_the_model_knows_need_no_encoder(name_encoder, tmp_path):
    encode = name_encoder(kind="clip", name=str(tmp_path / "missing"), prompts="ram")
    with pytest.raises(UsageProblem, match="no such file or folder"):
        encode.embed_names(["new"])
