"""The model with its objectives: one forward gives the sum of every loss.

The sums become the loss of a pass: global means, or the authors' sums of one process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.config import LossConfig, TrainingConfig
from ramctl.model.ram import RAM
from ramctl.tagger_scores import PREFIX as SCORES
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.objectives import (
    Alignment,
    Captioning,
    ClassMemory,
    ClipTeacher,
    Distillation,
    FormerBackbone,
    Forward,
    Objective,
    Tagging,
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What each loss's sum runs over, by name: in this pass, and in the whole step."""

    own: Mapping[str, float]  # this pass of this process
    step: Mapping[str, float]  # all passes of all processes
    n_passes: int
    n_processes: int


def _check_official(model: RAM, losses: LossConfig, teachers: Sequence[str]) -> None:
    """UsageProblem where the authors' reduction does not fit the model or its objectives."""
    if len(teachers) > 1 and losses.distill_weight:
        raise UsageProblem(
            f"training.loss ram-official has one teacher: leave out all but one of "
            f"--distill {', '.join(teachers)}"
        )
    if losses.classes_weight:
        raise UsageProblem("training.loss ram-official needs training.classes_weight=0")
    if losses.decouple_own:
        raise UsageProblem("training.loss ram-official does not decouple what labels own")
    if losses.objective != "ram-plus" and not (model.captioning and losses.caption_weight):
        raise UsageProblem("training.loss ram-official needs the captioning branch and its loss")


def _other_objectives(
    model: RAM, config: TrainingConfig, teachers: Sequence[str], clip: ClipTeacher | None
) -> Iterator[Objective]:
    """The objectives beside tagging that have a weight; captioning alone where tagging has none."""
    losses = config.losses
    if losses.captions_alone:
        yield Captioning(losses)
        return
    distillations = [Distillation(model, losses, name, clip) for name in teachers]
    if model.captioning is not None and losses.caption_weight:
        yield Captioning(losses)
    if losses.distill_weight:
        yield from distillations
    if losses.classes_weight:
        yield ClassMemory(model, config)
    if losses.alignment_weight:
        yield Alignment(losses, clip)


class TrainingTask(nn.Module):
    """The module that is trained, and that is wrapped when there are several processes.

    Everything with a gradient happens in its forward, as DistributedDataParallel needs it.
    """

    def __init__(
        self,
        model: RAM,
        config: TrainingConfig,
        clip: ClipTeacher | None = None,
        trained: Tensor | None = None,
    ) -> None:
        super().__init__()
        losses = self.config = config.losses
        # Files of scores are in the targets already.
        teachers = [n.partition(":")[0] for n in losses.distill if not n.startswith(SCORES)]
        if losses.loss == "ram-official":
            _check_official(model, losses, teachers)
        self.model = model
        self.tagging = Tagging(model, losses, trained)
        tagging = [] if losses.captions_alone else [self.tagging]
        self.objectives = [*tagging, *_other_objectives(model, config, teachers, clip)]
        self.submodules = nn.ModuleList(self.objectives)  # moves their buffers with the model
        self.weights = {name: o.weight for o in self.objectives for name in o.names}
        self.asks_former = "imagenet" in teachers or losses.classes_weight > 0
        self.asks_former &= not losses.captions_alone
        # A frozen backbone is its own former self: only one that is trained needs a copy.
        is_trained = config.backbone.backbone_lr_factor > 0
        self.former = FormerBackbone(model) if self.asks_former and is_trained else None

    def counts(self, batch: Batch) -> dict[str, float]:
        """What each sum runs over, by name: photos or tokens. The batch alone decides."""
        return {name: o.count(batch) for o in self.objectives for name in o.names}

    def reduce(self, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
        """The loss of a pass, as `training.loss` says."""
        if self.config.loss == "ram-official":
            return ram_official(self.config.objective, sums, counts)
        return global_mean(self.weights, sums, counts)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of each loss over the batch, by name; `reduce` makes a loss of them."""
        model, sampled = self.model, self.tagging.sample(batch.targets)
        photos = batch.photos
        if model.encoder.frozen_stages and model.encoder.keeps_stages and photos.dim() == 4:
            with torch.no_grad():  # what stays as it was is computed once for both backbones
                photos = model.encoder.frozen_features(photos)
        output = model(
            photos,
            labels=None if sampled is None else model.labels(sampled.ids),
            captions=batch.captions if "caption" in self.weights else None,
            captioned=batch.caption_rows,
        )
        former = None
        if self.asks_former:
            prior, features = self.model.prior, output.features
            with torch.no_grad():
                if self.former is not None:
                    prior, features = self.former.prior, self.former.encoder(photos)
                assert prior is not None
                former = prior.class_mixture(features), prior.class_logits(features)
        forward = Forward(batch, sampled, output, former)
        sums: dict[str, Tensor] = {}
        for objective in self.objectives:
            sums |= objective.sums(model, forward)
        if not batch.is_real:  # no photo counts, yet every process must have every gradient
            return {name: value * 0 for name, value in sums.items()}
        return sums


def global_mean(weights: Mapping[str, float], sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """The weighted sum of the means over the step, as far as this pass contributes to it.

    The gradients of all passes add up to that of one large batch, however it is split.
    """
    parts = [weights[name] / max(counts.step[name], 1.0) * value for name, value in sums.items()]
    # DDP averages gradients over the processes, but these counts are global already.
    return torch.stack(parts).sum() * counts.n_processes


def ram_official(objective: str, sums: Mapping[str, Tensor], counts: Counts) -> Tensor:
    """The authors' objective of one pass of one process: sums over photos and labels.

    RAM and Tag2Text scale the tag loss to the caption loss's value; RAM++ adds plain sums.
    Source: authors' forward, ram_official A4. Theirs always has captions: a pass without any has no
    such value, and its tag loss is the mean over photos; a loss of 0 stays 0.
    """

    def mean(name: str) -> Tensor:
        return sums[name] / max(counts.own[name], 1.0)

    tag = sums["tag"]
    if objective == "ram-plus":
        total = tag + sums["alignment"] if "alignment" in sums else tag
    elif counts.own["caption"]:
        caption = mean("caption")
        # 0/0 would be NaN, which one process hands to all others.
        total = caption + tag / torch.where(tag > 0, tag / caption, 1.0).detach()
    else:
        total = mean("tag") + sums.get("caption", 0)  # a stand-in's: 0, with its gradient
    for name in sums:
        if name.startswith("distill"):  # one at most, as the authors have
            total = total + mean(name)
    return total / counts.n_passes
