"""Every loss against an independent slow formula, and its mean over any split of the batch."""

import math
from types import SimpleNamespace

import pytest
import torch

from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.preset import load_preset
from ramctl.model.ram import TagLogits
from ramctl.training.losses import (
    Counts,
    SampledLabels,
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    distillation_loss,
    global_mean,
    ram_official,
    tag_sums,
)


def slow_asymmetric(logits, targets, gamma_neg, gamma_pos, clip, weights=None):
    total = 0.0
    for i, row in enumerate(logits.tolist()):
        for j, x in enumerate(row):
            p = 1 / (1 + math.exp(-x))
            q = min(1 - p + clip, 1)
            if targets[i, j]:
                term = -math.log(max(p, 1e-8)) * (1 - p) ** gamma_pos
            else:
                term = -math.log(max(q, 1e-8)) * (1 - q) ** gamma_neg
            total += term * (1 if weights is None else float(weights[i, j]))
    return total


@pytest.mark.parametrize("options", [(7, 0, 0.05), (4, 1, 0.05), (2, 0, 0.0), (0, 0, 0.0)])
def test_asymmetric_loss_equals_the_slow_formula(options):
    torch.manual_seed(0)  # single precision has too few digits for some draws
    logits, targets = torch.randn(4, 9) * 3, torch.rand(4, 9) < 0.3
    gamma_neg, gamma_pos, clip = options
    for w in (None, torch.rand(4, 9)):
        loss = asymmetric_loss(
            logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip, weights=w
        )
        slow = slow_asymmetric(logits, targets, gamma_neg, gamma_pos, clip, w)
        assert loss.item() == pytest.approx(slow, rel=1e-5)


def test_the_focusing_weight_has_no_gradient():
    logits, targets = torch.tensor([[1.0]], requires_grad=True), torch.zeros(1, 1)
    asymmetric_loss(logits, targets, gamma_neg=2, clip=0.0).backward()
    p = logits.sigmoid().item()
    # d/dx of -log(1 - p) is p; the weight p^2 is a constant.
    assert logits.grad.item() == pytest.approx(p * p**2, rel=1e-5)


def test_a_negative_below_the_margin_costs_and_teaches_nothing():
    logits = torch.tensor([[-4.0, 2.0]], requires_grad=True)
    asymmetric_loss(logits, torch.zeros(1, 2)).backward()
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


def slow_caption(logits, targets, smoothing):
    total = 0.0
    for b in range(len(targets)):
        for s in range(targets.shape[1] - 1):
            target = int(targets[b, s + 1])
            if target == IGNORED:
                continue
            log_p = logits[b, s].double().log_softmax(-1)
            right, mean = log_p[target].item(), log_p.mean().item()
            total -= (1 - smoothing) * right + smoothing * mean
    return total


def test_caption_loss_equals_the_slow_formula():
    logits = torch.randn(3, 6, 11)
    targets = torch.randint(0, 11, (3, 6))
    targets[:, 0] = IGNORED
    targets[1, 3:] = IGNORED
    total = slow_caption(logits, targets, 0.1)
    assert caption_loss(logits, targets, smoothing=0.1).item() == pytest.approx(total, rel=1e-5)
    assert caption_loss(logits, torch.full((3, 6), IGNORED)).item() == 0  # nothing is learnt


def test_distillation_losses_equal_their_formulas_and_do_not_teach_the_teacher():
    feature, teacher = torch.randn(2, 3, 8, requires_grad=True).unbind()
    loss = distillation_loss(feature, teacher)
    taught = torch.autograd.grad(loss, (feature, teacher), allow_unused=True)
    assert [gradient is not None for gradient in taught] == [True, False]
    l1 = sum(abs(a - b) for a, b in zip(feature.flatten(), teacher.flatten(), strict=True)) / 8
    assert loss.item() == pytest.approx(l1.item(), rel=1e-5)
    cosines = [
        (a @ b / (a.norm() * b.norm())).item() for a, b in zip(feature, teacher, strict=True)
    ]
    whole = distillation_loss(feature, teacher, kind="cosine")
    assert whole.item() == pytest.approx(3 - sum(cosines), rel=1e-5)
    part = distillation_loss(
        feature, teacher, kind="cosine", present=torch.tensor([True, False, True])
    )
    assert part.item() == pytest.approx(2 - (cosines[0] + cosines[2]), rel=1e-5)


