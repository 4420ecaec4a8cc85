#!/usr/bin/env python3
"""Training speed of the loop against a bare PyTorch loop over the same modules, in one run.

Two copies of one model see the same batches in turn, in alternating order; the bare loop is
forward, losses, backward, clipping and AdamW and nothing else. Figures are medians. Then:
checkpoints (how long one stops training), loading (photos with
augmentation as batches, against decoding and augmenting alone), and start-up (reading records, and
what a resumed run or a further process takes).

    scripts/bench/train.py --preset mini --batch 64 --labels 1600 --repeat 15
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("timm", "torch")

import numpy as np
import timm
import torch
from flops import make_batch

from ramctl.device import Runtime, set_up_cpu
from ramctl.labels import LabelSystem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import Preset, load_preset
from ramctl.records.parallel import usable_cores
from ramctl.training.checkpoint import save_checkpoint
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.batches import Batch, TrainingSet
from ramctl.training.data.record_file import Source
from ramctl.training.data.record_scan import scan_records
from ramctl.training.data.sampler import Position, Sampler
from ramctl.training.data.targets import Targets, read_annotation
from ramctl.training.data.teachers import TagTargets
from ramctl.training.loop import SAVE_EVERY_S, Pace, Trainer, build_optimiser
from ramctl.training.objectives import Counts, TrainingTask

VOCABULARY = 4000


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


def batch_of(task: TrainingTask, options: argparse.Namespace) -> Batch:
    """A batch as the loader gives it; of a frozen encoder's features where they can be kept."""
    preset = read_preset(options)
    batch = make_batch(preset, options.batch, options.labels, VOCABULARY)
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


def own_loop(
    task: TrainingTask, options: argparse.Namespace, batch: Batch, folder: Path
) -> Iterator[object]:
    """The events of the loop as `ramctl train` runs it."""
    sampler = Sampler(np.arange(1 << 20), len(batch.targets))
    runtime = Runtime(torch.device("cpu"))
    trainer = Trainer(task, read_preset(options).training, sampler, runtime=runtime)
    pace = Pace(1 << 30, folder, save_every=1 << 30)
    return trainer.events(lambda plans: ((plan, [batch]) for plan in plans), pace)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Seconds a step of both, alternating."""
    task = build(options)
    batch = batch_of(task, options)
    bare = bare_loop(copy.deepcopy(task), options, batch)
    events = own_loop(task, options, batch, Path("unused"))
    calls: dict[str, Callable[[], object]] = {"bare": bare, "ours": lambda: next(events)}
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


def checkpoints(options: argparse.Namespace) -> dict[str, object]:
    """The cost of a checkpoint of the model and its two moments."""
    task = build(options)
    batch = batch_of(task, options)
    sampler = Sampler(np.arange(1 << 20), len(batch.targets))
    runtime = Runtime(torch.device("cpu"))
    trainer = Trainer(task, read_preset(options).training, sampler, runtime=runtime)
    with tempfile.TemporaryDirectory() as folder:
        pace = Pace(1 << 30, Path(folder), save_every=1 << 30)
        next(trainer.events(lambda plans: ((plan, [batch]) for plan in plans), pace))
        stops, size = [], 0
        for number in range(options.repeat):
            start = time.perf_counter()
            path = save_checkpoint(Path(folder), number, trainer.state())
            stops.append(time.perf_counter() - start)
            size = path.stat().st_size
    stop = statistics.median(stops)
    return {
        "MB": round(size / 1e6, 1),
        "seconds that stop training": stop,
        "share of training's time, one every five minutes": stop / SAVE_EVERY_S,
    }


def loading(folder: Path, number: int) -> dict[str, float]:
    """Photos/s as batches with augmentation, and decoded and augmented by a bare loop."""
    preset = load_preset("ram-swin-b", ["training.distill=[]"])
    photos = sorted(path for path in folder.rglob("*.jpg"))[:number]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "records.jsonl"
        rows = [{"image": str(photo.resolve()), "tags": ["dog"]} for photo in photos]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = scan_records([Source.of(str(path), None)], print, "train", hold_out=False)
        augmented = TrainingPhoto(preset.preprocess, preset.training.augment)
        targets = TagTargets(Targets(LabelSystem.from_tags(["dog"])), preset.training)
        training_set = TrainingSet(
            found.records, targets, preset.training, augmented, None, None, None, 0
        )
        sampler = Sampler(found.training_ids, 32)
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(3):
            start = time.process_time()
            steps = training_set.batches(sampler.steps(Position()))
            for _ in range(sampler.steps_an_epoch):
                next(steps)
            seconds["ours"].append(time.process_time() - start)
            notes = [read_annotation(found.records[i]) for i in range(len(photos))]
            start = time.process_time()
            for index, note in enumerate(notes):
                augmented(note, np.random.default_rng([0, index]))
            seconds["bare"].append(time.process_time() - start)
    rates = {name: len(photos) / statistics.median(own) for name, own in seconds.items()}
    return {f"{name}, photos/s": rate for name, rate in rates.items()} | {
        "ours / bare": rates["ours"] / rates["bare"]
    }


def start_up(n_records: int) -> dict[str, float]:
    """Seconds to read records, and to read what an earlier run or the first process found."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "records.jsonl"
        Path(place, "0.jpg").touch()
        with path.open("w") as stream:
            for number in range(n_records):
                row = {
                    "image": f"{number}.jpg" if number else "0.jpg",
                    "captions": ["A brown dog runs across a field of grass in the sun."],
                    "caption_tags": [["dog", "field", "grass", "sun", "run", "brown"]],
                    "tags": ["dog", "field", "grass", "sun", "run", "brown"],
                }
                stream.write(json.dumps(row) + "\n")
        sources = [Source.of(str(path), None)]

        took = {}
        for jobs in (1, usable_cores()):
            start = time.perf_counter()
            scan_records(sources, print, "train", hold_out=True, jobs=jobs)
            took[f"cores: {jobs}"] = time.perf_counter() - start
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--labels", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs, to measure loading")
    parser.add_argument("--number", type=int, default=200, help="of them")
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 1_000_000])
    options = parser.parse_args()
    set_up_cpu(options.threads)
    torch.manual_seed(0)
    facts = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        **measure(options),
        "checkpoints": checkpoints(options),
        "start-up, seconds": {
            f"{number:,} records": start_up(number) for number in options.records
        },
    }
    if options.photos is not None:
        facts["loading"] = loading(options.photos, options.number)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
