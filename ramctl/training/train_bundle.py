"""`ramctl train` and `finetune`: a whole run, from the options to the bundle."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import torch

from ramctl.checkpoints.bundle import require_bundle
from ramctl.device import Runtime, set_up_cpu
from ramctl.errors import Interrupted, RamctlError, RecordProblem, RunProblem, UsageProblem
from ramctl.records.files import output_lock
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Reject, shown_name
from ramctl.records.report import Rejects, Report
from ramctl.records.signals import GOES_ON, StopRequest
from ramctl.training.data.record_file import RecordFile
from ramctl.training.distributed import World, is_torchrun, join_world
from ramctl.training.fit_labels import fit_labels, fits_labels
from ramctl.training.job import Job, RunContext, build_job, runtime_of
from ramctl.training.learn_thresholds import learn_thresholds
from ramctl.training.loop import Pace, StepEvent, ValidationEvent
from ramctl.training.plan import TrainOptions, open_plan
from ramctl.training.publish import fill_untrained_labels, publish, round_weights
from ramctl.training.validation import Scored

LOG_EVERY_S = 60.0
RESUME_HINT = "continue with --resume"


def run(options: TrainOptions) -> Report:
    """Train and write the bundle; the report counts the records.

    Raises Interrupted when a signal stopped the run: the state is saved, and `resume` continues.
    """
    require_bundle(options.out)
    if options.steps is not None and options.epochs is not None:
        raise UsageProblem("--steps or --epochs: give one of them")
    if options.thresholds:
        return learn_thresholds(options)
    report = Report(options.command, quiet=options.quiet, unit="photos")
    if options.is_finished:
        report.notify(f"{options.out} is complete: nothing to resume")
    elif fits_labels(options):
        return fit_labels(options, report)
    else:
        _train(options, report)
    report.write_stats(options.stats)
    return report


def _train(options: TrainOptions, report: Report) -> None:
    set_up_cpu(None)
    device = options.device
    is_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    report.forgives_rejects = is_torchrun()
    with join_world("cuda" if is_cuda else "cpu") as world:
        report.quiet = report.quiet or not world.is_main
        if world.is_main:
            options.out.parent.mkdir(parents=True, exist_ok=True)
        with output_lock(options.out if world.is_main else None):
            if world.is_main:
                open_plan(options, report)
            world.wait()
            try:
                with StopRequest(goes_on=GOES_ON) as stop:
                    _Run(options, report, world, stop).run()
            except RamctlError as error:
                # A run that failed during set-up must not stand in the way of the next one.
                is_failed = not isinstance(error, Interrupted) and not options.work.has_progress()
                if world.is_main and is_failed:
                    options.work.remove()
                raise


@contextmanager
def _explained(runtime: Runtime) -> Iterator[None]:
    """Turn memory that ran out and dead workers into a RunProblem with a remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        remedy = "start again with a smaller training.batch_size"
        raise RunProblem(f"{runtime.device}: out of memory; {remedy}") from error
    except Exception as error:
        cause: BaseException | None = error
        while cause and "DataLoader worker (pid" not in str(cause):
            cause = cause.__context__  # a checkpoint that it interrupted raised another error
        if not cause or isinstance(error, RunProblem):
            raise
        # torch raises at the death of every child, also while this one is reported.
        with suppress(ValueError):  # only the main thread has handlers
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        died = f"a process that reads photos died ({str(cause).strip().rstrip('.')})"
        raise RunProblem(f"{died}; {RESUME_HINT}, with a lower -j") from error


