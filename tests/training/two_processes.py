"""Runs of a plan, one after another, in each of the processes that torchrun starts.

`python -m torch.distributed.run ... tests/training/two_processes.py FILE` reads the runs from a
JSON file; the first process leaves NAME.pt (the state in the end) and NAME.json of each.
"""

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from ramctl.device import Runtime
from ramctl.training.distributed import World, join_world
from ramctl.training.job import Job, RunContext
from ramctl.training.logs import StepEvent
from ramctl.training.plan import TrainOptions, WorkFolder
from ramctl.training.train import Pace, Trainer


@dataclass(frozen=True)
class Run:
    """A run, or a part of one: from its last checkpoint on."""

    name: str
    out: str  # beside whose work folder the plan lies
    checkpoints: str
    steps: int
    shard: bool
    dtype: str = "fp32"
    alone: bool = False  # in the first process, as if there were no other


def numbers_here(trainer: Trainer) -> dict[str, int]:
    """How many numbers this process holds, of weights and of the optimiser."""
    state = trainer.optimiser.state.values()
    kept = {
        "weights": list(trainer.model.parameters()),
        "optimiser": [t for numbers in state for key, t in numbers.items() if key != "step"],
        "averaged": list(trainer.averaged.tensors.values()) if trainer.averaged else [],
    }
    return {
        name: sum((t.to_local() if isinstance(t, DTensor) else t).numel() for t in tensors)
        for name, tensors in kept.items()
    }


def do(run: Run, world: World) -> None:
    """Train to the step that is asked for."""
    work, events = WorkFolder(Path(run.out)), []
    context = RunContext(
        world, Runtime(torch.device("cpu"), run.dtype), lambda line: None, lambda reject: None,
        lambda n: None, 0, run.shard,
    )  # fmt: skip
    if not world.is_main:
        world.wait()
    job = Job(work.read_plan(TrainOptions()), work, context)
    if world.is_main:
        world.wait()
    trainer = job.trainer
    trainer.restore(Path(run.checkpoints), print)
    begun = copy.deepcopy(trainer.state())
    pace = Pace(
        trainer.total_steps, Path(run.checkpoints), save_every=10**6,
        should_stop=lambda: trainer.step + 1 >= run.steps,
    )  # fmt: skip
    if trainer.step < run.steps:
        for event in trainer.events(job.training_set.batches, pace):
            if isinstance(event, StepEvent):
                events.append(event.to_json())
    state = trainer.state()
    with trainer.final_weights() as model:
        weights = {name: tensor.clone() for name, tensor in model.named_parameters()}
    kept = world.collected(numbers_here(trainer))
    if world.is_main:
        torch.save({"begun": begun, "state": state, "final": weights}, f"{run.name}.pt")
        Path(f"{run.name}.json").write_text(json.dumps({"events": events, "kept": kept}))


if __name__ == "__main__":
    with join_world("cpu") as world:
        for run in (Run(**row) for row in json.loads(Path(sys.argv[1]).read_text())):
            if not run.alone:
                do(run, world)
            elif world.is_main:
                do(run, World())
            world.wait()