def test_alignment_takes_the_diagonal_as_positive_and_skips_equal_texts():
    logits = torch.randn(3, 3)
    eye = torch.eye(3, dtype=torch.bool)
    plain = slow_asymmetric(logits, eye, 4, 0, 0.05)
    assert alignment_loss(logits).item() == pytest.approx(plain, rel=1e-5)
    same = eye.clone()
    same[0, 2] = same[2, 0] = True
    weights = torch.ones(3, 3)
    weights[0, 2] = weights[2, 0] = 0
    skipped = slow_asymmetric(logits, eye, 4, 0, 0.05, weights)
    assert alignment_loss(logits, same).item() == pytest.approx(skipped, rel=1e-5)


def counts_of(step: dict, own: dict | None = None, passes: int = 1, processes: int = 1) -> Counts:
    return Counts(own or step, step, passes, processes)


def test_the_loss_is_the_weighted_sum_of_global_means():
    sums = {"tag": torch.tensor(6.0), "caption": torch.tensor(8.0)}
    step = {"tag": 2.0, "caption": 4.0}
    weights = {"tag": 1.0, "caption": 0.5}
    assert global_mean(weights, sums, counts_of(step, {"tag": 1.0, "caption": 1.0})).item() == 4.0
    # Gradients are averaged over the processes, these means are global already.
    assert global_mean(weights, sums, counts_of(step, processes=2)).item() == 8.0


@pytest.mark.parametrize(
    ("objective", "sums", "own", "expected"),
    [
        ("ram", {"tag": 0.0, "caption": 0.0}, {"tag": 0.0, "caption": 0.0}, 0.0),  # no photo
        ("ram", {"tag": 0.0}, {"tag": 0.0, "caption": 0.0}, 0.0),  # the stand-in for one
        ("ram", {"tag": 50.0}, {"tag": 2.0, "caption": 0.0}, 25.0),  # photos without captions
        ("ram", {"tag": 0.0, "caption": 6.0}, {"tag": 2.0, "caption": 3.0}, 2.0),
        ("ram", {"tag": 50.0, "caption": 0.0}, {"tag": 2.0, "caption": 3.0}, 0.0),
        ("ram-plus", {"tag": 2.0}, {"tag": 2.0, "alignment": 0.0}, 2.0),
        ("ram-plus", {"tag": 2.0, "alignment": 3.0, "distill clip": 10.0},
         {"tag": 2.0, "alignment": 2.0, "distill clip": 2.0}, 2.0 + 3.0 + 10.0 / 2),
    ],
)  # fmt: skip
def test_the_authors_loss_is_a_number_where_a_pass_is_empty_and_adds_what_ram_plus_has(
    objective, sums, own, expected
):
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in sums.items()}
    total = ram_official(objective, tensors, Counts(own, own, 1, 2))
    total.backward()
    assert total.item() == expected
    assert all(torch.isfinite(t.grad).all() for t in tensors.values() if t.grad is not None)


def test_sampled_labels_weigh_for_those_left_out_and_unknown_ones_nothing():
    config = load_preset("tiny").training
    targets, weights = torch.rand(3, 6) < 0.5, torch.rand(3, 6)
    sampled = SampledLabels(torch.tensor([4, 1]), torch.tensor([1.0, 5.0]))
    logits = torch.randn(3, 2)
    batch = SimpleNamespace(targets=targets, weights=weights)
    assert not config.decouple_own
    found = tag_sums(config, TagLogits(logits, 0.0), batch, sampled)["tag"]
    expected = asymmetric_loss(
        logits, targets[:, [4, 1]], gamma_neg=config.gamma_neg,
        clip=config.clip, weights=weights[:, [4, 1]] * torch.tensor([1.0, 5.0]),
    )  # fmt: skip
    torch.testing.assert_close(found, expected)


def test_weight_one_at_the_authors_labels_weighs_tags_a_third_more_than_they_do_at_first():
    """A number of ramctl/training/README.md: scores of one half, five tags, every word alike."""
    logits = torch.zeros(2, 4585, requires_grad=True)
    tag = asymmetric_loss(logits, (torch.arange(4585) < 5).expand(2, -1))
    words = torch.full((7,), math.log(30524.0))
    sums, own = {"tag": tag, "caption": words.sum()}, {"tag": 2.0, "caption": 7.0}
    ours = global_mean({"tag": 1.0, "caption": 1.0}, sums, counts_of(own))
    theirs = ram_official("ram", sums, counts_of(own))
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(gradients[0], 1.326 * gradients[1], rtol=1e-3, atol=0)
