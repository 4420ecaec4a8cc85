"""The training loop: `Trainer.events` is the loop, `Trainer._step` one step.

A step depends only on the weights, the optimiser's state and (seed, step, rank): random numbers are
seeded anew for each step, so that a resumed run repeats an uninterrupted one bit for bit.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ramctl.checkpoints.weights import weights_of
from ramctl.device import Runtime
from ramctl.errors import RecordProblem, RunProblem
from ramctl.model.preset import TrainingConfig
from ramctl.model.ram import RAM
from ramctl.records.record import JsonObject
from ramctl.training.checkpoint import State, load_checkpoint, save_checkpoint
from ramctl.training.data.batches import Batch
from ramctl.training.data.sampler import Position, Sampler, StepPlan
from ramctl.training.distributed import World
from ramctl.training.objectives import Counts, TrainingTask

MAX_SKIPPED = 10  # steps in a row without a finite gradient
SAVE_EVERY_S = 300.0
WARMUP_DIVISOR = 10  # warm-up takes at most one step in ten, so that short runs learn too

Loader = Callable[[Iterator[StepPlan]], Iterator[tuple[StepPlan, list[Batch]]]]


@dataclass(frozen=True)
class Event:
    """An event after a step; a line of a log has its fields."""

    step: int

    def to_json(self) -> JsonObject:
        kind = type(self).__name__.removesuffix("Event").lower()
        return {"event": kind} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class StepEvent(Event):
    """One optimiser step; losses are means over the global batch."""

    epoch: int
    loss: float
    losses: dict[str, float]
    lr: float
    grad_norm: float
    photos: int
    rate_img_s: float
    wait_share: float  # of the step's time spent waiting for data
    skipped: bool  # the gradient was not finite
    rejected: dict[int, RecordProblem]

    def to_json(self) -> JsonObject:
        """Without rejected photos, which are reported elsewhere."""
        table = super().to_json()
        del table["rejected"]
        rounded = {"rate_img_s": round(self.rate_img_s, 2), "wait_share": round(self.wait_share, 4)}
        return table | rounded

    def describe(self, total_steps: int) -> str:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        skipped = ", skipped (gradient not finite)" if self.skipped else ""
        return (
            f"step {self.step}/{total_steps}, epoch {self.epoch}: loss {self.loss:.4g} "
            f"({losses}), lr {self.lr:.3g}, {self.rate_img_s:.1f} images/s, "
            f"{self.wait_share:.0%} waiting for data{skipped}"
        )


@dataclass(frozen=True)
class ValidationEvent(Event):
    """Scores on the validation photos after a step."""

    map: float  # over the labels with evidence
    classes: int  # labels with evidence that occur in the validation photos
    map_all: float  # over all labels that occur
    classes_all: int
    photos: int

    def describe(self) -> str:
        others = ""
        if self.classes < self.classes_all:
            others = f" ({self.map_all:.4f} over all {self.classes_all})"
        labels = f"{self.classes} labels{others}"
        return f"mAP {self.map:.4f} over {labels}, {self.photos} validation photos"


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """The state was saved."""

    path: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a run continues, and when it saves and validates."""

    total_steps: int
    checkpoints: Path
    # After each epoch, in every process; the event is in the first, None without a usable photo.
    validate: Callable[[], ValidationEvent | None] | None = None
    should_stop: Callable[[], bool] = field(default=lambda: False)


