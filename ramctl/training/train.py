"""`ramctl train` and `finetune`: a run from its options to the bundle."""

import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from ramctl.checkpoints.bundle import META, Bundle, require_bundle, resolve_model
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.device import Runtime, choose_device, number_format, set_up_cpu
from ramctl.records.files import locked
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject
from ramctl.records.report import Rejects, Report
from ramctl.records.signals import GOES_ON, StopRequest
from ramctl.training.data import Sampler
from ramctl.training.distributed import World, is_torchrun, join_world
from ramctl.training.job import LAST, Job, Run, TrainOptions, build_job, read_examples, run_preset
from ramctl.training.publish import publish
from ramctl.training.trainer import learning_rate
from ramctl.training.validation import validate

SAVE_EVERY_S = 300.0
LOG_EVERY_S = 60.0
MEASURED_STEPS = 20  # after which a run reports its pace and memory


def run(options: TrainOptions) -> Report:
    """Train and write the bundle; the report counts the records.

    Raises Interrupted when a signal stopped the run: the state is saved, and `resume` continues.
    """
    require_bundle(options.out)
    if options.steps is not None and options.epochs is not None:
        raise UsageProblem("--steps or --epochs: give one of them")
    report, work = (
        Report(options.command, options.quiet, unit="photos"),
        options.out.with_name(options.out.name + ".work"),
    )
    if options.resume and not work.exists() and (options.out / META).is_file():
        report.notify(f"{options.out} is complete: nothing to resume")
    else:
        set_up_cpu(None)
        report.forgives_rejects = is_torchrun()
        with (
            join_world(options.device) as world,
            StopRequest(goes_on=GOES_ON) as stop,
            _work_folder(options, work, world, report),
        ):
            report.quiet = report.quiet or not world.is_main
            name = options.rejects if world.is_main else None
            with Rejects(report, name, strict=options.strict) as rejects:
                _train(options, work, world, report, rejects, stop)
            report.n_out = report.n_in - report.n_rejected
            report.notify(report.summary())
            stop.raise_if_signalled()
    report.write_stats(options.stats)
    return report


@contextmanager
def _work_folder(options: TrainOptions, work: Path, world: World, report: Report) -> Iterator[None]:
    """Make OUT.work, or find a run to resume there; without a checkpoint nothing is left of it."""
    if not world.is_main:
        world.wait()
        yield
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    with locked(work, options.out):
        if not (work / LAST).is_file():
            if options.resume:
                report.notify(f"nothing to resume in {work}: a new run")
            for path in work.iterdir():  # of a run that was killed
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif not options.resume:
            choice = "--resume continues it; delete the folder to start anew"
            raise UsageProblem(f"{work} holds an unfinished run: {choice}")
        world.wait()
        try:
            yield
        finally:
            if not (work / LAST).is_file():
                shutil.rmtree(work, ignore_errors=True)


def _train(
    options: TrainOptions, work: Path, world: World, report: Report, rejects: Rejects,
    stop: StopRequest,
) -> None:  # fmt: skip
    """Settings, records and labels, model and batches, loop, bundle."""
    preset = run_preset(options)
    init = Bundle.open(resolve_model(options.init)) if options.init else None
    if init is not None and init.fit:
        raise RunProblem(f"{init.path}: is fitted to a collection; train the model it was made of")
    device = choose_device(options.device, local_rank=world.local_rank)
    dtype = preset.training.precision if options.dtype == "auto" else options.dtype
    runtime = Runtime(device, number_format(dtype, device, is_training=True))
    report.device = f"{runtime.device}, {runtime.dtype}"
    this = Run(options, preset, init, runtime, world, report, rejects, stop, work)
    examples = read_examples(this)
    job = build_job(this, examples)
    if _loop(this, job):
        if world.is_main:
            report.extra |= {"steps": job.trainer.step} | publish(this, job)
            shutil.rmtree(work, ignore_errors=True)
            report.notify(f"wrote {options.out}")
        world.wait()


