"""A batch that does not fit the device's memory is halved, told once, and gives the same scores."""

import numpy as np
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.device import Runtime
from ramctl.errors import RunProblem
from ramctl.inference.label_set import own_labels
from ramctl.inference.torch_engine import TorchEngine


@pytest.fixture
def engine(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    return TorchEngine.open(bundle, Runtime.choose("cpu"), rows=own_labels(bundle).rows, fold=True)


def limit(engine, most, sizes):
    """Let the model raise what torch raises on a full GPU for more photos than `most`."""
    encoder = engine.model.encoder.forward

    def encode(photos):
        sizes.append(len(photos))
        if len(photos) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoder(photos)

    engine.model.encoder.forward = encode


def test_the_batch_is_halved_until_it_fits_and_stays_so(engine):
    photos = np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32)
    expected = engine.scores(photos)
    sizes, said = [], []
    limit(engine, 3, sizes)
    engine.say = said.append
    np.testing.assert_allclose(engine.scores(photos), expected, atol=1e-6)
    np.testing.assert_allclose(engine.scores(photos), expected, atol=1e-6)
    assert sizes == [8, 4, *[2] * 4, *[2] * 4]
    assert said == [
        "cpu: out of memory with 8 photos, going on with 4",
        "cpu: out of memory with 4 photos, going on with 2",
    ]


def test_a_photo_that_does_not_fit_alone_is_an_error(engine):
    limit(engine, 0, [])
    with pytest.raises(RunProblem, match="not enough memory for one photo"):
        engine.scores(np.zeros((2, 3, 64, 64), np.float32))