class Trainer:
    """Model, optimiser and position of one run."""

    def __init__(
        self,
        task: TrainingTask,
        config: TrainingConfig,
        sampler: Sampler,
        *,
        runtime: Runtime,
        world: World | None = None,
    ) -> None:
        self.task, self.model = task, task.model
        self.config, self.sampler = config, sampler
        self.runtime, self.world = runtime, world or World()
        self.module: nn.Module = task  # wrapped when there are several processes
        self.optimiser = build_optimiser(self.model, config)
        # Small gradients vanish in fp16, unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.dtype == "fp16")
        self.step = 0
        self.position = Position()
        self.skipped_in_a_row = 0
        self.was_stopped = False
        self.is_time_to_save = False
        self.rejected: dict[int, RecordProblem] = {}

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        if self.config.steps:
            return self.config.steps
        return max(1, round(self.config.epochs * self.sampler.steps_an_epoch))

    def events(self, loader: Loader, pace: Pace) -> Iterator[Event]:
        """Train to the last step, or until `should_stop`; the state is saved at the end."""
        self.module = self.world.wrap(self.task, self.runtime.device)
        saved_at = time.monotonic()
        steps = loader(self.sampler.steps(self.position))
        while self.step < pace.total_steps and not self.was_stopped:
            epoch, started = self.position.epoch, time.monotonic()
            plan, batches = next(steps)
            waited = time.monotonic() - started
            self.is_time_to_save = started - saved_at >= SAVE_EVERY_S
            event = self._step(plan, batches, pace)
            seconds = max(time.monotonic() - started, 1e-9)
            yield replace(event, rate_img_s=event.photos / seconds, wait_share=waited / seconds)

            is_last = self.step == pace.total_steps or self.was_stopped
            if is_last or self.is_time_to_save:
                if self.world.is_main:
                    path = save_checkpoint(pace.checkpoints, self.step, self.state())
                    yield CheckpointEvent(self.step, str(path))
                saved_at = time.monotonic()
            if pace.validate and self.position.epoch > epoch and not is_last:
                validated = pace.validate()
                if validated is not None:
                    yield validated
        steps.close()  # type: ignore[attr-defined]

    def _step(self, plan: StepPlan, batches: list[Batch], pace: Pace) -> StepEvent:
        """One optimiser step: a forward and backward pass for each batch, then an update."""
        task, config, device = self.task, self.config, self.runtime.device
        seed_step(config.seed, self.step, self.world.rank, device)
        lr = learning_rate(config, self.step, pace.total_steps, self.sampler.steps_an_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["scale"]

        # A gradient is scaled by the counts of the whole step: they are needed before the first.
        pass_counts = [task.counts(batch) for batch in batches]
        counts, n_photos, rejected = self._global_counts(pass_counts, batches, pace)

        self.module.train()
        if config.backbone_lr_factor == 0:
            task.model.encoder.eval()
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
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf)
        total = self.world.total(torch.stack(table))
        # Read together: the process waits for the GPU here, once a step.
        *values, grad_norm = torch.cat([total.flatten(), norm.to(total.dtype)[None]]).tolist()
        is_finite = bool(np.isfinite(grad_norm))
        if is_finite:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

        self.skipped_in_a_row = 0 if is_finite else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise RunProblem(
                f"the gradient was not finite in {MAX_SKIPPED} steps in a row "
                f"(at step {self.step}); a lower training.lr may help"
            )
        sums = {name: sum(values[index :: len(counts)]) for index, name in enumerate(counts)}
        means = {name: value / max(counts[name], 1.0) for name, value in sums.items()}
        self.rejected |= rejected
        self.step += 1
        self.position = plan.after
        return StepEvent(
            step=self.step, epoch=plan.epoch, losses=means, lr=lr, grad_norm=grad_norm,
            loss=sum(task.weights[name] * value for name, value in means.items()),
            photos=n_photos, rate_img_s=0.0, wait_share=0.0, skipped=not is_finite,
            rejected=rejected,
        )  # fmt: skip

    def _global_counts(
        self, pass_counts: list[dict[str, float]], batches: list[Batch], pace: Pace
    ) -> tuple[dict[str, float], int, dict[int, RecordProblem]]:
        """Counts, photos and rejected photos of this step over all passes and processes.

        The same exchange carries the requests to stop, and of the first process to save, so that
        all processes do so together.
        """
        rejected = dict(problem for batch in batches for problem in batch.rejected)
        values = {name: sum(counts[name] for counts in pass_counts) for name in pass_counts[0]}
        values |= {"photos": sum(b.n_photos for b in batches), "stops": pace.should_stop()}
        values |= {"saves": self.world.is_main and self.is_time_to_save}
        counts = self.world.sums(values | {"rejected": len(rejected)})
        self.was_stopped, self.is_time_to_save = counts.pop("stops") > 0, counts.pop("saves") > 0
        if counts.pop("rejected"):
            rejected = self.world.union(rejected)
        return counts, int(counts.pop("photos")), rejected

    def state(self) -> State:
        """Everything that the next step depends on; its tensors are not copies."""
        return {
            "model": {name: tensor.detach() for name, tensor in weights_of(self.model).items()},
            "optimiser": self.optimiser.state_dict(),
            "processes": self.world.size,
            "step": self.step,
            "epoch": self.position.epoch,
            "done": self.position.done,
            "skipped_in_a_row": self.skipped_in_a_row,
            "rejected": {i: (p.code, p.message) for i, p in self.rejected.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, folder: Path, notify: Callable[[str], None]) -> bool:
        """Load the newest intact checkpoint; False where there is none.

        RunProblem where the run had another number of processes.
        """
        state = load_checkpoint(folder, notify)
        if state is None:
            return False
        if state["processes"] != self.world.size:
            raise RunProblem(f"{folder}: of a run in {state['processes']} processes")
        with torch.no_grad():
            for name, tensor in weights_of(self.model).items():
                tensor.copy_(state["model"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.scaler.is_enabled() and state["scaler"]:  # else the run had another number format
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.position = Position(state["epoch"], state["done"])
        self.skipped_in_a_row = state["skipped_in_a_row"]
        for index, (code, message) in state["rejected"].items():
            self.rejected[index] = RecordProblem(message, code=code)
        return True


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


def build_optimiser(model: RAM, config: TrainingConfig) -> torch.optim.AdamW:
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
