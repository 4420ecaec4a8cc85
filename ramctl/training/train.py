"""The training loop: a generator of events.

A step depends on the weights, the optimiser's state and (seed, step, rank) alone: random numbers
are seeded anew for each step, so that a resumed run repeats an uninterrupted one bit for bit, and
goes on at another number of processes.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RecordProblem, RunProblem
from ramctl.model.config import TrainingConfig
from ramctl.model.losses import LossTerm
from ramctl.training.batches import Batch
from ramctl.training.checkpoint import load_checkpoint, save_checkpoint
from ramctl.training.compiling import CompiledParts
from ramctl.training.distributed import World
from ramctl.training.events import CheckpointEvent, Event, StepEvent, ValidationEvent
from ramctl.training.objective import Objective, sample_labels
from ramctl.training.optimiser import (
    AveragedWeights,
    build_optimiser,
    learning_rate,
    set_learning_rate,
)
from ramctl.training.sampler import Position, Sampler, StepPlan

MOST_SKIPPED = 10  # steps in a row without a finite gradient
SAVE_EVERY_S = 300.0

Loader = Callable[[Iterator[StepPlan]], Iterator[tuple[StepPlan, list[Batch]]]]


@dataclass(slots=True)
class Pace:
    """How long a run goes on, and when it saves and validates."""

    total_steps: int
    checkpoints: Path
    save_every: int | None = None  # steps; None: every five minutes
    validate: Callable[[int], ValidationEvent] | None = None
    should_stop: Callable[[], bool] = field(default=lambda: False)


class Trainer:
    """Model, optimiser and position of one run."""

    def __init__(
        self,
        objective: Objective,
        config: TrainingConfig,
        sampler: Sampler,
        *,
        world: World | None = None,
        device: torch.device | None = None,
        bf16: bool = False,
    ) -> None:
        self.objective = objective
        self.config = config
        self.sampler = sampler
        self.world = world or World()
        self.device = device or torch.device("cpu")
        self.bf16 = bf16
        self.module: nn.Module = objective
        self.optimiser = build_optimiser(objective.model, config)
        self.averaged = AveragedWeights(objective.model, config.ema) if config.ema else None
        self.compiled: CompiledParts | None = None
        self.step = 0
        self.shift = 0  # steps done beyond those of a run that always had this many processes
        self.position = Position()
        self.skipped_in_a_row = 0
        self.was_stopped = False
        self.rejected: dict[int, RecordProblem] = {}

    def events(self, loader: Loader, pace: Pace) -> Iterator[Event]:
        """Train to the last step, or until asked to stop; the state is saved then."""
        self.module = self.world.wrap(self.objective, self.device)
        saved_at, saved_step = time.monotonic(), self.step
        steps = loader(self.sampler.steps(self.position))
        while self.step < pace.total_steps and not self.was_stopped:
            epoch = self.position.epoch
            yield self._next(steps, pace)
            is_last = self.step == pace.total_steps or self.was_stopped
            if self._is_save_due(pace, saved_at, saved_step) or is_last:
                if self.world.is_main:
                    yield CheckpointEvent(self.step, self.save(pace.checkpoints))
                saved_at, saved_step = time.monotonic(), self.step
            if pace.validate and (self.position.epoch > epoch) and not is_last:
                with self.final_weights():
                    yield pace.validate(self.step)
        steps.close()  # type: ignore[attr-defined]

    def _is_save_due(self, pace: Pace, saved_at: float, saved_step: int) -> bool:
        if pace.save_every:
            return self.step - saved_step >= pace.save_every
        return time.monotonic() - saved_at >= SAVE_EVERY_S

    def _next(self, steps: Iterator[tuple[StepPlan, list[Batch]]], pace: Pace) -> StepEvent:
        started = time.monotonic()
        plan, batches = next(steps)
        waited = time.monotonic() - started
        event = self._step(plan, batches, pace)
        seconds = max(time.monotonic() - started, 1e-9)
        rate = event.n_photos / seconds
        return _replaced(event, rate_img_s=rate, wait_share=waited / seconds)

    def _step(self, plan: StepPlan, batches: list[Batch], pace: Pace) -> StepEvent:
        """One optimiser step over all passes and processes."""
        seed_step(self.config.seed, self.step, self.world.rank, self.device)
        lr = learning_rate(
            self.config, self.step - self.shift, pace.total_steps - self.shift,
            self.sampler.steps_an_epoch,
        )  # fmt: skip
        set_learning_rate(self.optimiser, lr)
        counts, n_photos = self._global_counts(batches, pace)
        self._set_training_mode()
        sums: dict[str, float] = dict.fromkeys(counts, 0.0)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            for name, value in self._backward(batch, counts, len(batches), last=last).items():
                sums[name] += value
        norm, is_finite = self._update()
        sums = dict(zip(sums, self.world.sums(list(sums.values()), self.device), strict=True))
        losses = {name: value / max(counts[name], 1.0) for name, value in sums.items()}
        total = sum(self.objective.weights[name] * value for name, value in losses.items())
        self.step += 1
        self.position = plan.after
        rejected = dict(problem for batch in batches for problem in batch.rejected)
        self.rejected |= rejected
        return StepEvent(
            self.step, plan.epoch, losses, total, lr, norm, n_photos, 0.0, 0.0,
            not is_finite, rejected,
        )  # fmt: skip

    def _global_counts(self, batches: list[Batch], pace: Pace) -> tuple[dict[str, float], int]:
        """What each loss's sum is over in this step; tells all processes who wants to stop."""
        local = [self.objective.counts(batch) for batch in batches]
        names = list(local[0])
        values = [sum(counts[name] for counts in local) for name in names]
        photos = float(sum(batch.n_photos for batch in batches))
        *summed, n_photos, stops = self.world.sums(
            [*values, photos, float(pace.should_stop())], self.device
        )
        self.was_stopped = stops > 0
        return dict(zip(names, summed, strict=True)), int(n_photos)

    def _set_training_mode(self) -> None:
        self.module.train()
        if self.config.backbone_lr_factor == 0:
            self.objective.model.encoder.eval()

    def _backward(
        self, batch: Batch, counts: dict[str, float], n_passes: int, *, last: bool
    ) -> dict[str, float]:
        """Add a pass's gradient; the sums of its losses."""
        batch = batch.to(self.device)
        generator = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFFFFFF)
        sampled = sample_labels(
            batch.targets, self.config.sampled_labels, generator, self.objective.trained
        )
        accumulate = not last and self.world.size > 1
        context = self.module.no_sync() if accumulate else contextlib.nullcontext()  # type: ignore[operator]
        with context:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                sums: dict[str, Tensor] = self.module(batch, sampled)
            if self.config.loss == "ram-official":
                local = self.objective.counts(batch)
                terms = {n: LossTerm(v, torch.tensor(local[n])) for n, v in sums.items()}
                loss = self.objective.official_total(terms) / n_passes
            else:
                # Wrapped gradients are averaged over the processes, counts are global already.
                loss = self.objective.total(sums, counts) * self.world.size
            torch.autograd.backward(loss)
        return {name: float(value.detach()) for name, value in sums.items()}

    def _update(self) -> tuple[float, bool]:
        """Clip and apply the gradient; (its norm, whether it was finite)."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        limit = self.config.clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        is_finite = bool(np.isfinite(norm))
        if is_finite:
            self.optimiser.step()
            if self.averaged:
                self.averaged.update(self.objective.model)
            self.skipped_in_a_row = 0
        else:
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= MOST_SKIPPED:
                raise RunProblem(
                    f"the gradient was not finite in {MOST_SKIPPED} steps in a row "
                    f"(at step {self.step}); a lower training.lr may help"
                )
        self.optimiser.zero_grad(set_to_none=True)
        return norm, is_finite

    @contextlib.contextmanager
    def final_weights(self) -> Iterator[None]:
        """The model in evaluation mode with the weights that a bundle would get now."""
        model = self.objective.model
        own = AveragedWeights(model, 0.0) if self.averaged else None
        if self.averaged:
            self.averaged.copy_to(model)
        model.eval()
        try:
            with self.compiled.off() if self.compiled else contextlib.nullcontext():
                yield
        finally:
            if own:
                own.copy_to(model)

    def save(self, folder: Path) -> Path:
        """Save the state; the path of the checkpoint."""
        model = self.objective.model
        state: dict[str, Any] = {
            "step": self.step,
            "epoch": self.position.epoch,
            "done": self.position.done,
            "skipped_in_a_row": self.skipped_in_a_row,
            "rejected": {i: (p.code, p.message) for i, p in self.rejected.items()},
            "model": {name: tensor.detach() for name, tensor in weights_of(model).items()},
            "optimiser": self.optimiser.state_dict(),
        }
        if self.averaged:
            state["averaged"] = self.averaged.tensors
            state["averaged_updates"] = self.averaged.updates
        return save_checkpoint(folder, self.step, state)

    def restore(self, folder: Path) -> bool:
        """Go back to the last saved state; False where there is none."""
        checkpoint = load_checkpoint(folder)
        if checkpoint is None:
            return False
        state = checkpoint.state
        with torch.no_grad():
            for name, tensor in weights_of(self.objective.model).items():
                tensor.copy_(state["model"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.averaged:
            for name, tensor in self.averaged.tensors.items():
                tensor.copy_(state["averaged"][name])
            self.averaged.updates = state["averaged_updates"]
        self.step = state["step"]
        self.position = Position(state["epoch"], state["done"])
        if not self.config.steps:
            # The schedule counts epochs: after a change of processes they have other steps.
            self.shift = self.step - self.sampler.steps_until(self.position)
        self.skipped_in_a_row = state["skipped_in_a_row"]
        self.rejected = {
            index: RecordProblem(message, code=code)
            for index, (code, message) in state["rejected"].items()
        }
        return True


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed every source of random numbers for one step of one process."""
    state = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    # torch.manual_seed looks for every kind of device: a millisecond and a half a step.
    torch.default_generator.manual_seed(state)
    if device.type == "cuda":
        torch.cuda.manual_seed(state)
    elif device.type == "mps":
        torch.mps.manual_seed(state)


def _replaced(event: StepEvent, **changes: Any) -> StepEvent:
    values = {name: getattr(event, name) for name in event.__slots__}
    return StepEvent(**values | changes)
