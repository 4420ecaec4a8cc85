"""Learning rates equal the authors', by step in the warm-up and by epoch afterwards."""

import json

import pytest

from ramctl.model.config import finetuning_preset, load_preset
from ramctl.training.optimiser import learning_rate

pytestmark = pytest.mark.shared

AN_EPOCH = 100_000


@pytest.fixture(scope="module")
def expected(parity):
    return json.loads((parity / "misc_expected.json").read_text("utf-8"))["lr"]


def test_warm_up_and_decay_of_training_equal_the_authors(expected):
    training = load_preset("ram-swin-l").training
    total = 5 * AN_EPOCH
    for step, lr in expected["warmup(step;3000,5e-7,1e-4)"].items():
        assert learning_rate(training, int(step), total, AN_EPOCH) == pytest.approx(lr, rel=1e-6)
    for epoch, lr in expected["step(epoch;1e-4,5e-7,0.9)"].items():
        step = int(epoch) * AN_EPOCH + 5000  # past the warm-up
        assert learning_rate(training, step, total, AN_EPOCH) == pytest.approx(lr, rel=1e-6)


def test_cosine_of_fine_tuning_equals_the_authors(expected):
    training = finetuning_preset(load_preset("ram-swin-l")).training
    for epoch, lr in expected["cosine(epoch;2,5e-6,0)"].items():
        step = int(epoch) * AN_EPOCH
        rate = learning_rate(training, step, 2 * AN_EPOCH, AN_EPOCH)
        assert rate == pytest.approx(lr, rel=1e-6)
