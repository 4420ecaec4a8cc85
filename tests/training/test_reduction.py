"""The authors' objective, and the labels of a pass, in the cases that other tests leave out."""

import math
from types import SimpleNamespace

import pytest
import torch

from ramctl.model.config import load_preset
from ramctl.training.objectives.base import SampledLabels
from ramctl.training.objectives.tagging import Tagging, asymmetric_loss, sample_labels
from ramctl.training.objectives.task import Counts, global_mean, ram_official


def official(objective, sums, own, passes=1):
    tensors = {name: torch.tensor(value) for name, value in sums.items()}
    return ram_official(objective, tensors, Counts(own, own, passes, 1)).item()


def test_the_authors_loss_is_a_mean_over_passes():
    sums, own = {"tag": 50.0, "caption": 4.0}, {"tag": 1.0, "caption": 1.0}
    assert official("ram", sums, own) == pytest.approx(8.0)
    assert official("ram", sums, own, passes=2) == pytest.approx(4.0)


def test_ram_plus_adds_the_alignment_and_the_teacher():
    sums = {"tag": 2.0, "alignment": 3.0, "distill clip": 10.0}
    own = {"tag": 2.0, "alignment": 2.0, "distill clip": 2.0}
    assert official("ram-plus", sums, own) == pytest.approx(2 + 3 + 10 / 2)
    assert official("ram-plus", {"tag": 2.0}, {"tag": 2.0, "alignment": 0.0}) == 2


@pytest.mark.parametrize(
    ("sums", "own", "expected"),
    [
        ({"tag": 0.0, "caption": 0.0}, {"tag": 0.0, "caption": 0.0}, 0.0),  # no photo
        ({"tag": 0.0}, {"tag": 0.0, "caption": 0.0}, 0.0),  # the stand-in for one
        ({"tag": 50.0}, {"tag": 2.0, "caption": 0.0}, 25.0),  # photos without captions
        ({"tag": 0.0, "caption": 6.0}, {"tag": 2.0, "caption": 3.0}, 2.0),
        ({"tag": 50.0, "caption": 0.0}, {"tag": 2.0, "caption": 3.0}, 0.0),
    ],
)
def test_the_ratio_of_losses_of_an_empty_pass_is_a_number(sums, own, expected):
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in sums.items()}
    total = ram_official("ram", tensors, Counts(own, own, 1, 2))
    total.backward()
    assert total.item() == expected
    assert all(torch.isfinite(t.grad).all() for t in tensors.values() if t.grad is not None)


def test_a_quarter_of_the_sampled_labels_is_absent_from_the_batch():
    targets = torch.zeros(2, 40, dtype=torch.bool)
    targets[0, :8] = True
    sampled = sample_labels(targets, 8, torch.Generator().manual_seed(0))
    assert sampled.ids[:8].tolist() == list(range(8))
    assert len(sampled.ids) == 10
    assert sampled.weights.tolist() == [1.0] * 8 + [16.0] * 2


def test_sampled_labels_weigh_for_those_left_out_and_unknown_ones_nothing():
    config = load_preset("tiny").training.losses
    targets, weights = torch.rand(3, 6) < 0.5, torch.rand(3, 6)
    sampled = SampledLabels(torch.tensor([4, 1]), torch.tensor([1.0, 5.0]))
    logits = torch.randn(3, 2)
    forward = SimpleNamespace(
        sampled=sampled,
        output=SimpleNamespace(tag_logits=logits),
        batch=SimpleNamespace(targets=targets, weights=weights),
    )
    assert not config.decouple_own
    found = Tagging(SimpleNamespace(), config, None).sums(None, forward)["tag"]
    expected = asymmetric_loss(
        logits, targets[:, [4, 1]], gamma_neg=config.gamma_neg, gamma_pos=config.gamma_pos,
        clip=config.clip, weights=weights[:, [4, 1]] * torch.tensor([1.0, 5.0]),
    )  # fmt: skip
    torch.testing.assert_close(found, expected)


def test_weight_one_at_the_authors_labels_weighs_tags_a_third_more_than_they_do_at_first():
    """A number of ramctl/training/README.md: scores of one half, five tags, every word alike."""
    logits = torch.zeros(2, 4585, requires_grad=True)
    tag = asymmetric_loss(logits, (torch.arange(4585) < 5).expand(2, -1))
    words = torch.full((7,), math.log(30524.0))
    sums, own = {"tag": tag, "caption": words.sum()}, {"tag": 2.0, "caption": 7.0}
    counts = Counts(own, own, 1, 1)
    ours = global_mean({"tag": 1.0, "caption": 1.0}, sums, counts)
    theirs = ram_official("ram", sums, counts)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(gradients[0], 1.326 * gradients[1], rtol=1e-3, atol=0)
