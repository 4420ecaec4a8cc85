"""The losses, and the module that is trained: a forward pass gives the sum of each loss.

The sums become the loss of a pass: global means, or the authors' sums of one process.
B photos, L labels, n labels of a pass, S tokens, V vocabulary, E text width, K classes of the
backbone.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.checkpoints.clip import PREFIX as CLIP
from ramctl.errors import UsageProblem
from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.preset import TrainingConfig
from ramctl.model.ram import RAM, Encoded, RamOutput, TagLogits
from ramctl.training.data import Batch
from ramctl.training.teachers import ClipTeacher, without_scores

ABSENT_DIVISOR = 4  # at least one in four sampled labels is absent from the batch
PRESENT = 0.1  # a label with a target above it counts as present in the batch


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 7.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss summed over photos and labels; logits and 0/1 targets are (B, L).

    `weights`, broadcastable to (B, L), is 0 at labels of unknown truth and 1 / probability at
    sampled ones. The focusing weight has no gradient, and a negative below the margin `clip`
    costs nothing. Source: asymmetric loss as in the authors' utils.py, numbers of ram.py.
    """
    logits, targets = logits.float(), targets.float()
    positive = logits.sigmoid()
    negative = (1 - positive + clip).clamp(max=1)
    with torch.no_grad():
        focus = torch.where(targets > 0, (1 - positive) ** gamma_pos, (1 - negative) ** gamma_neg)
    likelihood = targets * positive.clamp(min=1e-8).log()
    likelihood = likelihood + (1 - targets) * negative.clamp(min=1e-8).log()
    loss = -likelihood * focus
    return (loss if weights is None else loss * weights).sum()


def alignment_loss(logits: Tensor, same: Tensor | None = None, *, clip: float = 0.05) -> Tensor:
    """The asymmetric loss of logits (B, B), whose diagonal is positive, summed over pairs.

    `same` (B, B) is true for equal texts, which are neither positive nor negative off the
    diagonal. Without it they are negatives, as in the authors' code.
    """
    diagonal = torch.eye(len(logits), device=logits.device)
    weights = None if same is None else (~same.bool()).float().maximum(diagonal)
    return asymmetric_loss(logits, diagonal, gamma_neg=4.0, clip=clip, weights=weights)


