"""Losses, gradients and learning rates of training equal the authors'."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ramctl.checkpoints.official import official_targets
from ramctl.model.caption_tokenizer import IGNORED, CaptionTokenizer, clean_caption
from ramctl.model.captioning import CaptionInputs
from ramctl.model.preset import finetuning_preset, load_preset
from ramctl.training.losses import (
    Counts,
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    distillation_loss,
    ram_official,
)
from ramctl.training.trainer import learning_rate
from tests.parity.conftest import capture

pytestmark = pytest.mark.shared

LOSS = {"rtol": 1e-5, "atol": 1e-6}
GRADIENT = {"rtol": 1e-5, "atol": 1e-5}
NORM = 1e-5
STATE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def misc(parity):
    return json.loads((parity / "misc_expected.json").read_text("utf-8"))


def caption_inputs(recorded):
    """Inputs and targets of the captioning branch, made from the recorded captions and tags."""
    tokenizer = recorded.tokenizer()
    # The authors leave out the prompt, and as many of the caption's first tokens.
    without = CaptionTokenizer(tokenizer.tokenizer, replace(tokenizer.config, prompt=""))
    batch = without.encode_captions(recorded.facts["captions"])
    batch.targets[:, : len(tokenizer.prompt_ids)] = IGNORED
    names = recorded.facts.get("tag_list") or read_tag2text_names(recorded)
    multi_hot = recorded.io["parse_tag" if recorded.architecture == "ram" else "tag"]
    tags = [[names[i] for i in row.nonzero().flatten().tolist()] for row in multi_hot]
    ids, mask = tokenizer.encode_tags(tags)
    inputs = CaptionInputs(*map(torch.from_numpy, (ids, mask, batch.ids, batch.mask)))
    return inputs, torch.from_numpy(batch.targets)


def read_tag2text_names(recorded):
    path = recorded.parity.parent / "labels" / "ram" / "tag2text_ori_tag_list.txt"
    return path.read_text("utf-8").splitlines()


def train_pass(recorded):
    """The model's output, the sums and means of every loss, and the authors' total."""
    io, model = recorded.io, recorded.model
    captions, targets, texts = None, None, None
    if recorded.architecture == "ram-plus":
        texts = io["batch_text_embed"]
    else:
        captions, targets = caption_inputs(recorded)
    out = model(io["image"], captions=captions)
    sums = {"tag": asymmetric_loss(out.logits.total, io.get("image_tag", io.get("tag")))}
    counts = {"distill clip": float(len(io["image"]))}
    if captions is not None:
        sums["caption"] = caption_loss(out.caption_logits, targets)
        counts["caption"] = float((targets[:, 1:] != IGNORED).sum())
    if "clip_feature" in io:
        feature = out.encoded.photo.feature
        sums["distill clip"] = distillation_loss(feature, io["clip_feature"])
    if texts is not None:
        sums["alignment"] = alignment_loss(model.tag_logits(out.encoded, texts).total)
    means = {name: value / counts[name] for name, value in sums.items() if name in counts}
    total = ram_official(recorded.architecture, sums, Counts(counts, counts, 1, 1))
    return out, sums, means, total


def test_word_pieces_and_captioning_states_equal_the_authors(load_recorded):
    for architecture in ("ram", "tag2text"):
        recorded = load_recorded(architecture)
        inputs, targets = caption_inputs(recorded)
        io = recorded.io
        assert torch.equal(inputs.tag_ids, io["train.tag_encoder.input_ids"])
        assert torch.equal(inputs.tag_mask, io["train.tag_encoder.attention_mask"])
        assert torch.equal(inputs.caption_ids, io["train.text_decoder.input_ids"])
        assert torch.equal(inputs.caption_mask, io["train.text_decoder.attention_mask"])
        assert torch.equal(targets, io["train.text_decoder.labels"])
        model = recorded.model
        modules = {"tag_encoder.embeddings": model.captioning.tag_encoder.embedding}
        modules["text_decoder.hidden"] = model.captioning.decoder.layers[-1]
        for i in range(3):
            modules[f"tag_encoder.layer{i}"] = model.captioning.tag_encoder.layers[i]
            modules[f"text_decoder.layer{i}"] = model.captioning.decoder.layers[i]
        with capture(modules) as states:
            logits = model(io["image"], captions=inputs).caption_logits
        for name, state in states.items():
            torch.testing.assert_close(state, io[f"train.{name}"], **STATE, msg=name)
        torch.testing.assert_close(logits, io["train.text_decoder.logits"], **STATE)


def test_losses_equal_the_authors(recorded):
    out, sums, means, total = train_pass(recorded)
    io = recorded.io
    torch.testing.assert_close(sums["tag"], io["train.loss_tag"], **LOSS)
    torch.testing.assert_close(total, io["train.loss_total"], **LOSS)
    if "caption" in sums:
        torch.testing.assert_close(means["caption"], io["train.loss_t2t"], **LOSS)
    if "distill clip" in sums:
        torch.testing.assert_close(means["distill clip"], io["train.loss_dis"], **LOSS)
    if "alignment" in sums:
        torch.testing.assert_close(sums["alignment"], io["train.loss_alignment"], **LOSS)
        logits = recorded.model.tag_logits(out.encoded, io["batch_text_embed"]).total
        torch.testing.assert_close(logits, io["train.call2.logits"], **STATE)


def test_gradients_equal_the_authors(recorded):
    # In double precision: what is left is what the authors' own rounding makes.
    model = deepcopy(recorded.model).double()
    frozen = not model.labels.text.requires_grad
    model.labels.text.requires_grad_(True)  # recorded with unfrozen label embeddings
    given = {k: v.double() if v.is_floating_point() else v for k, v in recorded.io.items()}
    train_pass(replace(recorded, model=model, io=given))[-1].backward()
    targets = official_targets(model)
    if frozen:
        targets["label_embed"] = targets.pop("label_embed.weight")
    for key, expected in given.items():
        if key.startswith("train.grad."):
            gradient = targets[key.removeprefix("train.grad.")].grad
            torch.testing.assert_close(gradient.view_as(expected), expected, **GRADIENT, msg=key)
    for name, norm in recorded.facts["grad_norm_total_loss"].items():
        assert targets[name].grad.norm().item() == pytest.approx(norm, rel=NORM, abs=1e-5), name


def test_asymmetric_loss_equals_the_authors_values_and_gradients(misc):
    facts = misc["asymmetric_loss"]
    targets = torch.tensor(facts["targets"])
    for key, case in facts["cases(gamma_neg,gamma_pos,clip)"].items():
        gamma_neg, gamma_pos, clip = map(float, key.split(","))
        logits = torch.tensor(facts["logits"], requires_grad=True)
        options = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
        loss = asymmetric_loss(logits, targets, **options)
        loss.backward()
        torch.testing.assert_close(loss.detach(), torch.tensor(case["loss"]), **LOSS)
        torch.testing.assert_close(logits.grad, torch.tensor(case["grad"]), rtol=1e-4, atol=1e-6)


def test_captions_are_cleaned_as_the_authors_do(misc):
    for case in misc["pre_caption"]:
        assert clean_caption(case["in"]) == case["out_30"]


AN_EPOCH = 100_000


def test_learning_rates_equal_the_authors(misc):
    expected, preset = misc["lr"], load_preset("ram-swin-l")
    tuning = finetuning_preset(preset).training
    total = 5 * AN_EPOCH
    rates = [
        *((preset.training, int(step), total, rate)
          for step, rate in expected["warmup(step;3000,5e-7,1e-4)"].items()),
        *((preset.training, int(epoch) * AN_EPOCH + 5000, total, rate)  # past the warm-up
          for epoch, rate in expected["step(epoch;1e-4,5e-7,0.9)"].items()),
        *((tuning, int(epoch) * AN_EPOCH, 2 * AN_EPOCH, rate)
          for epoch, rate in expected["cosine(epoch;2,5e-6,0)"].items()),
    ]  # fmt: skip
    for training, step, total, rate in rates:
        assert learning_rate(training, step, total, AN_EPOCH) == pytest.approx(rate, rel=1e-6)
