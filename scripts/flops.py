#!/usr/bin/env python3
"""Floating-point operations a photo of each stage that needs the model, counted, not estimated.

    scripts/flops.py --preset ram-swin-l --labels 4585

A model of random weights does each stage once for two photos while torch counts what its matrix
products, convolutions and attention take: training forward and backward with one caption a photo,
and as the paper's teacher CLIP ViT-B/16's 35 GFLOP; tagging; a caption by beam search. Prints GFLOP
a photo as JSON. `scale_plan.py --tflops` divides them by what a GPU does a second.
"""

import argparse
import json
from collections.abc import Callable

from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ramctl.device import Runtime
from ramctl.engine.torch_engine import TorchEngine
from ramctl.model.build_ram import build_ram
from ramctl.model.captioning import CaptionInputs
from ramctl.model.generation import Decoding, Ends
from ramctl.model.preset import Preset, load_preset
from ramctl.training.data.batches import Batch
from ramctl.training.objectives import Counts, TrainingTask

PHOTOS = 2
PIECES = 20  # tokens of a caption
DESCRIPTIONS = 51  # of each label of RAM++
CLIP_B16 = 35.0  # GFLOP of the teacher's view of a photo


def counted(what: Callable[[], object]) -> float:
    """GFLOP a photo of what is done for all photos."""
    with FlopCounterMode(display=False) as counter:
        what()
    return float(counter.get_total_flops()) / PHOTOS / 1e9


def make_batch(preset: Preset, n: int, n_labels: int, vocabulary: int) -> Batch:
    """A training batch of `n` photos with eight labels and one caption each."""
    size, captioning = preset.preprocess.size, preset.model.captioning
    targets = torch.zeros(n, n_labels)
    targets.scatter_(1, torch.randint(n_labels, (n, 8)), 1)
    inputs, ids = None, None
    if captioning is not None:
        ids = torch.randint(10, vocabulary, (n, PIECES))
        tags = torch.randint(10, vocabulary, (n, captioning.tag_tokens))
        inputs = CaptionInputs(tags, torch.ones_like(tags), ids, torch.ones_like(ids))
    photos, names = torch.randn(n, 3, size, size), ("",) * n
    return Batch(photos, targets, None, inputs, ids, torch.arange(n), names, None, None, True, ())


def count(preset_name: str, n_labels: int) -> dict[str, float]:
    """GFLOP a photo: of a training step, of tagging, and of one caption in `generate`."""
    teachers = load_preset(preset_name).training.distill
    teacher = CLIP_B16 if any(name.startswith("clip:") for name in teachers) else 0.0
    alone = ["training.distill=[]", "training.alignment_weight=0"]  # without the teacher
    preset = load_preset(preset_name, alone)
    captioning = preset.model.captioning
    vocabulary = captioning.vocabulary if captioning else 0
    is_described = preset.model.labels.kind == "descriptions"
    model = build_ram(
        preset.model, image_size=preset.preprocess.size, n_labels=n_labels, vocabulary=vocabulary,
        description_counts=[DESCRIPTIONS] * n_labels if is_described else None,
    )  # fmt: skip
    task, batch = (
        TrainingTask(model, preset.training),
        make_batch(preset, PHOTOS, n_labels, vocabulary),
    )

    def step() -> None:
        task.train()
        counts = task.counts(batch)
        task.reduce(task(batch), Counts(counts, counts, 1, 1)).backward()

    found = {"train": counted(step) + teacher}
    task.zero_grad(set_to_none=True)
    engine = TorchEngine(model.eval(), Runtime(torch.device("cpu")))
    found["tag"] = found["detect"] = counted(lambda: engine.scores(batch.photos))
    found["generate"] = found["tag"]
    if captioning is not None:
        encoded = engine.encode(batch.photos)
        tags = np.full((PHOTOS, captioning.tag_tokens), 11, np.int64)
        prompt = np.full((PHOTOS, 4), 11, np.int64)
        decoding = Decoding(max_length=len(prompt[0]) + PIECES)
        ends = Ends(end=2, pad=0)
        found["generate"] += counted(
            lambda: engine.write(encoded, (tags, np.ones_like(tags)), prompt, decoding, ends)
        )
    return {stage: round(number, 1) for stage, number in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ram-swin-l")
    parser.add_argument("--labels", type=int, default=4585)
    given = parser.parse_args()
    print(json.dumps(count(given.preset, given.labels)))


if __name__ == "__main__":
    main()
