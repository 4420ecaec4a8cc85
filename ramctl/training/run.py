"""A whole training run: from the options to the bundle, through interruptions."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ramctl.bundle import Bundle, resolve_model
from ramctl.errors import Interrupted, RecordProblem, RunProblem, UsageProblem
from ramctl.io.jsonl import dumps
from ramctl.io.paths import STDIN
from ramctl.io.signals import StopRequest
from ramctl.io.sinks import RejectSink, open_rejects
from ramctl.model.config import (
    Preset,
    finetuning_preset,
    load_preset,
    override_preset,
    preset_from_meta,
    preset_to_table,
)
from ramctl.progress import Progress, progress_bar
from ramctl.report import Reject, Report
from ramctl.training.batches import batches
from ramctl.training.devices import keep_freed_memory, pick_device, wants_bf16
from ramctl.training.distributed import World, is_torchrun, join_world
from ramctl.training.events import Event, StepEvent, ValidationEvent
from ramctl.training.job import Job, Surroundings, build_job, with_run_options
from ramctl.training.loop import Loader, Pace
from ramctl.training.publish import Product, command_line, lend_to_untrained, publish, round_weights
from ramctl.training.records import reject_of
from ramctl.training.validation import DEFAULT_THRESHOLD, Scored, score
from ramctl.training.work import Plan, WorkFolder, check_same

LOG_EVERY_S = 60.0
RESUME_HINT = "continue with --resume"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What the command line asks for."""

    command: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...]
    out: Path
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    init: str | None = None
    labels: str | None = None
    val: str | None = None
    root: str | None = None
    text: str | None = None
    cache: str | None = None
    distill: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float | None = None
    seed: int | None = None
    resume: bool = False
    restart: bool = False
    save_every: int | None = None
    max_time: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    workers: int | None = None
    rejects: str | None = None
    strict: bool = False
    progress: bool | None = None


def run_training(options: TrainOptions, report: Report) -> Report:
    """Train, and write the bundle; the report tells what became of the records.

    Raises Interrupted when a signal asked to stop: the state is saved, `resume` goes on.
    """
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if is_torchrun() and STDIN in options.inputs:
        raise UsageProblem("several processes cannot share stdin: name the records' files")
    with join_world("cuda" if _is_cuda(options.device) else "cpu") as world:
        report.quiet = report.quiet or not world.is_main
        work = WorkFolder(options.out)
        if options.resume and work.is_finished():
            report.say(f"{options.out} is complete: nothing to resume")
            return report
        if world.is_main:
            _open_plan(options, work, report)
        world.wait()
        with ExitStack() as stack:
            return _Run(options, report, work, world, stack).run()


def _is_cuda(device: str) -> bool:
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _open_plan(options: TrainOptions, work: WorkFolder, report: Report) -> None:
    """Write the plan of a new run, or add this command to that of an unfinished one."""
    if work.prepare(resume=options.resume, restart=options.restart):
        plan = work.read_plan()
        asked = {name: getattr(options, name) for name in ("labels", "val", "init", "text")}
        check_same(plan, asked)
        report.say(f"resuming {work.path}")
        commands = [*plan.commands, command_line(list(options.argv))]
        work.write_plan(replace(plan, commands=commands))
        return
    preset = _preset(options)
    work.write_plan(
        Plan(
            command=options.command,
            preset=preset_to_table(preset),
            sources=work.take_inputs(options.inputs, options.root),
            labels=options.labels,
            val=options.val,
            root=options.root,
            init=options.init,
            text=options.text,
            cache=options.cache,
            commands=[command_line(list(options.argv))],
        )
    )


def _preset(options: TrainOptions) -> Preset:
    if options.preset is None and options.init is not None:
        bundle = Bundle.open(resolve_model(options.init))
        preset = preset_from_meta(bundle.meta)
    else:
        preset = load_preset(options.preset or "mini")
    if options.command == "finetune":
        preset = finetuning_preset(preset)
    preset = override_preset(preset, options.overrides)
    return with_run_options(
        preset,
        steps=options.steps,
        epochs=options.epochs,
        seed=options.seed,
        distill=options.distill,
    )


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
        self.rejects: RejectSink = open_rejects(
            options.rejects if world.is_main else None, resume=False
        )
        self.stack = stack
        self.started = self.logged = time.monotonic()
        self.rejected: set[int] = set()

    def run(self) -> Report:
        """Build the job, train, publish."""
        device = pick_device(self.options.device, self.world.local_rank)
        plan = self.work.read_plan()
        precision = plan.preset["training"]["precision"]
        if self.options.dtype != "auto":
            precision = self.options.dtype
        bf16 = wants_bf16(precision, device)
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
        finally:
            self.rejects.flush()
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
        if trainer.restore(self.work.checkpoints):
            self.report.say(f"going on after step {trainer.step} of {job.total_steps}")
            self._report_photos(job, trainer.rejected)
        validates = self.world.is_main and job.validation is not None
        pace = Pace(
            job.total_steps,
            self.work.checkpoints,
            self.options.save_every,
            (lambda step: self._validate(job, step)[1]) if validates else None,
            self._should_stop,
        )
        shown = False if self.report.quiet else self.options.progress
        with progress_bar("train", "steps", shown=shown, total=job.total_steps) as bar:
            bar.update(trainer.step)
            for event in trainer.events(self._loader(job), pace):
                self._tell(job, event, bar)
        left = job.total_steps - trainer.step
        if left:
            self.report.say(f"stopped after step {trainer.step}, {left} left; {RESUME_HINT}")
        return not left

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

    def _tell(self, job: Job, event: Event, bar: Progress) -> None:
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
                self._reject(reject_of(record, problem, job.plan.command))

    def _reject(self, reject: Reject) -> None:
        if not self.world.is_main:
            return
        self.report.reject(reject)
        self.rejects.write(dumps(reject.to_json()))
        if self.options.strict:
            raise RunProblem(f"{reject.place}: {reject.message} (--strict)")

    def _validate(self, job: Job, step: int) -> tuple[Scored, ValidationEvent]:
        assert job.validation is not None
        records = job.validation.records

        def on_problem(index: int, problem: RecordProblem) -> None:
            if -1 - index not in self.rejected:
                self.rejected.add(-1 - index)
                self._reject(reject_of(records[index], problem, job.plan.command))

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
            lend_to_untrained(trainer.objective.model, trainer.objective.trained)
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
                    space=job.space,
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


def describe_step(event: StepEvent, total_steps: int) -> str:
    """A step in one line: losses, learning rate, speed, share of time spent waiting for data."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
    skipped = ", skipped (gradient not finite)" if event.is_skipped else ""
    return (
        f"step {event.step}/{total_steps}, epoch {event.epoch}: loss {event.total:.4g} ({losses}), "
        f"lr {event.lr:.3g}, {event.rate_img_s:.1f} images/s, "
        f"{event.wait_share:.0%} waiting for data{skipped}"
    )
