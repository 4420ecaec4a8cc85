"""`--dry-run`: what a run would cost, from a few steps that leave nothing behind."""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ramctl.device import choose_device, uses_bf16
from ramctl.records.report import Report
from ramctl.training.assembly import Job, Surroundings, build_job, can_keep_features
from ramctl.training.batches import Batch, batches
from ramctl.training.distributed import World
from ramctl.training.plan import TrainOptions, open_plan
from ramctl.training.sampler import StepPlan
from ramctl.training.train import Pace
from ramctl.training.work_folder import WorkFolder

TIMED_STEPS = 3


def dry_run(options: TrainOptions, report: Report) -> dict[str, Any]:
    """Parameters, memory and seconds a step of the run that the options describe.

    Photos of a few batches are read; a frozen encoder is timed apart, as its features are kept.
    """
    with tempfile.TemporaryDirectory(prefix="ramctl-dry-run-") as folder:
        work = WorkFolder(Path(folder) / options.out.name)
        open_plan(replace(options, resume=False, restart=False), work, report)
        plan = replace(work.read_plan(), cache=None)
        device = choose_device(options.device)
        precision = plan.preset["training"]["precision"]
        wanted = precision if options.dtype == "auto" else options.dtype
        bf16 = uses_bf16(wanted, device, on_cpu=True)
        around = Surroundings(World(), device, bf16, report.say, report.reject, lambda n: None)
        job = build_job(plan, work, around, keeps_features=False)
        return _measure(job, work)


def _measure(job: Job, work: WorkFolder) -> dict[str, Any]:
    trainer, training = job.trainer, job.preset.training
    model = trainer.objective.model
    encode_s: list[float] = []

    def loader(plans: Iterator[StepPlan]) -> Iterator[tuple[StepPlan, list[Batch]]]:
        for plan, made in batches(job.training_set, job.collate, plans, 0):
            yield plan, [_encoded(job, batch, encode_s) for batch in made]

    total, step_s = job.total_steps, []
    pace = Pace(min(total, TIMED_STEPS + 1), work.checkpoints, save_every=total + 1)
    for event in islice(trainer.events(loader, pace), pace.total_steps):
        n_photos, rate = event.n_photos, event.rate_img_s  # type: ignore[union-attr]
        wait = event.wait_share  # type: ignore[union-attr]
        step_s.append((1 - wait) * n_photos / rate if rate else 0.0)
    seconds = statistics.median(step_s[1:] or step_s)
    parameters = list(model.parameters())
    facts = {
        "records": len(job.found.records),
        "labels": len(job.labels),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "photos_a_step": trainer.sampler.records_a_step,
        "steps_an_epoch": trainer.sampler.steps_an_epoch,
        "steps": total,
        "seconds_a_step": round(seconds, 3),
        "seconds_of_steps": round(seconds * total, 1),
        "peak_memory_mb": round(_peak_memory_mb(trainer.device)),
    }
    if encode_s:
        views = 2 if training.augment.flip else 1
        a_photo = statistics.median(encode_s) * views
        facts["seconds_to_keep_features"] = round(a_photo * len(job.found.records), 1)
    return facts


def _encoded(job: Job, batch: Batch, seconds: list[float]) -> Batch:
    """The batch as training will see it: features where the encoder is frozen."""
    if not can_keep_features(job.preset) or not batch.is_real:
        return batch
    started = time.monotonic()
    encoder = job.trainer.objective.model.encoder.eval()
    with torch.inference_mode():
        photos = batch.photos.to(job.trainer.device)
        features = encoder.frozen_features(photos)
    seconds.append((time.monotonic() - started) / len(photos))
    # Cloned: tensors of inference mode cannot take part in a gradient.
    return replace(batch, photos=features.clone())


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