def _loop(run: Run, job: Job) -> bool:
    """Train until the end (True) or a signal (False)."""
    config, world, report, trainer = run.preset.training, run.world, run.report, job.trainer
    examples = job.examples
    if not len(examples.ids):
        raise RunProblem("no photo to train on could be read")
    sampler = Sampler(
        examples.ids, config.batch_size, config.accumulation, config.seed, config.drop_last,
        world.rank, world.size,
    )  # fmt: skip
    an_epoch = sampler.steps_an_epoch
    total = config.steps or max(1, round(config.epochs * an_epoch))
    if first := trainer.step:
        report.notify(f"continuing after step {first} of {total}")
    is_on_gpu = run.runtime.device.type == "cuda"
    batches = job.data.batches(sampler.keys(first, total), job.workers, pins=is_on_gpu)
    trainer.module = world.wrap(trainer.task, run.runtime.device)
    is_stopped, unreadable = False, set[int]()
    begun = saved = logged = time.monotonic()
    with ExitStack() as stack:
        advance = stack.enter_context(report.progress(title="train", unit="steps", total=total))
        log = stack.enter_context(_event_log(run, is_new=not first))
        stack.enter_context(_readers_that_may_die())
        advance(first)
        while trainer.step < total and not is_stopped:
            epoch, started = trainer.step // an_epoch, time.monotonic()
            lr = learning_rate(config, trainer.step, total, an_epoch)
            passes = [next(batches) for _ in range(sampler.n_passes(trainer.step))]
            waited = time.monotonic() - started
            done = trainer.take_step(passes, lr)
            advance(1)
            now = time.monotonic()
            rate, is_last = done.photos / max(now - started, 1e-9), trainer.step == total
            log(
                {"event": "step", "step": trainer.step, "epoch": epoch, "loss": done.loss,
                 "losses": done.losses, "lr": lr, "grad_norm": done.grad_norm,
                 "photos": done.photos, "rate_img_s": round(rate, 2),
                 "wait_share": round(waited / max(now - started, 1e-9), 4)}
            )  # fmt: skip
            unreadable |= done.rejected.keys()
            run.reject_photos(examples.records, done.rejected)
            if len(unreadable) == len(examples.ids):
                raise RunProblem("no photo could be read: nothing is learnt (see --root)")
            if is_last or now - logged >= LOG_EVERY_S:
                logged, losses = now, ", ".join(f"{k} {x:.4g}" for k, x in done.losses.items())
                place = f"step {trainer.step}/{total}, epoch {epoch}"
                report.notify(f"{place}: loss {done.loss:.4g} ({losses}), {rate:.1f} images/s")
            if trainer.step == first + MEASURED_STEPS:
                pace = (now - begun) / MEASURED_STEPS
                report.notify(f"{pace:.3g} s a step, {_peak_memory(run.runtime.device)}")
            is_stopped = world.sums({"stopped": run.stop.signum is not None})["stopped"] > 0
            if world.is_main and (is_last or is_stopped or now - saved >= SAVE_EVERY_S):
                trainer.save(run.work / LAST)
                saved = now
            is_between = trainer.step % an_epoch == 0 and not (is_last or is_stopped)
            if is_between and (facts := validate(run, job, run.runtime)[1]):
                log({"event": "validation", "step": trainer.step} | facts)
    if left := total - trainer.step:
        report.extra |= {"steps": trainer.step, "steps_left": left}
        report.notify(f"stopped after step {trainer.step}, {left} left; continue with --resume")
    return not left


@contextmanager
def _event_log(run: Run, *, is_new: bool) -> Iterator[Callable[[JsonObject], object]]:
    """A function that writes a line of `--events`."""
    if run.options.events is None or not run.world.is_main:
        yield lambda event: None
        return
    with run.options.events.open("wb" if is_new else "ab", buffering=0) as file:
        yield lambda event: file.write(dumps(event))


@contextmanager
def _readers_that_may_die() -> Iterator[None]:
    """A RunProblem where torch notices, at any time, that a worker process died."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise it again
        reason = str(error).strip().rstrip(".") or "it closed its end"
        died = f"a process that reads photos died ({reason})"
        raise RunProblem(f"{died}; continue with --resume, with a lower -j") from error


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"at most {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB of GPU memory"
    unit = 1 if sys.platform == "darwin" else 1024
    n_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"at most {n_bytes / 1e9:.2f} GB of memory"
