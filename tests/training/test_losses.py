"""Every loss against an independent slow formula, and its mean over any split of the batch."""

import math
from dataclasses import replace

import pytest
import torch

from ramctl.model.attention import map_tensors
from ramctl.model.build_ram import build_ram
from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.captioning import CaptionInputs
from ramctl.model.preset import Preset, load_preset
from ramctl.training.data import Batch
from ramctl.training.losses import (
    Counts,
    TrainingTask,
    alignment_loss,
    asymmetric_loss,
    caption_loss,
    distillation_loss,
    global_mean,
    ram_official,
    sample_labels,
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


@pytest.mark.parametrize("options", [(7, 0, 0.05), (4, 1, 0.05), (0, 0, 0.0)])
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


def test_caption_loss_equals_the_slow_formula():
    logits, targets = torch.randn(3, 6, 11), torch.randint(0, 11, (3, 6))
    targets[:, 0] = targets[1, 3:] = IGNORED
    log_p, total = logits.log_softmax(-1), 0.0
    for row, place in (targets[:, 1:] != IGNORED).nonzero().tolist():
        words = log_p[row, place]  # of the token at the next place
        total -= 0.9 * words[targets[row, place + 1]].item() + 0.1 * words.mean().item()
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
    logits, eye = torch.randn(3, 3), torch.eye(3, dtype=torch.bool)
    same, weights = eye.clone(), torch.ones(3, 3)
    same[0, 2] = same[2, 0] = True
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
        ("ram", {"tag": 50.0}, {"tag": 2.0, "caption": 0.0}, 25.0),  # photos without captions
        ("ram", {"tag": 0.0, "caption": 6.0}, {"tag": 2.0, "caption": 3.0}, 2.0),
        ("ram-plus", {"tag": 2.0, "alignment": 3.0, "distill clip": 10.0},
         {"tag": 2.0, "alignment": 2.0, "distill clip": 2.0}, 2.0 + 3.0 + 10.0 / 2),
    ],
)  # fmt: skip
def test_the_authors_loss_is_a_number_where_a_pass_is_empty_and_adds_what_ram_plus_has(
    objective, sums, own, expected
):
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in sums.items()}
    step = dict.fromkeys(own, 99.0)  # of which the authors know nothing
    total = ram_official(objective, tensors, Counts(own, step, 1, 2))
    half = ram_official(objective, tensors, Counts(own, step, 2, 2))
    total.backward()
    assert (total.item(), half.item()) == (expected, expected / 2)  # a mean over passes
    assert all(torch.isfinite(t.grad).all() for t in tensors.values() if t.grad is not None)


N_LABELS, VOCABULARY = 12, 40


def make_preset(*overrides: str) -> Preset:
    return load_preset("tiny", ["training.distill=[]", *overrides])


def make_task(*overrides: str) -> TrainingTask:
    torch.manual_seed(0)
    preset = make_preset(*overrides)
    model = build_ram(
        preset.model, image_size=preset.preprocess.size, n_labels=N_LABELS, vocabulary=VOCABULARY
    )
    model.labels.set_text(torch.nn.functional.normalize(torch.randn(N_LABELS, 32), dim=1))
    torch.nn.init.normal_(model.labels.own)
    return TrainingTask(model.eval(), preset.training)


def make_batch(n: int = 3, **changes) -> Batch:
    torch.manual_seed(1)
    ids = torch.randint(7, VOCABULARY, (n, 6))
    mask = torch.ones(n, 6, dtype=torch.long)
    tags = torch.randint(7, VOCABULARY, (n, 24))
    values = {
        "photos": torch.randn(n, 4, 256),
        "targets": (torch.rand(n, N_LABELS) < 0.2).float(),
        "weights": None,
        "captions": CaptionInputs(tags, torch.ones_like(tags), ids, mask),
        "caption_targets": ids.clone(),
        "caption_rows": torch.arange(n),
        "caption_texts": tuple(f"caption {i}" for i in range(n)),
        "teacher": torch.randn(n, 32),
        "taught": torch.tensor([1.0] * (n - 1) + [0.0]),
        "is_real": True,
        "rejected": (),
    }
    return Batch(**{**values, **changes})


