"""The cost of a run before it begins: parameters, memory, and seconds of a few steps."""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.training.data.batches import Batch
from ramctl.training.data.sampler import StepPlan
from ramctl.training.distributed import World
from ramctl.training.job import Job, RunContext, build_job, can_keep_features, runtime_of
from ramctl.training.loop import Pace, StepEvent
from ramctl.training.plan import TrainOptions, WorkFolder, open_plan

TIMED_STEPS = 3


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
            World(), runtime, plan.command, report.notify, report.reject, lambda n: None,
            workers=0, is_dry=True,
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

    step_s = []
    pace = Pace(min(total, TIMED_STEPS + 1), Path("unused"), save_every=total + 1)
    # Cut off before the event of a checkpoint, which would be written for nothing.
    for event in islice(trainer.events(loader, pace), pace.total_steps):
        assert isinstance(event, StepEvent)
        rate = event.rate_img_s
        step_s.append((1 - event.wait_share) * event.photos / rate if rate else 0.0)
    seconds = statistics.median(step_s[1:] or step_s)  # the first step allocates memory
    peak_mb: float = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb /= 2**20 if sys.platform == "darwin" else 2**10
    if trainer.runtime.device.type == "cuda":
        peak_mb = torch.cuda.max_memory_allocated(trainer.runtime.device) / 2**20
    n_records, parameters = len(job.records.records), list(trainer.model.parameters())
    facts = {
        "records": n_records,
        "labels": len(job.targets),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
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
