"""A model comes back from its bundle as it was."""

from dataclasses import replace

import pytest
import torch

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.checkpoints.load import load_caption_tokenizer, load_model, write_model
from ramctl.checkpoints.weights import load_weights, save_weights
from ramctl.errors import RunProblem
from ramctl.labels import LabelSystem
from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
from ramctl.model.config import finetuning_preset, load_preset
from ramctl.model.ram import RAM

TAGS = ["dog", "cat", "tree", "sky", "grass"]
SMALL_SWIN = [
    "model.encoder.width=64",
    "model.encoder.options.embed_dim=8",
    "model.encoder.options.depths=[1,1,2,1]",
    "model.encoder.options.num_heads=[1,1,2,2]",
    "model.encoder.window_size=3",
    "preprocess.size=96",
    "model.tag_decoder.width=24",
    "model.tag_decoder.ffn_width=24",
    "finetuning_size=160",
    "finetuning_window=5",
    "model.captioning=false",
]


def tiny():
    preset = load_preset("tiny")
    words = train_tokenizer(["a dog on the grass", "a cat in a tree"] * 3, 80)
    tokenizer = CaptionTokenizer(words, preset.model.captioning)
    model = RAM(preset.model, image_size=64, n_labels=5, vocabulary=len(tokenizer)).eval()
    model.labels.set_text(torch.randn(5, 32))
    return preset, model, tokenizer


def write(path, preset, model, tokenizer=None, half=False):
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model, tokenizer, half=half)
        LabelSystem.from_tags(TAGS).write(writer.path / "labels.jsonl")
    return Bundle.open(path, verify=True)


def test_a_model_comes_back_bit_for_bit(tmp_path):
    preset, model, tokenizer = tiny()
    bundle = write(tmp_path / "m", preset, model, tokenizer)
    photos = torch.randn(2, 3, 64, 64)
    again = load_model(bundle)
    with torch.no_grad():
        assert torch.equal(again(photos).tag_logits, model(photos).tag_logits)
    assert load_caption_tokenizer(bundle).prompt_ids == tokenizer.prompt_ids


def test_loading_draws_no_random_numbers(tmp_path):
    bundle = write(tmp_path / "m", *tiny())
    before = torch.get_rng_state()
    load_model(bundle)
    assert torch.equal(torch.get_rng_state(), before)


def test_products_in_bf16_are_those_that_autocast_makes(tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    bundle = write(tmp_path / "m", preset, RAM(preset.model, image_size=96, n_labels=5).eval())
    plain, stored = load_model(bundle), load_model(bundle, products=torch.bfloat16)
    sizes = [sum(p.nbytes for p in model.parameters()) for model in (plain, stored)]
    assert sizes[1] < 0.6 * sizes[0]
    photos = torch.randn(2, 3, 96, 96)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = plain(photos, plain.prepare_labels(plain.labels())).tag_logits
        logits = stored(photos, stored.prepare_labels(stored.labels())).tag_logits
    assert torch.equal(logits, expected)


def test_half_weights_keep_vectors_whole_and_logits_close(tmp_path):
    preset, model, tokenizer = tiny()
    bundle = write(tmp_path / "m", preset, model, tokenizer, half=True)
    stored = bundle.tensors()
    assert stored["tag_decoder.layers.0.feed_forward.expand.weight"].dtype == "float16"
    assert stored["tag_decoder.layers.0.feed_forward.expand.bias"].dtype == "float32"
    photos = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(bundle)(photos).tag_logits, model(photos).tag_logits, atol=2e-2, rtol=0
        )


def test_tagging_neither_builds_nor_reads_the_captioning_branch(tmp_path):
    preset, model, tokenizer = tiny()
    bundle = write(tmp_path / "m", preset, model, tokenizer)
    tagger = load_model(bundle, captioning=False)
    assert tagger.captioning is None
    photos = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(tagger(photos).tag_logits, model(photos).tag_logits)


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    preset = load_preset("tiny", ["model.captioning.tie_tag_decoder=true"])
    model = RAM(preset.model, image_size=64, n_labels=5, vocabulary=40).eval()
    bundle = write(tmp_path / "m", preset, model)
    names = bundle.tensors()
    assert "captioning.tag_encoder.layers.0.cross_attention.query.weight" not in names
    again = load_model(bundle)
    tied = again.captioning.tag_encoder.layers[0].cross_attention
    assert tied is again.tag_decoder.layers[0].cross_attention


def test_fine_tuning_resizes_swin_to_its_window(tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    model = RAM(preset.model, image_size=96, n_labels=5).eval()
    bundle = write(tmp_path / "m", preset, model)
    larger = load_model(bundle, preset=finetuning_preset(preset))
    with torch.no_grad():
        assert larger.encoder(torch.randn(1, 3, 160, 160)).shape == (1, 1 + 25, 64)
    with pytest.raises(RunProblem, match="relative_position_bias_table has shape"):
        load_weights(larger, bundle.path / "model.safetensors")


def test_weights_that_do_not_fit_are_an_error_that_names_them(tmp_path):
    preset, model, _ = tiny()
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    wider = replace(preset.model.tag_decoder, ffn_width=65)
    other = RAM(
        replace(preset.model, tag_decoder=wider, prior=None, labels=replace(
            preset.model.labels, own_width=0)), image_size=64, n_labels=5, vocabulary=9
    )  # fmt: skip
    with pytest.raises(RunProblem, match=r"unknown .*prior"):
        load_weights(other, path)
    path.write_bytes(b"nothing")
    with pytest.raises(RunProblem, match="cannot read the weights"):
        load_weights(model, path)