def test_sampled_labels_hold_all_of_the_batch_and_as_many_others_as_wanted():
    targets = torch.zeros(4, 100)
    targets[0, [3, 5]] = 1
    sampled = sample_labels(targets, 20, torch.Generator().manual_seed(0))
    assert len(sampled.ids) == len(set(sampled.ids.tolist())) == 20
    assert sampled.ids[:2].tolist() == [3, 5]
    assert sampled.weights.tolist() == pytest.approx([1, 1] + [98 / 18] * 18)
    # Of many labels in the batch as many others as a quarter of them.
    targets[1, 2:10] = 1
    sampled = sample_labels(targets, 8, torch.Generator().manual_seed(0))
    assert sampled.ids[:8].tolist() == list(range(2, 10))
    assert sampled.weights.tolist() == [1] * 8 + [46] * 2
    assert sample_labels(targets, 0, torch.Generator()) is None
    assert sample_labels(targets, 100, torch.Generator()) is None
    # Those that are not trained are never sampled.
    trained = torch.arange(100) < 40
    whole = sample_labels(targets, 0, torch.Generator(), trained)
    assert whole.ids.tolist() == list(range(40)) and whole.weights.tolist() == [1.0] * 40
    some = sample_labels(targets, 10, torch.Generator().manual_seed(0), trained)
    assert 3 in some.ids and some.ids.max() < 40 and some.weights.sum() == 40


def test_every_loss_is_a_sum_over_what_its_count_says():
    task = make_task('training.distill=["caption"]', "training.tag_weight=0.5")
    whole = make_batch(3)
    rows = [map_tensors(lambda tensor, row=row: tensor[row : row + 1], whole) for row in range(3)]
    parts = [replace(row, caption_rows=torch.tensor([0])) for row in rows]
    together = task(whole)
    apart = [task(part) for part in parts]
    for name in ("tag", "caption", "distill caption"):
        total = sum(sums[name].item() for sums in apart)
        assert together[name].item() == pytest.approx(total, rel=1e-5)
        counted = sum(task.counts(part)[name] for part in parts)
        assert task.counts(whole)[name] == counted
    counts = task.counts(whole)
    assert counts == {"tag": 3, "caption": 15, "distill caption": 2}
    expected = 0.5 * together["tag"] / 3 + together["caption"] / 15
    expected = expected + together["distill caption"] / 2
    assert task.reduce(together, counts_of(counts)).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_what_labels_own_is_trained_apart_from_their_text():
    task = make_task("training.decouple_own=true")
    sums = task(make_batch())
    model = task.model
    (gradient,) = torch.autograd.grad(
        sums["tag"], model.label_queries.projection.weight, allow_unused=True, retain_graph=True
    )
    assert gradient is None
    (own,) = torch.autograd.grad(
        sums["tag text"], model.labels.own, allow_unused=True, retain_graph=True
    )
    assert not own.any()
    assert torch.autograd.grad(sums["tag"], model.labels.own)[0].abs().sum() > 0
    plain = make_task()(make_batch())
    assert sums["tag"].item() == pytest.approx(plain["tag"].item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["mean", "ram-official"])
def test_a_stand_in_for_missing_photos_counts_nothing_and_pulls_nothing(loss):
    task = make_task(f"training.loss={loss}")
    batch = make_batch(1, is_real=False, captions=None, caption_targets=None, caption_rows=None)
    sums, counts = task(batch), task.counts(batch)
    assert {value.item() for value in sums.values()} == {0.0}
    assert set(counts.values()) == {0.0}
    assert task.reduce(sums, counts_of(counts)).item() == 0.0


CLASSES = (
    "model.prior.classes=10", "training.backbone_lr_factor=0.5", "training.classes_weight=1.0",
    'training.distill=["imagenet"]',
)  # fmt: skip


def test_a_trained_backbone_is_held_to_its_former_classes_and_taught_what_it_was():
    task = make_task(*CLASSES)
    model, batch = task.model, make_batch()
    torch.nn.init.normal_(model.prior.classifier.weight)
    task = TrainingTask(model, make_preset(*CLASSES).training)
    before = task(batch)
    assert float(before["classes"]) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        model.prior.classifier.weight.mul_(1.5)  # stands for a backbone that moved
    former = (model.prior.classifier.weight / 1.5) @ batch.photos.mean(1).T
    said = (former.T + model.prior.classifier.bias).softmax(-1)
    now = model.prior.class_logits(batch.photos).softmax(-1)
    expected = (said * (said / now).log()).sum()
    torch.testing.assert_close(task(batch)["classes"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(task(batch)["distill imagenet"], before["distill imagenet"])
