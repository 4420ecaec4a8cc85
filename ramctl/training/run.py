"""A whole training run: from the options to the bundle, through interruptions."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any

import torch

from ramctl.device import choose_device, set_up_cpu, uses_bf16
from ramctl.errors import Interrupted, RamctlError, RecordProblem
from ramctl.labels import DEFAULT_THRESHOLD
from ramctl.records.record import Reject
from ramctl.records.report import Progress, Rejects, Report, progress_bar
from ramctl.records.signals import StopRequest
from ramctl.training.assembly import Job, Surroundings, build_job
from ramctl.training.batches import batches
from ramctl.training.compiling import CompiledParts, why_not_compiled
from ramctl.training.distributed import World, join_world
from ramctl.training.events import Event, StepEvent, ValidationEvent
from ramctl.training.logs import EventLogs, describe_step, open_logs
from ramctl.training.plan import TrainOptions, open_plan
from ramctl.training.publish import Product, fill_untrained_labels, publish, round_weights
from ramctl.training.tensorboard import require_tensorboard
from ramctl.training.train import Loader, Pace
from ramctl.training.validation import Scored, score
from ramctl.training.work_folder import Plan, WorkFolder

LOG_EVERY_S = 60.0
RESUME_HINT = "continue with --resume"
NO_LOGS: dict[str, Any] = {"events": None, "tensorboard": None}


def run_training(options: TrainOptions, report: Report) -> Report:
    """Train, and write the bundle; the report tells what became of the records.

    Raises Interrupted when a signal asked to stop: the state is saved, `resume` goes on.
    """
    if options.tensorboard is not None:
        require_tensorboard()
    set_up_cpu(options.threads)
    with join_world("cuda" if _is_cuda(options.device) else "cpu") as world:
        report.quiet = report.quiet or not world.is_main
        work = WorkFolder(options.out)
        if options.resume and work.is_finished():
            report.say(f"{options.out} is complete: nothing to resume")
            return report
        if world.is_main:
            open_plan(options, work, report)
        world.wait()
        with ExitStack() as stack:
            try:
                return _Run(options, report, work, world, stack).run()
            except RamctlError as error:
                # A run that failed before it did anything must not stand in the next one's way.
                if world.is_main and not isinstance(error, Interrupted) and not work.is_begun():
                    work.remove()
                raise


def _is_cuda(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


class _TimeIsUp(Exception):
    """`--max-time` has passed before the first step; what was read is kept."""


class _Run:
    """One process of a run."""

    def __init__(
        self,
        options: TrainOptions,
        report: Report,
        work: WorkFolder,
        world: World,
        stack: ExitStack,
    ) -> None:
        self.options, self.report, self.work, self.world = options, report, work, world
        self.stop = stack.enter_context(StopRequest())
        name = options.rejects if world.is_main else None
        self.rejects = Rejects(report, name, strict=options.strict)
        self.started = self.logged = time.monotonic()
        self.rejected: set[int] = set()

    def run(self) -> Report:
        """Build the job, train, publish."""
        device = choose_device(self.options.device, local_rank=self.world.local_rank)
        plan = self.work.read_plan()
        precision = plan.preset["training"]["precision"]
        if self.options.dtype != "auto":
            precision = self.options.dtype
        bf16 = uses_bf16(precision, device, on_cpu=True)
        self.report.device = f"{device}, {'bf16' if bf16 else 'fp32'}"
        try:
            job = self._build(plan, device, bf16)
            if self._train(job):
                if self.world.is_main:
                    self._publish(job)
                self.world.wait()
        except Interrupted:
            self.report.say(f"interrupted while reading photos; {RESUME_HINT}")
            raise
        except _TimeIsUp:
            self.report.say(f"stopped while reading photos; {RESUME_HINT}")
            return self.report
        finally:
            self.rejects.finish()
        self.report.n_out = self.report.n_in - self.report.n_rejected
        self.report.say(self.report.summary())
        if self.stop.signum is not None:
            raise Interrupted(self.stop.signum)
        return self.report

    def _build(self, plan: Plan, device: torch.device, bf16: bool) -> Job:
        """The job; the first process prepares the work folder before the others read it."""
        shown = False if self.report.quiet else self.options.progress
        with progress_bar("reading", "records", shown=shown) as bar:

            def on_read(number: int) -> None:
                bar.update(number)
                if self.stop.signum is not None:
                    raise Interrupted(self.stop.signum)
                if self._should_stop():
                    raise _TimeIsUp

            around = Surroundings(self.world, device, bf16, self.report.say, self._reject, on_read)
            if not self.world.is_main:
                self.world.wait()
            job = build_job(plan, self.work, around)
            if self.world.is_main:
                self.world.wait()
        self.report.n_in = job.n_lines
        return job

    def _train(self, job: Job) -> bool:
        """Train to the end, True; or as far as signals and `--max-time` allow."""
        trainer = job.trainer
        if resumed := trainer.restore(self.work.checkpoints):
            self.report.say(f"going on after step {trainer.step} of {job.total_steps}")
            self._report_photos(job, trainer.rejected)
        if self.options.compile:
            self._compile(job)
        validates = self.world.is_main and job.validation is not None
        pace = Pace(
            job.total_steps,
            self.work.checkpoints,
            self.options.save_every,
            (lambda step: self._validate(job, step)[1]) if validates else None,
            self._should_stop,
        )
        shown = False if self.report.quiet else self.options.progress
        with (
            progress_bar("train", "steps", shown=shown, total=job.total_steps) as bar,
            self._logs(trainer.step if resumed else None) as logs,
        ):
            bar.update(trainer.step)
            for event in trainer.events(self._loader(job), pace):
                self._tell(job, event, bar, logs)
        left = job.total_steps - trainer.step
        if left:
            self.report.say(f"stopped after step {trainer.step}, {left} left; {RESUME_HINT}")
        return not left

    def _compile(self, job: Job) -> None:
        trainer = job.trainer
        reason = why_not_compiled(trainer.device)
        if reason is None:
            trainer.compiled = CompiledParts(trainer.objective.model)
        else:
            self.report.say(f"--compile does not work here, going on without: {reason}")

    def _logs(self, resumed_at: int | None) -> AbstractContextManager[EventLogs]:
        options = self.options if self.world.is_main else replace(self.options, **NO_LOGS)
        return open_logs(options.events, options.tensorboard, resumed_at=resumed_at)

    def _loader(self, job: Job) -> Loader:
        # Kept features are read faster than worker processes could hand them over.
        workers = self.options.workers
        if workers is None:
            workers = 0 if job.training_set.features else job.preset.training.workers
        return lambda plans: batches(job.training_set, job.collate, plans, workers)

    def _should_stop(self) -> bool:
        limit = self.options.max_time
        late = limit is not None and time.monotonic() - self.started >= limit
        return late or self.stop.signum is not None

    def _tell(self, job: Job, event: Event, bar: Progress, logs: EventLogs) -> None:
        logs.write(event)
        if isinstance(event, StepEvent):
            bar.update(1)
            self._report_photos(job, event.rejected)
            is_last = event.step == job.total_steps
            if is_last or time.monotonic() - self.logged >= LOG_EVERY_S:
                self.logged = time.monotonic()
                self.report.say(describe_step(event, job.total_steps))
        elif isinstance(event, ValidationEvent):
            self.report.say(
                f"step {event.step}: mAP {event.map:.4f} over {event.n_classes} labels, "
                f"{event.n_photos} validation photos"
            )

    def _report_photos(self, job: Job, rejected: Mapping[int, RecordProblem]) -> None:
        for index, problem in rejected.items():
            if index not in self.rejected:
                self.rejected.add(index)
                record = job.found.records[index]
                self._reject(Reject.of(record, problem, job.plan.command))

    def _reject(self, reject: Reject) -> None:
        if not self.world.is_main:
            return
        self.rejects.add(reject)

    def _validate(self, job: Job, step: int) -> tuple[Scored, ValidationEvent]:
        assert job.validation is not None
        records = job.validation.records

        def on_problem(index: int, problem: RecordProblem) -> None:
            if -1 - index not in self.rejected:
                self.rejected.add(-1 - index)
                self._reject(Reject.of(records[index], problem, job.plan.command))

        scored = score(job.trainer.objective.model, job.validation, job.trainer.device, on_problem)
        event = ValidationEvent(
            step, scored.mean_average_precision(), len(scored.occurring), len(scored.scores)
        )
        return scored, event

    def _publish(self, job: Job) -> None:
        """Give the model its final weights, measure them, write the bundle, tidy up."""
        trainer = job.trainer
        thresholds, shared = [DEFAULT_THRESHOLD] * len(job.labels), DEFAULT_THRESHOLD
        measured: dict[str, Any] = {"validation": "none: too few photos to hold some out"}
        with trainer.final_weights():
            fill_untrained_labels(trainer.objective.model, trainer.objective.trained)
            round_weights(trainer.objective.model)
            if job.validation is not None:
                scored, event = self._validate(job, trainer.step)
                own, shared = scored.thresholds()
                thresholds = own.tolist()
                self.report.say(
                    f"final mAP {event.map:.4f} over {event.n_classes} labels, "
                    f"{event.n_photos} validation photos"
                )
                measured = {
                    "validation": job.plan.val or "2 % of the photos, never trained on",
                    "validation_mAP": round(event.map, 4),
                    "validation_labels": event.n_classes,
                    "validation_photos": event.n_photos,
                }
            publish(
                self.options.out,
                Product(
                    preset=job.preset,
                    model=trainer.objective.model,
                    labels=job.labels,
                    tokenizer=job.tokenizer,
                    encoder=job.encoder,
                    thresholds=thresholds,
                    threshold=shared,
                    commands=job.plan.commands,
                    data=job.data_counts(),
                    measured=measured,
                    parent=None if job.init is None else job.init.fingerprint,
                ),
                self.report.say,
            )
        self.report.extra |= {"out": str(self.options.out), "steps": trainer.step, **measured}
        self.work.remove()
        self.report.say(f"wrote {self.options.out}")
