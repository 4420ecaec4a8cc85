"""From sums to the loss of a pass: global means, or the authors' sums of one process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ramctl.errors import UsageProblem
from ramctl.model.config import LossConfig
from ramctl.model.ram import RAM


@dataclass(frozen=True, slots=True)
class Counts:
    """What each loss's sum runs over, by name: in this pass, and in the whole step."""

    own: Mapping[str, float]  # this pass of this process
    step: Mapping[str, float]  # all passes of all processes
    n_passes: int
    n_processes: int


Reduce = Callable[[Mapping[str, Tensor], Counts], Tensor]


def choose_reduction(model: RAM, config: LossConfig, weights: Mapping[str, float]) -> Reduce:
    """The reduction that `training.loss` names; UsageProblem when it lacks a part it needs."""
    if config.loss == "ram-official":
        if config.decouple_own:
            raise UsageProblem("training.loss ram-official does not decouple what labels own")
        if config.objective != "ram-plus" and not model.captioning:
            raise UsageProblem("training.loss ram-official needs the captioning branch")
        return lambda sums, counts: ram_official(config.objective, sums, counts)
    return lambda sums, counts: global_mean(weights, sums, counts)


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
    Source: authors' forward, ram_official A4.
    """

    def mean(name: str) -> Tensor:
        return sums[name] / max(counts.own[name], 1.0)

    tag = sums["tag"]
    if objective == "ram-plus":
        total = tag + sums["alignment"]
    else:
        caption = mean("caption")
        total = caption + tag / (tag / caption).detach()
    distilled = [name for name in sums if name.startswith("distill")]
    if distilled:  # the authors have one teacher; of several, the last one counts
        total = total + mean(distilled[-1])
    return total / counts.n_passes
