"""The cost of a run before it begins: parameters, memory, and seconds of a few steps."""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch

from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.training.data.batches import Batch
from ramctl.training.data.sampler import StepPlan
from ramctl.training.distributed import World
from ramctl.training.job import Job, RunContext, build_job, can_keep_features, runtime_of
from ramctl.training.loop import Pace, StepEvent
from ramctl.training.plan import TrainOptions, WorkFolder, open_plan

MAX_STEP_S = 2.0  # after a longer step with a part of a batch, the whole is estimated from it


def estimate_cost(options: TrainOptions, report: Report) -> JsonObject:
    """Parameters, memory and seconds a step of the run that the options describe.

    Photos of a few batches are read. A frozen encoder is timed separately, because a real run
    keeps its features.
    """
    with tempfile.TemporaryDirectory(prefix="ramctl-dry-run-") as folder:
        work = WorkFolder(Path(folder) / options.out.name)
        open_plan(replace(options, resume=False, restart=False), work, report)
        plan = replace(work.read_plan(options), cache=None)
        runtime = runtime_of(options, plan.preset.training.precision)
        context = RunContext(
            World(), runtime, plan.command, report.notify, report.reject,
            lambda title, total: nullcontext(lambda number: None), workers=0, is_dry=True,
        )  # fmt: skip
        return _measure_cost(build_job(plan, work, context))


def _measure_cost(job: Job) -> JsonObject:
    trainer, total = job.trainer, job.trainer.total_steps
    keeps_features, encode_s = can_keep_features(trainer.config, trainer.model.encoder), []

    def encoded(batch: Batch) -> Batch:
        """The batch as training would see it, with kept features in place of photos."""
        if not (keeps_features and batch.is_real):
            return batch
        started = time.monotonic()
        with torch.inference_mode():
            photos = batch.photos.to(trainer.runtime.device)
            features = trainer.model.encoder.eval().frozen_features(photos)
        encode_s.append((time.monotonic() - started) / len(photos))
        # Cloned: tensors of inference mode cannot take part in a gradient.
        return replace(batch, photos=features.clone())

    def loader(plans: Iterator[StepPlan]) -> Iterator[tuple[StepPlan, list[Batch]]]:
        for plan, batches in job.training_set.batches(plans):
            yield plan, [encoded(batch) for batch in batches]

    # On a CPU a step of a large model takes minutes: ever more photos, while that is fast.
    sampler, n_photos, before_mb = trainer.sampler, 1, _peak_mb(trainer.runtime.device)
    batch = min(sampler.batch, len(sampler.ids))
    pace = Pace(total + batch, Path("unused"), save_every=total + batch)
    while True:
        trainer.sampler = replace(sampler, batch=n_photos, accumulation=1)
        event = cast(StepEvent, next(trainer.events(loader, pace)))
        seconds = (1 - event.wait_share) * event.photos / max(event.rate_img_s, 1e-9)
        if n_photos == batch or (n_photos > 1 and seconds > MAX_STEP_S):
            break
        n_photos = min(2 * n_photos, batch)
    trainer.sampler = sampler
    seconds *= batch / n_photos * sampler.accumulation
    n_records, parameters = len(job.records.records), list(trainer.model.parameters())
    n_trained = sum(p.numel() for p in parameters if p.requires_grad)
    # Gradients and AdamW's two moments do not grow with the photos.
    fixed_mb = before_mb + n_trained * 12 / 2**20
    peak_mb = _peak_mb(trainer.runtime.device)
    peak_mb += max(peak_mb - fixed_mb, 0) * (batch / n_photos - 1)
    facts = {
        "records": n_records,
        "labels": len(job.targets),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": n_trained,
        "photos_a_step": trainer.sampler.records_a_step,
        "steps_an_epoch": trainer.sampler.steps_an_epoch,
        "steps": total,
        "seconds_a_step": round(seconds, 3),
        "seconds_of_steps": round(seconds * total, 1),
        "peak_memory_mb": round(peak_mb),
    }
    if encode_s:
        views = 2 if job.plan.preset.training.augment.flip else 1
        a_photo = statistics.median(encode_s) * views
        facts["seconds_to_keep_features"] = round(a_photo * n_records, 1)
    return facts


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak_kb: float = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_kb / (2**20 if sys.platform == "darwin" else 2**10)