def caption_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Label-smoothed cross-entropy, summed over tokens.

    Logits are (B, S, V); `targets` (B, S) are the captions' tokens, IGNORED where they are not
    learnt; the shift by one happens here.
    """
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten(),
        ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum",
    )  # fmt: skip


def distillation_loss(
    feature: Tensor, teacher: Tensor, *, kind: str = "l1", present: Tensor | None = None
) -> Tensor:
    """The distance of the global feature (B, E) to the teacher's, summed over photos.

    `l1`: mean absolute difference over E (the authors', neither side normalised); `cosine`: one
    minus the cosine. `present` (B) is 0 at photos without a teacher's vector.
    """
    feature, teacher = feature.float(), teacher.detach().float()
    if kind == "l1":
        distance = (feature - teacher).abs().mean(-1)
    else:
        distance = 1 - F.cosine_similarity(feature, teacher, dim=-1)
    return (distance if present is None else distance * present.float()).sum()


def class_memory_loss(logits: Tensor, former: Tensor) -> Tensor:
    """Kullback-Leibler divergence of class logits (B, K) from the former ones, over photos."""
    target = former.detach().float().log_softmax(-1)
    return F.kl_div(logits.float().log_softmax(-1), target, reduction="sum", log_target=True)


@dataclass(frozen=True, slots=True)
class SampledLabels:
    """The labels of one pass; their weights make up for the labels that are not sampled."""

    ids: Tensor  # (n,)
    weights: Tensor  # (n,)


def tag_sums(
    config: TrainingConfig, logits: TagLogits, batch: Batch, sampled: SampledLabels | None
) -> dict[str, Tensor]:
    """The tag loss summed over photos and labels; if decoupled, also that of text logits alone."""
    targets, weights = batch.targets, batch.weights
    if sampled is not None:
        targets = targets[:, sampled.ids]
        weights = None if weights is None else weights[:, sampled.ids]
        weights = sampled.weights if weights is None else weights * sampled.weights
    loss = partial(
        asymmetric_loss, targets=targets, gamma_neg=config.gamma_neg, clip=config.clip,
        weights=weights,
    )  # fmt: skip
    if not config.decouple_own:
        return {"tag": loss(logits.total)}
    # The first sum has no gradient for the text logits. They learn without the labels' own vectors,
    # so that words that were not trained on are scored better.
    text, by_label = logits
    return {"tag": loss(text.detach() + by_label), "tag text": loss(text)}


def sample_labels(
    targets: Tensor, number: int, generator: torch.Generator, trained: Tensor | None = None
) -> SampledLabels | None:
    """All labels present in the batch, and random others up to `number`; None for all labels.

    The others are weighted so that the expected loss is the one over all labels, or over those
    that are `trained` (L,).
    """
    n_labels = targets.shape[1] if trained is None else int(trained.sum())
    everything = None
    if trained is not None:
        ids = trained.nonzero()[:, 0]
        everything = SampledLabels(ids, torch.ones(len(ids), device=ids.device))
    if not number or number >= n_labels:
        return everything
    present = (targets > PRESENT).any(0)
    absent = ~present
    if trained is not None:
        present, absent = present & trained, absent & trained
    present_ids, others = present.nonzero()[:, 0], absent.nonzero()[:, 0]
    n_drawn = max(number - len(present_ids), number // ABSENT_DIVISOR, 1)
    if n_drawn >= len(others):
        return everything
    order = torch.randperm(len(others), generator=generator)[:n_drawn]
    drawn = others[order.to(others.device)]
    weight = len(others) / n_drawn
    weights = torch.cat([torch.ones(len(present_ids)), torch.full((n_drawn,), weight)])
    return SampledLabels(torch.cat([present_ids, drawn]), weights.to(targets.device))


@dataclass(frozen=True, slots=True)
class Counts:
    """How many photos, tokens or pairs the sum of each loss runs over, by its name."""

    local: Mapping[str, float]  # this pass of this process
    step: Mapping[str, float]  # all passes of all processes
    n_passes: int
    n_processes: int


class TrainingTask(nn.Module):
    """The module that is trained, and that is wrapped when there are several processes.

    Everything with a gradient happens in its forward, as DistributedDataParallel needs it. Each
    loss is a sum and a count, so that its mean does not depend on how a batch is split.
    UsageProblem for teachers that the model cannot have, and losses that would be left out.
    """

    trained: Tensor | None

    def __init__(
        self,
        model: RAM,
        config: TrainingConfig,
        clip: ClipTeacher | None = None,
        trained: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.model, self.clip = config, model, clip
        self.register_buffer("trained", trained, persistent=False)  # (L,) bool; None: all labels
        weights = {
            "tag": config.tag_weight,
            "tag text": config.tag_weight * config.decouple_own,
            "caption": config.caption_weight * (model.captioning is not None),
        }
        if not config.captions_alone:
            for name in without_scores(config.distill):  # files of scores are in the targets
                if not (name in ("caption", "imagenet") or name.startswith(CLIP)):
                    known = f"{CLIP}FOLDER, caption, imagenet, scores:FILE, none"
                    raise UsageProblem(f"--distill {name}: known are {known}")
                weights[f"distill {name.partition(':')[0]}"] = config.distill_weight
            # The classes of a frozen backbone stay as they were.
            weights["classes"] = config.classes_weight if config.backbone_lr_factor else 0.0
            weights["alignment"] = config.alignment_weight
        # The weights of the losses that are computed, by their names in logs.
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.needs_former = bool(self.weights.keys() & {"distill imagenet", "classes"})
        if self.needs_former and (model.prior is None or model.prior.classifier is None):
            remedy = "--distill caption, and training.classes_weight=0"
            raise UsageProblem(f"without model.prior.classes: {remedy}")
        if self.weights.keys() & {"tag text", "classes"} and config.loss == "ram-official":
            raise UsageProblem("training.loss=ram-official has no decouple_own and classes_weight")
        self.former: Any = None  # encoder and prior from before training
        # A frozen backbone stays as it was: only one that is trained needs a copy.
        if self.needs_former and config.backbone_lr_factor > 0:
            parts: Any = {"encoder": model.encoder, "prior": model.prior}
            self.former = copy.deepcopy(nn.ModuleDict(parts)).requires_grad_(False)

    def train(self, mode: bool = True) -> "TrainingTask":
        """As in torch, but teachers and frozen encoders stay in evaluation mode."""
        super().train(mode)
        is_frozen = self.config.captions_alone or self.config.backbone_lr_factor == 0
        for part in (self.clip, self.former, self.model.encoder if is_frozen else None):
            if part is not None:
                part.eval()
        return self

    def counts(self, batch: Batch) -> dict[str, float]:
        """How many photos or tokens each loss runs over, by its name."""
        targets, taught = batch.caption_targets, batch.taught
        others = {
            "caption": 0 if targets is None else (targets[:, 1:] != IGNORED).sum(),
            "distill caption": 0 if taught is None else taught.sum(),
            "alignment": len(batch.caption_texts),
        }
        return {name: float(others.get(name, batch.n_photos)) for name in self.weights}

    def reduce(self, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
        """The loss of a pass, by the rule that `training.loss` names."""
        if self.config.loss == "ram-official":
            return ram_official(self.config.objective, sums, counts)
        return global_mean(self.weights, sums, counts)

    def sample(self, targets: Tensor) -> SampledLabels | None:
        """The labels of a pass; None for all, no labels where captions are trained alone."""
        if self.config.captions_alone:
            return SampledLabels(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        # Not torch's own stream: sampling must not shift the random numbers of dropout.
        generator = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFFFFFF)
        return sample_labels(targets, self.config.sampled_labels, generator, self.trained)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of each loss over the batch, by name; `reduce` makes a loss of them.

        A name may be missing when the batch has none of it.
        """
        model, config, sampled = self.model, self.config, self.sample(batch.targets)
        photos = batch.photos
        if model.encoder.frozen_stages and photos.dim() == 4:
            with torch.no_grad():  # the frozen stages are computed once for both backbones
                photos = model.encoder.frozen_features(photos)
        output = model(
            photos,
            labels=None if sampled is None else model.labels(sampled.ids),
            captions=batch.captions if "caption" in self.weights else None,
            captioned=batch.caption_rows,
        )
        sums = {} if config.captions_alone else tag_sums(config, output.logits, batch, sampled)
        if output.caption_logits is not None and batch.caption_targets is not None:
            logits, smoothing = output.caption_logits, config.label_smoothing
            sums["caption"] = caption_loss(logits, batch.caption_targets, smoothing=smoothing)
        sums |= self._distillation(batch, photos, output)
        if "alignment" in self.weights and batch.caption_rows is not None:
            sums["alignment"] = self._alignment(batch, output.encoded[batch.caption_rows])
        if not batch.is_real:  # without photos a process still needs every gradient
            return {name: value * 0 for name, value in sums.items()}
        return sums

    def _alignment(self, batch: Batch, captioned: Encoded) -> Tensor:
        """The loss of each photo against all captions of the pass, scored as labels."""
        assert self.clip is not None, "training.alignment_weight needs --distill clip:FOLDER"
        texts, same = self.clip.text_features(batch.caption_texts), None
        logits = self.model.tag_logits(captioned, texts).total
        if self.config.loss != "ram-official":
            rows = [[a == b for b in batch.caption_texts] for a in batch.caption_texts]
            same = torch.tensor(rows, device=logits.device)
        return alignment_loss(logits, same, clip=self.config.clip)

    def _distillation(self, batch: Batch, photos: Tensor, output: RamOutput) -> dict[str, Tensor]:
        """The distances of the global feature to each teacher's vector, and class memory."""
        sums, names, prior = {}, self.weights.keys(), self.model.prior
        distance = partial(distillation_loss, kind=self.config.distill_loss)
        if "distill clip" in names and self.clip is not None:
            vector = self.clip.photo_features(batch.photos)
            sums["distill clip"] = distance(_feature(output), vector)
        if "distill caption" in names and batch.teacher is not None:
            loss = distance(_feature(output), batch.teacher, present=batch.taught)
            sums["distill caption"] = loss
        elif "distill caption" in names:  # a stand-in: the loss must still reach the feature
            sums["distill caption"] = _feature(output).sum() * 0
        if self.needs_former and prior is not None:
            former: Any = prior
            before = output.features
            with torch.no_grad():
                if self.former is not None:
                    former, before = self.former["prior"], self.former["encoder"](photos)
                mixture = former.class_probabilities(before) @ former.class_names  # (B, E)
                logits = former.class_logits(before)  # (B, K)
            if "distill imagenet" in names:
                sums["distill imagenet"] = distance(_feature(output), mixture)
            if "classes" in names:
                sums["classes"] = class_memory_loss(prior.class_logits(output.features), logits)
        return sums


def _feature(output: RamOutput) -> Tensor:
    assert output.encoded.photo is not None
    return output.encoded.photo.feature


def global_mean(weights: Mapping[str, float], sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """This pass's part of the weighted sum of the means over the step.

    The gradients of all passes add up to that of one large batch, however it is split.
    """
    parts = [weights[name] / max(counts.step[name], 1.0) * value for name, value in sums.items()]
    # DDP averages gradients over the processes, but these counts are global already.
    return torch.stack(parts).sum() * counts.n_processes


def ram_official(objective: str, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """The authors' objective of one pass of one process: sums over photos and labels.

    RAM and Tag2Text scale the tag loss to the caption loss's value; RAM++ adds plain sums.
    Source: authors' forward, ram_official A4. Theirs always has captions: in a pass without any
    the tag loss is the mean over photos; a loss of 0 stays 0.
    """

    def mean(name: str) -> Tensor:
        return sums[name] / max(counts.local[name], 1.0)

    tag = sums["tag"]
    if objective == "ram-plus":
        total = tag + sums["alignment"] if "alignment" in sums else tag
    elif counts.local["caption"]:
        caption = mean("caption")
        # 0/0 would be NaN, which spreads to all processes.
        total = caption + tag / torch.where(tag > 0, tag / caption, 1.0).detach()
    else:
        total = mean("tag") + sums.get("caption", 0)  # a stand-in's: 0, with its gradient
    for name in sums:
        if name.startswith("distill"):  # one at most, as the authors have
            total = total + mean(name)
    return total / counts.n_passes
