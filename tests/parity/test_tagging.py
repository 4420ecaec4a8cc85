"""Prepared photos, hidden states, tag logits and decisions equal the authors'."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.checkpoints.weights import resize_table
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import load_preset
from tests.parity.conftest import capture

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def expected(parity):
    return np.load(parity / "preproc_expected.npz")


def preprocess(size):
    return Preprocess(dataclasses.replace(load_preset("ram-swin-l").preprocess, size=size))


@pytest.mark.parametrize("name", ["rgb_50x37", "rgba_220x130", "gray_500x410"])
def test_photo_is_prepared_as_the_authors_do(parity, expected, name):
    photo = Image.open(parity / f"preproc_{name}.png")
    pixels = preprocess(384).resize(photo)
    channels = expected[f"{name}.resized384_uint8"].shape[-1]
    assert np.array_equal(pixels[..., :channels], expected[f"{name}.resized384_uint8"])
    large, small = preprocess(384)(photo), preprocess(96)(photo)
    crop = large[:, 100:164, 200:264]
    np.testing.assert_allclose(crop, expected[f"{name}.tensor384_crop"], atol=1e-6)
    np.testing.assert_allclose(small, expected[f"{name}.tensor96"], atol=1e-6)
    statistics = np.stack([large.mean((1, 2)), large.std((1, 2)), large.sum((1, 2))], 1)
    facts = expected[f"{name}.tensor384_mean_std_sum"]
    np.testing.assert_allclose(statistics[:, :2], facts[:, :2], atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [("src_7", "dst_12"), ("src_12", "dst_7")])
def test_relative_position_tables_are_resized_as_beit_does(parity, source, target):
    tables = np.load(parity / "relpos_interp_expected.npz")
    resized = resize_table(torch.from_numpy(tables[source]), len(tables[target]))
    np.testing.assert_allclose(resized.numpy(), tables[target], atol=1e-5)


# float64 differs from the recorded float32 by up to 2e-5.
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def run(recorded):
    with torch.no_grad():
        return recorded.model(recorded.io["image"])


def test_tag_logits_equal_the_authors_at_once_and_in_pieces(recorded, monkeypatch):
    expected = recorded.io["eval.logits"]
    torch.testing.assert_close(run(recorded).logits.total, expected, **TOLERANCE)
    monkeypatch.setattr("ramctl.model.ram.ROWS_AT_ONCE", 3 * 10)
    torch.testing.assert_close(run(recorded).logits.total, expected, **TOLERANCE)


@pytest.mark.parametrize(("architecture", "shape"), [("ram", (7, 512)), ("ram-plus", (6, 5, 512))])
def test_open_set_labels_equal_the_authors(load_recorded, architecture, shape):
    recorded = load_recorded(architecture)
    rows = recorded.io["openset.label_embed"].view(shape)  # RAM++: five descriptions a tag
    with torch.no_grad():
        logits = recorded.model.tag_logits(run(recorded).encoded, rows).total
    torch.testing.assert_close(logits, recorded.io["openset.logits"], **TOLERANCE)


def test_encoder_states_equal_the_authors(recorded):
    backbone = recorded.model.encoder.backbone
    # timm merges patches at the start of a stage, the recorded stage ends with it.
    places = {
        "patch_embed": backbone.patch_embed,
        "stage0": backbone.layers[1].downsample,
        "stage1": backbone.layers[2].downsample,
        "stage2": backbone.layers[3].downsample,
        "stage3": backbone.layers[3],
    }
    with capture(places) as states:
        run(recorded)
    for name, state in states.items():
        expected = recorded.io[f"eval.swin.{name}"]
        torch.testing.assert_close(state.flatten(1, 2), expected, **TOLERANCE)
    with torch.no_grad():
        out = recorded.model.encoder(recorded.io["image"])
    torch.testing.assert_close(out, recorded.io["eval.swin.out"], **TOLERANCE)


def test_tag_decoder_states_equal_the_authors(recorded, monkeypatch):
    monkeypatch.setattr("ramctl.model.ram.ROWS_AT_ONCE", 100_000)
    layers = recorded.model.tag_decoder.layers
    with capture({"layer0": layers[0], "layer1": layers[1]}) as states:
        run(recorded)
    for name, state in states.items():
        key = f"eval.tagging_head.{name}"
        if key in recorded.io:
            torch.testing.assert_close(state, recorded.io[key], **TOLERANCE)
        else:
            sparse = recorded.io[f"{key}_every200th"]
            torch.testing.assert_close(state[:, ::200], sparse, **TOLERANCE)


def test_projected_tokens_and_queries_equal_the_authors(load_recorded):
    ram = load_recorded("ram")
    encoded = run(ram).encoded
    torch.testing.assert_close(encoded.tokens, ram.io["eval.image_embeds"], **TOLERANCE)
    with torch.no_grad():
        queries = ram.model.label_queries(ram.model.labels.text)
    torch.testing.assert_close(queries, ram.io["eval.label_query"], **TOLERANCE)


def test_description_weights_equal_the_authors(load_recorded):
    ram_plus = load_recorded("ram-plus")
    model, feature = ram_plus.model, run(ram_plus).encoded.photo.feature
    with torch.no_grad():
        weights = model.weighting.weights(model.labels(), None, feature)
        mixed = model.weighting(model.labels(), None, feature)
    torch.testing.assert_close(weights, ram_plus.io["eval.description_weights"], **TOLERANCE)
    torch.testing.assert_close(mixed, ram_plus.io["eval.label_embed_reweight"], **TOLERANCE)
