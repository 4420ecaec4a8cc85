"""AdamW and its parameter groups, the learning rate of every step, and averaged weights."""

import math
from collections.abc import Iterator

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from ramctl.model.config import TrainingConfig
from ramctl.model.ram import RAM

LONGEST_WARMUP = 10  # warm-up takes at most one step in ten, so that short runs learn too


def build_optimiser(model: RAM, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trainable weights; each group's `scale` multiplies the learning rate."""
    numbers = config.optimiser
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    scales = _encoder_scales(model, config)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = numbers.no_decay and (parameter.dim() < 2 or id(parameter) in embeddings)
        decay = 0.0 if exempt else numbers.weight_decay
        scale = scales.get(name, 1.0)
        groups.setdefault((decay, scale), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "scale": scale}
            for (decay, scale), parameters in groups.items()
        ],
        lr=config.schedule.lr,
        betas=numbers.betas,
        eps=numbers.eps,
    )


def _encoder_scales(model: RAM, config: TrainingConfig) -> dict[str, float]:
    """What each weight of the encoder multiplies the learning rate by, by name.

    With `layer_decay` (Clark et al. 2020, ELECTRA, appendix A) each layer learns by that factor
    more slowly than the one above it, and the last as fast as the whole encoder without.
    """
    factor, decay = config.backbone.backbone_lr_factor, config.backbone.layer_decay
    if decay == 1.0:
        return {f"encoder.{name}": factor for name, _ in model.encoder.named_parameters()}
    backbone = model.encoder.backbone
    layers = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {
        f"encoder.backbone.{name}": factor * decay ** (last - layer)
        for name, layer in layers.items()
    }


def learning_rate(
    config: TrainingConfig, step: int, total_steps: int, steps_an_epoch: int
) -> float:
    """The learning rate of a step (from 0): linear warm-up, then the schedule.

    `epoch-decay` and `epoch-cosine` are the authors' schedules: a new rate every epoch
    (ram_official A5).
    """
    numbers = config.schedule
    warmup = min(numbers.warmup_steps, math.ceil(total_steps / LONGEST_WARMUP))
    if step < warmup:
        return numbers.warmup_lr + (numbers.lr - numbers.warmup_lr) * step / warmup
    epoch = step // steps_an_epoch
    if numbers.schedule == "constant":
        return numbers.lr
    if numbers.schedule == "epoch-decay":
        return max(numbers.min_lr, numbers.lr * numbers.decay**epoch)
    if numbers.schedule == "epoch-cosine":
        share = epoch / math.ceil(total_steps / steps_an_epoch)
    else:
        share = (step - warmup) / max(1, total_steps - warmup)
    cosine = 1 + math.cos(math.pi * share)
    return numbers.min_lr + (numbers.lr - numbers.min_lr) * cosine / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["scale"]


class AveragedWeights:
    """An exponential moving average of the trainable weights, which soon forgets its start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.tensors = {name: p.detach().clone() for name, p in _trainable(model)}

    def update(self, model: nn.Module) -> None:
        """Move a step towards the model's weights."""
        self.updates += 1
        # The usual warm-up of an average, as in TensorFlow's ExponentialMovingAverage.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for name, parameter in _trainable(model):
                self.tensors[name].lerp_(parameter, 1 - decay)

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        with torch.no_grad():
            for name, parameter in _trainable(model):
                parameter.copy_(self.tensors[name])


def _trainable(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p) for name, p in model.named_parameters() if p.requires_grad)
