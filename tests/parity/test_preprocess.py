"""Preprocessing and relative-position tables equal the authors'."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.checkpoints.weights import resize_table
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import load_preset

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
