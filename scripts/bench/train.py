#!/usr/bin/env python3
"""Training speed of the loop against a bare PyTorch loop over the same modules, in one run.

Two copies of one model see the same batches in turn, in alternating order; the bare loop is
forward, losses, backward, clipping and AdamW and nothing else. Figures are medians.

    scripts/bench/train.py --preset mini --batch 64 --labels 1600 --repeat 15
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import torch

from ramctl.model.build_ram import build_ram
from ramctl.model.captioning import CaptionInputs
from ramctl.model.device import Runtime, set_up_cpu
from ramctl.model.preset import Preset, load_preset
from ramctl.training.data import Batch
from ramctl.training.distributed import World
from ramctl.training.losses import Counts, TrainingTask
from ramctl.training.trainer import Trainer, build_optimiser

VOCABULARY = 4000
PIECES = 20  # tokens of a caption


def build(options: argparse.Namespace) -> TrainingTask:
    """The preset's model and losses, random weights; a frozen encoder's features are the input."""
    preset = read_preset(options)
    captioning = preset.model.captioning
    model = build_ram(
        preset.model,
        image_size=preset.preprocess.size,
        n_labels=options.labels,
        vocabulary=VOCABULARY if captioning else 0,
    )
    with torch.no_grad():
        model.labels.text.copy_(torch.nn.functional.normalize(torch.randn_like(model.labels.text)))
    if preset.training.backbone_lr_factor == 0:
        model.encoder.requires_grad_(False)
    return TrainingTask(model, preset.training)


def read_preset(options: argparse.Namespace) -> Preset:
    """The preset without teachers."""
    return load_preset(
        options.preset, [f"training.batch_size={options.batch}", "training.distill=[]"]
    )


def make_batch(preset: Preset, n: int, n_labels: int) -> Batch:
    """A training batch of `n` photos with eight labels and one caption each."""
    size, captioning = preset.preprocess.size, preset.model.captioning
    targets = torch.zeros(n, n_labels)
    targets.scatter_(1, torch.randint(n_labels, (n, 8)), 1)
    inputs, ids = None, None
    if captioning is not None:
        ids = torch.randint(10, VOCABULARY, (n, PIECES))
        tags = torch.randint(10, VOCABULARY, (n, captioning.tag_tokens))
        inputs = CaptionInputs(tags, torch.ones_like(tags), ids, torch.ones_like(ids))
    photos, names = torch.randn(n, 3, size, size), ("",) * n
    return Batch(photos, targets, None, inputs, ids, torch.arange(n), names, None, None, True, ())


def batch_of(task: TrainingTask, options: argparse.Namespace) -> Batch:
    """A batch as the loader gives it; of a frozen encoder's features where they can be kept."""
    preset = read_preset(options)
    batch = make_batch(preset, options.batch, options.labels)
    if preset.training.backbone_lr_factor == 0:
        with torch.no_grad():
            features = torch.cat([task.model.encoder(part) for part in batch.photos.split(8)])
        batch = replace(batch, photos=features)
    return batch


def bare_loop(task: TrainingTask, options: argparse.Namespace, batch: Batch) -> Callable[[], None]:
    """One step of a loop with nothing around it."""
    config, model = read_preset(options).training, task.model
    optimiser = build_optimiser(model, config)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def step() -> None:
        task.train()
        counts = task.counts(batch)
        loss = task.reduce(task(batch), Counts(counts, counts, 1, 1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or float("inf"))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Seconds a step of both, alternating."""
    task = build(options)
    batch = batch_of(task, options)
    bare = bare_loop(copy.deepcopy(task), options, batch)
    trainer = Trainer(task, Runtime(torch.device("cpu")), World(), {})
    ours = partial(trainer.take_step, [batch], task.config.lr)
    calls: dict[str, Callable[[], object]] = {"bare": bare, "ours": ours}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(options.repeat + 2):
        for name in sorted(calls, reverse=bool(turn % 2)):
            wall, processor = time.perf_counter(), time.process_time()
            calls[name]()
            spent = time.perf_counter() - wall, time.process_time() - processor
            seconds[name].append(spent)
    kept = {name: times[2:] for name, times in seconds.items()}
    medians = {
        kind: {name: statistics.median(t[place] for t in times) for name, times in kept.items()}
        for place, kind in enumerate(("wall", "processor"))
    }
    return {
        **{kind: values | {"ours / bare": values["ours"] / values["bare"]}
           for kind, values in medians.items()},
        "images/s": options.batch / medians["wall"]["ours"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--labels", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_up_cpu(options.threads)
    torch.manual_seed(0)
    facts = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        **measure(options),
    }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
