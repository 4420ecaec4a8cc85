"""A model comes back from its bundle as it was; folded batch norms change rounding only."""

import pytest
import timm
import torch
from torch import nn

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.checkpoints.load import fold_batchnorms, load_caption_tokenizer, load_model, write_model
from ramctl.checkpoints.weights import load_weights, save_weights
from ramctl.errors import RunProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
from ramctl.model.preset import finetuning_preset, load_preset
from ramctl.records.labels import Labels

TAGS = ["dog", "cat", "tree", "sky", "grass"]
SMALL_SWIN = [
    "model.encoder.width=64", "model.encoder.options.embed_dim=8",
    "model.encoder.options.depths=[1,1,2,1]", "model.encoder.options.num_heads=[1,1,2,2]",
    "model.encoder.window_size=3", "preprocess.size=96", "model.tag_decoder.width=24",
    "model.tag_decoder.ffn_width=24", "finetuning_size=160", "finetuning_window=5",
    "model.captioning=false",
]  # fmt: skip


def tiny():
    preset = load_preset("tiny")
    words = train_tokenizer(["a dog on the grass", "a cat in a tree"] * 3, 80)
    tokenizer = CaptionTokenizer(words, preset.model.captioning)
    model = build_ram(preset.model, image_size=64, n_labels=5, vocabulary=len(tokenizer)).eval()
    model.labels.set_text(torch.randn(5, 32))
    return preset, model, tokenizer


def write(path, preset, model, tokenizer=None, half=False):
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model, tokenizer, half=half)
        Labels.from_tags(TAGS).write(writer.path / "labels.jsonl")
    return Bundle.open(path)


def test_a_model_comes_back_bit_for_bit_with_or_without_captioning(tmp_path):
    preset, model, tokenizer = tiny()
    bundle = write(tmp_path / "m", preset, model, tokenizer)
    photos, before = torch.randn(2, 3, 64, 64), torch.get_rng_state()
    again, tagger = load_model(bundle), load_model(bundle, captioning=False)
    assert torch.equal(torch.get_rng_state(), before)  # no random numbers were drawn
    assert tagger.captioning is None
    with torch.no_grad():
        for loaded in (again, tagger):
            assert torch.equal(loaded(photos).logits.total, model(photos).logits.total)
    assert load_caption_tokenizer(bundle).prompt_ids == tokenizer.prompt_ids


def test_products_in_bf16_are_those_that_autocast_makes(tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    bundle = write(
        tmp_path / "m", preset, build_ram(preset.model, image_size=96, n_labels=5).eval()
    )
    plain, stored = load_model(bundle), load_model(bundle, products=torch.bfloat16)
    sizes = [sum(p.nbytes for p in model.parameters()) for model in (plain, stored)]
    assert sizes[1] < 0.6 * sizes[0]
    photos = torch.randn(2, 3, 96, 96)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = plain(photos, plain.prepare_labels(plain.labels())).logits.total
        logits = stored(photos, stored.prepare_labels(stored.labels())).logits.total
    assert torch.equal(logits, expected)


def test_half_weights_keep_vectors_whole_and_logits_close(tmp_path):
    preset, model, tokenizer = tiny()
    bundle = write(tmp_path / "m", preset, model, tokenizer, half=True)
    stored = bundle.tensors()
    assert stored["tag_decoder.layers.0.feed_forward.expand.weight"].dtype == "float16"
    assert stored["tag_decoder.layers.0.feed_forward.expand.bias"].dtype == "float32"
    photos = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, expected = (m(photos).logits.total for m in (load_model(bundle), model))
    torch.testing.assert_close(logits, expected, atol=2e-2, rtol=0)


def test_fine_tuning_resizes_swin_to_its_window(tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    model = build_ram(preset.model, image_size=96, n_labels=5).eval()
    bundle = write(tmp_path / "m", preset, model)
    larger = load_model(bundle, preset=finetuning_preset(preset))
    with torch.no_grad():
        assert larger.encoder(torch.randn(1, 3, 160, 160)).shape == (1, 1 + 25, 64)
    with pytest.raises(RunProblem, match="relative_position_bias_table has shape"):
        load_weights(larger, bundle.path / "model.safetensors")


def test_weights_that_do_not_fit_are_an_error_that_names_them(tmp_path):
    _, model, _ = tiny()
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    changes = ["model.tag_decoder.ffn_width=65", "model.prior=false", "model.labels.own_width=0"]
    other = build_ram(load_preset("tiny", changes).model, image_size=64, n_labels=5, vocabulary=9)
    with pytest.raises(RunProblem, match=r"unknown .*prior"):
        load_weights(other, path)
    path.write_bytes(b"nothing")
    with pytest.raises(RunProblem, match="cannot read the weights"):
        load_weights(model, path)


def settled(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.weight.data, module.bias.data):
                values.copy_(torch.randn(values.shape, generator=generator) * 0.3 + 1)
            module.running_var.copy_(
                torch.rand(module.running_var.shape, generator=generator) + 0.5
            )
    return model.eval()


def test_an_efficientnet_gives_the_same_without_its_batch_norms():
    torch.manual_seed(0)
    model = settled(timm.create_model("test_efficientnet", num_classes=7))
    photos = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(photos)
        assert fold_batchnorms(model, photos) > 10
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
        torch.testing.assert_close(model(photos), before, rtol=1e-4, atol=1e-4)