@dataclass
class _Run:
    """One process of a run."""

    options: TrainOptions
    report: Report
    world: World
    stop: StopRequest

    def __post_init__(self) -> None:
        self.work = self.options.work
        self.plan = self.work.read_plan()
        name = self.options.rejects if self.world.is_main else None
        self.rejects = Rejects(self.report, name, strict=self.options.strict)
        self.logged = time.monotonic()
        self.rejected_photos: set[tuple[int, int]] = set()

    def run(self) -> None:
        precision = self.plan.preset.training.precision
        runtime = runtime_of(self.options, precision, self.world.local_rank)
        self.report.device = f"{runtime.device}, {runtime.dtype}"
        # torch may report a dead worker again while the first report is being handled.
        with _explained(runtime), self.rejects, _explained(runtime):
            job = self._build(runtime)
            if self._train(job):
                self._publish(job)
                self.world.wait()
        self.report.n_out = self.report.n_in - self.report.n_rejected
        self.report.notify(self.report.summary())
        self.stop.raise_if_signalled()

    def _build(self, runtime: Runtime) -> Job:
        """Build the job; the first process prepares the work folder before the others read it."""
        context = RunContext(
            self.world, runtime, self.plan.command, self.report.notify, self._reject,
            self._counting, self.options.workers,
        )  # fmt: skip
        if not self.world.is_main:
            self.world.wait()
        job = build_job(self.plan, self.work, context)
        if self.world.is_main:
            self.world.wait()
        self.report.n_in = job.n_lines
        return job

    @contextmanager
    def _counting(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Report how much is prepared: a bar on a terminal, and a message a minute."""
        n_done, started = 0, time.monotonic()
        with self.report.progress(title=title, total=total) as advance:

            def on_done(number: int) -> None:
                nonlocal n_done
                n_done += number
                advance(number)
                if time.monotonic() - self.logged >= LOG_EVERY_S:
                    self.logged = time.monotonic()
                    minutes = (self.logged - started) * (total - n_done) / n_done / 60
                    self.report.notify(f"{title}: {n_done}/{total}, {minutes:.0f} min left")
                self.stop.raise_if_signalled()

            yield on_done

    def _train(self, job: Job) -> bool:
        """Train until the end (True) or a signal."""
        trainer = job.trainer
        if trainer.restore(self.work.checkpoints, self.report.notify):
            self.report.notify(f"continuing after step {trainer.step} of {trainer.total_steps}")
            self._reject_photos(job.records.records, trainer.rejected)
        options = self.options

        def validate() -> ValidationEvent | None:
            validated = self._validate(job, trainer.runtime)
            return None if validated is None else validated[1]

        pace = Pace(
            total_steps=trainer.total_steps,
            checkpoints=self.work.checkpoints,
            validate=validate if len(job.validation) else None,
            should_stop=lambda: self.stop.signum is not None,
        )
        with ExitStack() as stack:
            total, log = pace.total_steps, None
            bar = self.report.progress(title="train", unit="steps", total=total)
            advance = stack.enter_context(bar)
            if options.events is not None and self.world.is_main:
                mode = "ab" if trainer.step else "wb"
                log = stack.enter_context(options.events.open(mode))
            advance(trainer.step)
            for event in trainer.events(job.training_set.batches, pace):
                if log is not None:
                    log.write(dumps(event.to_json()))
                    log.flush()
                if isinstance(event, ValidationEvent):
                    self.report.notify(f"step {event.step}: {event.describe()}")
                elif isinstance(event, StepEvent):
                    advance(1)
                    self._reject_photos(job.records.records, event.rejected)
                    if event.step == total or time.monotonic() - self.logged >= LOG_EVERY_S:
                        self.logged = time.monotonic()
                        self.report.notify(event.describe(total))
        if remaining := pace.total_steps - trainer.step:
            self.report.extra |= {"steps": trainer.step, "steps_left": remaining}
            self.report.notify(
                f"stopped after step {trainer.step}, {remaining} left; {RESUME_HINT}"
            )
        return not remaining

    def _reject(self, reject: Reject) -> None:
        if self.world.is_main:
            self.rejects.add(reject)

    def _reject_photos(self, records: RecordFile, problems: Mapping[int, RecordProblem]) -> None:
        """Report each unreadable photo once, not in every epoch."""
        for index, problem in problems.items():
            key = (id(records), index)
            if key not in self.rejected_photos:
                self.rejected_photos.add(key)
                self._reject(Reject.of(records[index], problem, self.plan.command))

    def _validate(self, job: Job, runtime: Runtime) -> tuple[Scored, ValidationEvent] | None:
        """Score the validation photos; None without a usable one, and in all processes but one."""
        scored = job.validation.score(
            job.trainer.model.eval(), runtime, self.world,
            lambda index, why: self._reject_photos(job.validation.records, {index: why}),
        )  # fmt: skip
        if not job.evidence[scored.occurring].any():
            why = "their tags were not trained" if len(scored.scores) else "they cannot be read"
            self.report.notify(
                f"none of {len(job.validation)} validation photos can be used: {why}"
            )
            return None
        event = ValidationEvent(
            job.trainer.step,
            scored.mean_average_precision(job.evidence),
            int(job.evidence[scored.occurring].sum()),
            scored.mean_average_precision(),
            len(scored.occurring),
            len(scored.scores),
        )
        return scored, event

    def _publish(self, job: Job) -> None:
        """Round the model as a bundle stores it, validate it, write the bundle, tidy up.

        Every process validates; the first one writes.
        """
        trainer, out = job.trainer, self.options.out
        if len(trainer.rejected) >= len(trainer.sampler.ids):
            raise RunProblem("no photo could be read: nothing is learnt (see --root)")
        model = trainer.model.eval()
        if trainer.task.trained is not None:
            fill_untrained_labels(model, job.learnt)
        round_weights(model)
        scored: Scored | None = None
        too_few = "too few photos to hold some out"
        measured: JsonObject = {"validation": f"none: {too_few}"}
        if not len(job.validation):
            self.report.notify(f"{too_few}: no thresholds are chosen (see --val)")
        # Thresholds are chosen for scores in fp32, which most users' machines compute.
        elif (validated := self._validate(job, Runtime(trainer.runtime.device))) is None:
            measured = {"validation": "none: the photos held out cannot be used"}
        else:
            scored, event = validated
            self.report.notify(f"final {event.describe()}")
            held_out = self.plan.val or "photos held out of the records, never trained on"
            measured = {
                "step": trainer.step,
                "validation": shown_name(held_out),
                "validation_mAP": round(event.map, 4),
                "validation_labels": event.classes,
                "validation_photos": event.photos,
            }
            if event.classes < event.classes_all:
                measured["validation_mAP_with_untrained"] = round(event.map_all, 4)
                measured["validation_labels_with_untrained"] = event.classes_all
        if self.world.is_main:
            publish(out, model, job, scored, measured)
            self.report.extra |= {"out": str(out), "steps": trainer.step, **measured}
            self.work.remove()
            self.report.notify(f"wrote {out}")
