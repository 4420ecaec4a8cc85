"""One optimiser step: learning rate, random numbers, passes, gradient, update; its state on disk.

A step depends only on the weights, the optimiser's state and (seed, step, rank): random numbers are
seeded anew for each step, so that a resumed run repeats an uninterrupted one.
"""

import math
import random
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.model.device import Runtime
from ramctl.model.preset import TrainingConfig
from ramctl.records.files import replacing
from ramctl.records.record import JsonObject
from ramctl.training.data import Batch
from ramctl.training.distributed import World
from ramctl.training.losses import Counts, TrainingTask

MAX_SKIPPED = 10  # steps in a row without a finite gradient
WARMUP_DIVISOR = 10  # warm-up takes at most one step in ten, so that short runs learn too


class Step(NamedTuple):
    """One optimiser step; losses are means over the global batch."""

    loss: float
    losses: dict[str, float]
    grad_norm: float
    photos: int
    rejected: dict[int, RecordProblem]


class Trainer:
    """The module that is trained with its optimiser, and the number of steps that it has taken."""

    def __init__(
        self, task: TrainingTask, runtime: Runtime, world: World, given: JsonObject
    ) -> None:
        self.task, self.config = task, task.config
        self.runtime, self.world = runtime, world
        self.given = given  # to this run: the same when it is resumed
        self.module: nn.Module = task  # wrapped when there are several processes
        self.optimiser = build_optimiser(task.model, task.config)
        # Small gradients vanish in fp16, unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == "fp16")
        self.step = 0
        self.skipped_in_a_row = 0

    def take_step(self, batches: Sequence[Batch], lr: float) -> Step:
        """A forward and backward pass for each batch, then an update."""
        task, device = self.task, self.runtime.device
        seed_step(self.config.seed, self.step, self.world.rank, device)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["scale"]

        # A gradient is scaled by the counts of the whole step, over all passes and processes: they
        # are needed before the first.
        pass_counts = [task.counts(batch) for batch in batches]
        rejected = dict(problem for batch in batches for problem in batch.rejected)
        local = {name: sum(counts[name] for counts in pass_counts) for name in pass_counts[0]}
        local |= {"photos": sum(b.n_photos for b in batches), "rejected": len(rejected)}
        counts = self.world.sums(local)
        n_photos = int(counts.pop("photos"))
        if counts.pop("rejected"):
            rejected = self.world.union(rejected)

        self.module.train()
        table, nothing = [], torch.zeros((), device=device)
        for number, batch in enumerate(batches):
            # Processes exchange gradients once a step, in the backward of the last pass.
            is_local = self.world.size > 1 and number < len(batches) - 1
            with self.module.no_sync() if is_local else nullcontext():  # type: ignore[operator]
                with self.runtime.precision():
                    losses = self.module(batch.to(device))
                sizes = Counts(pass_counts[number], counts, len(batches), self.world.size)
                self.scaler.scale(task.reduce(losses, sizes)).backward()
            table.append(torch.stack([losses.get(n, nothing).detach().float() for n in counts]))

        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf)
        total = self.world.total(torch.stack(table))
        # Read together: the process waits for the GPU here, once a step.
        *values, grad_norm = torch.cat([total.flatten(), norm.to(total.dtype)[None]]).tolist()
        if is_finite := math.isfinite(grad_norm):
            self.scaler.step(self.optimiser)
        self.skipped_in_a_row = 0 if is_finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == MAX_SKIPPED:
            where = f"in {MAX_SKIPPED} steps in a row, the last of them {self.step}"
            raise RunProblem(f"the gradient was not finite {where}: try a lower training.lr")
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1

        sums = {name: sum(values[index :: len(counts)]) for index, name in enumerate(counts)}
        means = {name: value / max(counts[name], 1.0) for name, value in sums.items()}
        loss = sum(task.weights[name] * value for name, value in means.items())
        return Step(loss, means, grad_norm, n_photos, rejected)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        weights = {name: part.detach() for name, part in weights_of(self.task.model).items()}
        state = {
            "given": self.given, "step": self.step, "model": weights,
            "optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict(),
        }  # fmt: skip
        with replacing(path) as stream:
            torch.save(state, stream)

    def restore(self, path: Path) -> None:
        """Go on where a run was saved; UsageProblem names what else was given to that run."""
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        before, now = _flat(state["given"]), _flat(self.given)
        others = ", ".join(key for key in before | now if before.get(key) != now.get(key))
        if others:
            raise UsageProblem(f"the unfinished run in {path.parent} differs in {others}")
        with torch.no_grad():
            for name, tensor in weights_of(self.task.model).items():
                tensor.copy_(state["model"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


def _flat(table: Mapping[str, Any], prefix: str = "") -> JsonObject:
    """The values of nested tables by their dotted names."""
    flat: JsonObject = {}
    for key, value in table.items():
        name = prefix + key
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def build_optimiser(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trainable weights; each group's `scale` multiplies the learning rate."""
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = config.no_decay and (parameter.dim() < 2 or id(parameter) in embeddings)
        decay = 0.0 if exempt else config.weight_decay
        scale = config.backbone_lr_factor if name.startswith("encoder.") else 1.0
        groups.setdefault((decay, scale), []).append(parameter)
    tables = [
        {"params": parameters, "weight_decay": decay, "scale": scale}
        for (decay, scale), parameters in groups.items()
    ]
    return torch.optim.AdamW(tables, lr=config.lr, eps=config.eps)


def learning_rate(config: TrainingConfig, step: int, total_steps: int, an_epoch: int) -> float:
    """The learning rate of a step (from 0): linear warm-up, then the schedule.

    `an_epoch` is the number of steps in an epoch. `epoch-decay` and `epoch-cosine` are the authors'
    schedules, with a new rate every epoch (ram_official A5).
    """
    warmup = min(config.warmup_steps, math.ceil(total_steps / WARMUP_DIVISOR))
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup
    epoch = step // an_epoch
    if config.schedule == "epoch-decay":
        return max(config.min_lr, config.lr * config.decay**epoch)
    if config.schedule == "epoch-cosine":
        done = epoch / math.ceil(total_steps / an_epoch)
    else:
        done = (step - warmup) / max(1, total_steps - warmup)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed every source of random numbers for one step of one process."""
    state = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    # torch.manual_seed looks for every kind of device, which takes 1.5 ms a step.
    torch.default_generator.manual_seed(state)
    if device.type == "cuda":
        torch.cuda.manual_seed(state)
    elif device.type == "mps":
        torch.mps.manual_seed(state)
