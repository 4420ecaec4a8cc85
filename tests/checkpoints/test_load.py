"""Weights: out of a bundle as they were, and out of files of other projects."""

import argparse

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.checkpoints.load import fold_batchnorms, load_caption_tokenizer, load_model, write_model
from ramctl.checkpoints.transformers_folder import fingerprint
from ramctl.checkpoints.weights import load_weights, read_checkpoint, tensors_of
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


def write(path, preset, model, tokenizer=None, **options):
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model, tokenizer, **options)
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
    halves = write(tmp_path / "half", preset, model, tokenizer, half=True)
    assert {(value.ndim > 1, str(value.dtype)) for value in halves.tensors().values()} >= {
        (True, "float16"), (False, "float32"),
    }  # fmt: skip


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


def test_fine_tuning_resizes_swin_to_its_window(tmp_path):
    preset = load_preset("ram-swin-b", SMALL_SWIN)
    model = build_ram(preset.model, image_size=96, n_labels=5).eval()
    bundle = write(tmp_path / "m", preset, model)
    larger = load_model(bundle, preset=finetuning_preset(preset))
    with torch.no_grad():
        assert larger.encoder(torch.randn(1, 3, 160, 160)).shape == (1, 1 + 25, 64)
    with pytest.raises(RunProblem, match="relative_position_bias_table has shape"):
        load_weights(larger, bundle.path / "model.safetensors")


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


WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    ("content", "zipped"),
    [
        (WEIGHTS, True),
        ({"model": WEIGHTS, "epoch": 3}, False),
        ({"state_dict": WEIGHTS}, True),
        ({"model": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}}, False),
    ],
)
def test_weights_are_found_in_both_of_torchs_formats(tmp_path, content, zipped, recwarn):
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors = tensors_of(read_checkpoint(tmp_path / "x.pth"))
    assert tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in WEIGHTS.items())
    assert not recwarn.list


def test_safetensors_are_read_by_their_name(tmp_path):
    save_file(WEIGHTS, tmp_path / "y.safetensors")
    assert read_checkpoint(tmp_path / "y.safetensors").keys() == WEIGHTS.keys()
    torch.save(WEIGHTS, tmp_path / "x.safetensors")
    with pytest.raises(RunProblem, match="not a checkpoint of torch's or safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def cut(save):
    def write(path):
        save(path)
        path.write_bytes(path.read_bytes()[:-40])

    return write


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


NONE = "not a checkpoint of torch's or safetensors, or damaged"
WRONG = {
    "page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<html>"), NONE),
    "cut zip": (cut(lambda p: torch.save(WEIGHTS, p)), NONE),
    "cut safetensors": (cut(lambda p: save_file(WEIGHTS, p)), NONE),
    "arguments": (
        lambda p: torch.save({"model": WEIGHTS, "args": argparse.Namespace()}, p),
        r"refused, .+ \(argparse.Namespace\)",
    ),
    "module, old format": (
        lambda p: save_old(torch.nn.Linear(2, 2), p),
        r"refused, .+ \(torch.nn.modules.linear.Linear\)",
    ),
    "list": (lambda p: torch.save([1, 2], p), NONE),
    "folder": (lambda p: p.mkdir(), "cannot read the checkpoint: .*Is a directory"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_no_checkpoint_is_said_in_one_plain_line(tmp_path, name):
    write, expected = WRONG[name]
    write(tmp_path / "x.pth")
    with pytest.raises(RunProblem, match=expected) as caught:
        read_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x.pth'}: ")
    assert message.isprintable()  # one line, and no colours of torch's


def test_a_folder_s_fingerprint_is_that_of_its_content_and_not_of_its_card(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    before = fingerprint([tmp_path])
    (tmp_path / "README.md").write_text("a card")
    assert fingerprint([tmp_path]) == before != fingerprint([tmp_path], "other facts")
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert fingerprint([tmp_path]) != before
