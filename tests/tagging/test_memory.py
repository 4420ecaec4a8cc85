"""A batch that does not fit the device's memory is halved, told once, and gives the same scores."""

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem
from ramctl.inference.label_set import own_labels
from ramctl.inference.torch_predictor import TorchPredictor


@pytest.fixture
def predictor(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    return TorchPredictor(bundle, own_labels(bundle).rows, device="cpu", dtype="fp32", threads=1)


def limit(predictor, most, sizes):
    """Let the model raise what torch raises on a full GPU for more photos than `most`."""
    encoder = predictor.model.encoder.forward

    def encode(photos):
        sizes.append(len(photos))
        if len(photos) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoder(photos)

    predictor.model.encoder.forward = encode


def test_the_batch_is_halved_until_it_fits_and_stays_so(predictor):
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    expected = predictor.scores(photos)
    sizes, said = [], []
    limit(predictor, 3, sizes)
    predictor.say = said.append
    np.testing.assert_allclose(predictor.scores(photos), expected, atol=1e-6)
    np.testing.assert_allclose(predictor.scores(photos), expected, atol=1e-6)
    assert sizes == [8, 4, *[2] * 4, *[2] * 4]
    assert said == [
        "cpu: out of memory with 8 photos, going on with 4",
        "cpu: out of memory with 4 photos, going on with 2",
    ]


def test_a_photo_that_does_not_fit_alone_is_an_error(predictor):
    limit(predictor, 0, [])
    with pytest.raises(RunProblem, match="not enough memory for one photo"):
        predictor.scores(np.zeros((2, 3, 64, 64), np.float32))
