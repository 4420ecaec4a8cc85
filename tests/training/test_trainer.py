"""The learning rate of every step and the groups of parameters, by hand."""

import math

import pytest
from torch import nn

from ramctl.model.preset import load_preset
from ramctl.training.trainer import build_optimiser, learning_rate


def config_of(*overrides):
    return load_preset("tiny", [f"training.{text}" for text in overrides]).training


def test_the_cosine_falls_from_the_peak_after_the_warm_up_to_the_floor():
    config = config_of("lr=1e-2", "min_lr=1e-4", "warmup_steps=20", "warmup_lr=1e-5")
    rates = [learning_rate(config, step, 1000, 50) for step in range(1001)]
    quarter = 1e-4 + (1e-2 - 1e-4) * (1 + math.cos(math.pi / 4)) / 2
    assert rates[20] == max(rates)
    assert [rates[step] for step in (0, 20, 265, 1000)] == pytest.approx(
        [1e-5, 1e-2, quarter, 1e-4]
    )


@pytest.mark.parametrize(
    ("schedule", "changes", "total", "expected"),
    [
        # The authors' change once an epoch.
        ("epoch-decay", ("lr=1e-4", "decay=0.9", "min_lr=0", "warmup_steps=0"), 50,
         {0: 1e-4, 9: 1e-4, 10: 9e-5, 40: 1e-4 * 0.9**4}),
        ("epoch-decay", ("lr=1e-4", "decay=0.5", "min_lr=3e-5", "warmup_steps=0"), 50,
         {0: 1e-4, 10: 5e-5, 20: 3e-5, 30: 3e-5}),
        ("epoch-cosine", ("lr=5e-6", "min_lr=0", "warmup_steps=0"), 50,
         {0: 5e-6, 25: 3.27254e-6}),
        # The warm-up rises in a line from a rate of its own, and takes at most a tenth of a run.
        ("cosine", ("lr=1e-2", "warmup_lr=2e-3", "warmup_steps=4"), 1000,
         {0: 2e-3, 1: 4e-3, 2: 6e-3, 3: 8e-3, 4: 1e-2}),
        ("cosine", ("lr=1e-2", "warmup_lr=0", "warmup_steps=100"), 40,
         {0: 0.0, 2: 5e-3, 4: 1e-2}),
    ],
)  # fmt: skip
def test_the_rate_of_a_step_by_schedule(schedule, changes, total, expected):
    config = config_of(f"schedule='{schedule}'", *changes)
    found = {step: learning_rate(config, step, total, 10) for step in expected}
    assert found == pytest.approx(expected)


class Small(nn.Module):
    """An encoder, an embedding, a linear map and a frozen one."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.words = nn.Embedding(3, 2)
        self.map = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_groups_have_their_decay_and_their_share_of_the_rate():
    model = Small()
    config = config_of("backbone_lr_factor=0.1", "weight_decay=0.05", "no_decay=true", "lr=1e-2")
    optimiser = build_optimiser(model, config)
    found = {
        id(p): (group["weight_decay"], 1e-2 * group["scale"])
        for group in optimiser.param_groups
        for p in group["params"]
    }
    assert found[id(model.encoder.weight)] == (0.05, pytest.approx(1e-3))
    assert found[id(model.encoder.bias)] == (0.0, pytest.approx(1e-3))
    assert found[id(model.words.weight)] == (0.0, 1e-2)
    assert found[id(model.map.weight)] == (0.05, 1e-2)
    assert len(found) == 5  # nothing frozen
