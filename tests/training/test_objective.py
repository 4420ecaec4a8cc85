"""Label sampling, and the use of each loss."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ramctl.model.build_ram import build_ram
from ramctl.model.captioning import CaptionInputs
from ramctl.model.preset import Preset, load_preset
from ramctl.training.data import Batch
from ramctl.training.losses import (
    Counts,
    SampledLabels,
    TrainingTask,
    alignment_loss,
    asymmetric_loss,
    sample_labels,
)

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


def loss_of(task: TrainingTask, sums: dict, counts: dict) -> float:
    return task.reduce(sums, Counts(counts, counts, 1, 1)).item()


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


def test_labels_that_are_not_trained_are_never_sampled():
    targets = torch.zeros(4, 100)
    targets[0, [3, 50]] = 1
    trained = torch.arange(100) < 40
    everything = sample_labels(targets, 0, torch.Generator(), trained)
    assert everything.ids.tolist() == list(range(40))
    assert everything.weights.tolist() == [1.0] * 40
    some = sample_labels(targets, 10, torch.Generator().manual_seed(0), trained)
    assert 3 in some.ids and some.ids.max() < 40
    assert some.weights.sum() == 40


def test_label_sampling_is_unbiased():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 60), torch.zeros(5, 60)
    targets[:, :4] = 1
    whole = float(asymmetric_loss(logits, targets))
    generator = torch.Generator().manual_seed(7)
    estimates = []
    for _ in range(4000):
        s = sample_labels(targets, 16, generator)
        estimate = asymmetric_loss(logits[:, s.ids], targets[:, s.ids], weights=s.weights)
        estimates.append(float(estimate))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(whole, abs=4 * error)
    assert error < 0.02 * whole


def test_every_loss_is_a_sum_over_what_its_count_says():
    task = make_task('training.distill=["caption"]', "training.tag_weight=0.5")
    whole, parts = make_batch(3), []
    for row in range(3):
        pick = slice(row, row + 1)
        captions = CaptionInputs(
            *(getattr(whole.captions, n)[pick] for n in CaptionInputs.__slots__)
        )
        parts.append(
            make_batch(
                1, photos=whole.photos[pick], targets=whole.targets[pick], captions=captions,
                caption_targets=whole.caption_targets[pick], caption_rows=torch.tensor([0]),
                teacher=whole.teacher[pick], taught=whole.taught[pick],
            )
        )  # fmt: skip
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
    assert loss_of(task, together, counts) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("override", "gone"),
    [("training.caption_weight=0", "caption"), ("training.distill_weight=0", "distill caption")],
)
def test_a_loss_without_weight_is_not_computed(override, gone):
    task = make_task('training.distill=["caption"]', override)
    assert gone not in task(make_batch())
    assert gone not in task.counts(make_batch())


def test_equal_captions_are_no_negatives_of_each_other():
    logits, batch = torch.randn(3, 3), make_batch(caption_texts=("a dog", "a cat", "a dog"))
    task = make_task()
    task.model.tag_logits = lambda *_: SimpleNamespace(total=logits)
    task.clip = SimpleNamespace(text_features=len)
    same = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    expected = alignment_loss(logits, same)
    torch.testing.assert_close(task._alignment(batch, batch.photos), expected)


def test_unknown_labels_cost_nothing():
    task = make_task()
    batch = make_batch()
    weights = torch.ones_like(batch.targets)
    weights[:, 6:] = 0
    some = task(make_batch(weights=weights))["tag"]
    task.sample = lambda targets: SampledLabels(torch.arange(6), torch.ones(6))
    assert some.item() == pytest.approx(task(batch)["tag"].item(), rel=1e-6)


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
    assert loss_of(task, sums, counts) == 0.0


CLASSES = ("model.prior.classes=10", "training.backbone_lr_factor=0.5")


def test_a_trained_backbone_is_held_to_its_former_classes():
    task = make_task(*CLASSES, "training.classes_weight=1.0")
    model, batch = task.model, make_batch()
    torch.nn.init.normal_(model.prior.classifier.weight)
    task = TrainingTask(model, make_preset(*CLASSES, "training.classes_weight=1.0").training)
    assert float(task(batch)["classes"]) == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        model.prior.classifier.weight.mul_(1.5)  # stands for a backbone that moved
    former = (model.prior.classifier.weight / 1.5) @ batch.photos.mean(1).T
    said = (former.T + model.prior.classifier.bias).softmax(-1)
    now = model.prior.class_logits(batch.photos).softmax(-1)
    expected = (said * (said / now).log()).sum()
    torch.testing.assert_close(task(batch)["classes"], expected, rtol=1e-4, atol=1e-5)


def test_the_imagenet_teacher_is_the_backbone_as_it_was():
    task = make_task(*CLASSES, 'training.distill=["imagenet"]')
    model, batch = task.model, make_batch()
    before = task(batch)["distill imagenet"]
    with torch.no_grad():
        model.prior.classifier.weight.normal_()
    torch.testing.assert_close(task(batch)["distill imagenet"], before)


def test_a_batch_moves_with_all_its_tensors():
    batch = make_batch(3)
    moved = batch.to(torch.device("meta"))
    assert type(moved) is Batch and moved.caption_texts == batch.caption_texts
    for name in ("photos", "targets", "caption_targets", "caption_rows", "teacher", "taught"):
        assert getattr(moved, name).is_meta and not getattr(batch, name).is_meta, name
    for name in ("tag_ids", "tag_mask", "caption_ids", "caption_mask"):
        assert getattr(moved.captions, name).is_meta, name
    assert moved.weights is None
