"""Every loss against an independent slow formula, and its mean over any split of the batch."""

import math

import pytest
import torch

from ramctl.model.caption_tokenizer import IGNORED
from ramctl.training.objectives.captioning import caption_loss
from ramctl.training.objectives.distillation import distillation_loss
from ramctl.training.objectives.tagging import alignment_loss, asymmetric_loss
from ramctl.training.objectives.task import Counts, global_mean, ram_official


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
    logits, targets = torch.randn(4, 9) * 3, torch.rand(4, 9) < 0.3
    weights = torch.rand(4, 9)
    gamma_neg, gamma_pos, clip = options
    for w in (None, weights):
        loss = asymmetric_loss(
            logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip, weights=w
        )
        slow = slow_asymmetric(logits, targets, gamma_neg, gamma_pos, clip, w)
        assert loss.item() == pytest.approx(slow, rel=1e-5)


def test_without_focusing_and_margin_it_is_binary_cross_entropy():
    logits, targets = torch.randn(4, 9), (torch.rand(4, 9) < 0.3).float()
    loss = asymmetric_loss(logits, targets, gamma_neg=0, gamma_pos=0, clip=0)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, targets, reduction="sum"
    )
    torch.testing.assert_close(loss, expected)


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


def test_sampled_labels_with_inverse_probabilities_are_unbiased():
    logits, targets = torch.randn(2, 40), torch.rand(2, 40) < 0.1
    full = asymmetric_loss(logits, targets)
    draws = []
    for seed in range(2000):
        kept = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < 0.25
        weights = kept.float() / 0.25
        draws.append(asymmetric_loss(logits, targets, weights=weights))
    draws = torch.stack(draws)
    assert abs(draws.mean() - full) < 4 * draws.std() / math.sqrt(len(draws))


def test_weights_hide_labels_of_unknown_truth():
    logits, targets = torch.randn(2, 5), torch.zeros(2, 5)
    weights = torch.tensor([1.0, 1, 0, 1, 1])
    known = [0, 1, 3, 4]
    torch.testing.assert_close(
        asymmetric_loss(logits, targets, weights=weights),
        asymmetric_loss(logits[:, known], targets[:, known]),
    )


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


def test_a_batch_without_learnt_word_pieces_costs_nothing():
    assert caption_loss(torch.randn(2, 3, 5), torch.full((2, 3), IGNORED)).item() == 0


def test_distillation_losses_equal_their_formulas():
    feature, teacher = torch.randn(3, 8), torch.randn(3, 8)
    l1 = sum(abs(a - b) for a, b in zip(feature.flatten(), teacher.flatten(), strict=True)) / 8
    assert distillation_loss(feature, teacher).item() == pytest.approx(l1.item(), rel=1e-5)
    cosines = [
        (a @ b / (a.norm() * b.norm())).item() for a, b in zip(feature, teacher, strict=True)
    ]
    whole = distillation_loss(feature, teacher, kind="cosine")
    assert whole.item() == pytest.approx(3 - sum(cosines), rel=1e-5)
    part = distillation_loss(
        feature, teacher, kind="cosine", present=torch.tensor([True, False, True])
    )
    assert part.item() == pytest.approx(2 - (cosines[0] + cosines[2]), rel=1e-5)


def test_distillation_does_not_teach_the_teacher():
    feature, teacher = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    distillation_loss(feature, teacher).backward()
    assert feature.grad is not None
    assert teacher.grad is None


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


def test_means_do_not_depend_on_how_the_batch_is_split():
    logits, targets = torch.randn(6, 5), torch.rand(6, 5) < 0.3
    counts = counts_of({"tag": 6.0})

    def mean(rows: slice) -> torch.Tensor:
        sums = {"tag": asymmetric_loss(logits[rows], targets[rows])}
        return global_mean({"tag": 1.0}, sums, counts)

    parts = [mean(slice(0, 2)), mean(slice(2, 6))]
    torch.testing.assert_close(sum(parts), mean(slice(0, 6)))


def test_the_loss_is_the_weighted_sum_of_global_means():
    sums = {"tag": torch.tensor(6.0), "caption": torch.tensor(8.0)}
    step = {"tag": 2.0, "caption": 4.0}
    weights = {"tag": 1.0, "caption": 0.5}
    assert global_mean(weights, sums, counts_of(step, {"tag": 1.0, "caption": 1.0})).item() == 4.0
    # Gradients are averaged over the processes, these means are global already.
    assert global_mean(weights, sums, counts_of(step, processes=2)).item() == 8.0


def test_the_official_ratio_scales_the_tag_gradient_to_the_caption_loss():
    tag = torch.tensor(50.0, requires_grad=True)
    caption = torch.tensor(4.0, requires_grad=True)
    counts = counts_of({"tag": 9.0, "caption": 9.0}, {"tag": 1.0, "caption": 1.0})
    total = ram_official("ram", {"tag": tag, "caption": caption}, counts)
    total.backward()
    assert total.item() == pytest.approx(8.0)
    assert tag.grad.item() == pytest.approx(4 / 50)
    assert caption.grad.item() == pytest.approx(1.0)
