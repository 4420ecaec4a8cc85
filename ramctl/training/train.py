"""`ramctl train` and `finetune`: read the records, build the model, train it, write the bundle.

N records, L labels.
"""

import os
import resource
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramctl.checkpoints.bundle import META, Bundle, require_bundle, resolve_model
from ramctl.checkpoints.hub import local_path
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.model import preset as presets
from ramctl.model.caption_tokenizer import clean_caption
from ramctl.model.device import Runtime, choose_device, number_format, set_up_cpu
from ramctl.model.preset import Preset, change_preset, write_table
from ramctl.records.files import locked
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.jsonl import dumps
from ramctl.records.report import Rejects, Report
from ramctl.records.signals import GOES_ON, StopRequest
from ramctl.training import start, teachers
from ramctl.training.annotations import NO_TAGS, Ids, Records, read_records
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.data import Sampler, Targets, TrainingSet, caption_vectors, photo_features
from ramctl.training.distributed import World, is_torchrun, join_world
from ramctl.training.losses import TrainingTask
from ramctl.training.publish import Flags, Run, publish, validate
from ramctl.training.trainer import Trainer, learning_rate

LAST = "last.pt"  # in OUT.work: what `--resume` goes on with
MAX_TEXTS = 500_000  # records whose captions decide the vocabulary
SAVE_EVERY_S = 300.0
LOG_EVERY_S = 60.0
MAX_UNREADABLE = 100  # photos, before the first that can be read
MEASURED_STEPS = 20  # after which a run reports its pace and memory


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The options of `ramctl train` and `finetune`; the defaults are those of `train`."""

    command: str = "train"  # or `finetune`: the preset's settings for that
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance
    inputs: tuple[str, ...] = ()  # none or `-`: stdin
    labels: str | None = None
    val: str | None = None
    root: str | None = None
    init: str | None = None
    text: str | None = None
    out: Path = Path("model")
    preset: str | None = None
    overrides: tuple[str, ...] = ()
    distill: tuple[str, ...] = ()
    epochs: float | None = None
    resume: bool = False
    device: str = "auto"
    rejects: str | None = None
    events: Path | None = None
    quiet: bool = False


def run(options: TrainOptions) -> Report:
    """Train and write the bundle; the report counts the records.

    Raises Interrupted when a signal stopped the run: the state is saved, and `resume` continues.
    """
    require_bundle(options.out)
    report = Report(options.command, options.quiet, unit="photos")
    work = options.out.with_name(f"{options.out.name}.work")
    if options.resume and not work.exists() and (options.out / META).is_file():
        report.notify(f"{options.out} is complete: nothing to resume")
        return report
    set_up_cpu(None)
    report.forgives_rejects = is_torchrun()
    with (
        join_world(options.device) as world,
        StopRequest(goes_on=GOES_ON) as stop,
        _work_folder(options, work, world),
    ):
        report.quiet = report.quiet or not world.is_main
        name = options.rejects if world.is_main else None
        with Rejects(report, name) as rejects:
            _train(options, work, world, rejects, stop)
        report.n_out = report.n_in - report.n_rejected
        report.notify(report.summary())
        stop.raise_if_signalled()
    return report


@contextmanager
def _work_folder(options: TrainOptions, work: Path, world: World) -> Iterator[None]:
    """Make OUT.work, or find a run to resume there; without a checkpoint nothing is left of it."""
    if not world.is_main:
        world.wait()
        yield
        return
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, options.out):
        is_unfinished = (work / LAST).is_file()
        if is_unfinished and not options.resume:
            choice = "--resume continues it; delete the folder to start anew"
            raise UsageProblem(f"{work} holds an unfinished run: {choice}")
        for path in () if is_unfinished else work.iterdir():  # of a run that was killed
            path.unlink() if path.is_file() else shutil.rmtree(path)
        world.wait()
        try:
            yield
        finally:
            if not (work / LAST).is_file():
                shutil.rmtree(work, ignore_errors=True)


def _train(
    options: TrainOptions, work: Path, world: World, rejects: Rejects, stop: StopRequest
) -> None:
    """Settings, records and labels, model, features, loop, bundle."""
    report, preset = rejects.report, run_preset(options)
    config = preset.training
    init = Bundle.open(resolve_model(options.init)) if options.init else None
    if init is not None and init.fit:
        raise RunProblem(f"{init.path}: is fitted to a collection; train the model it was made of")
    report.notify(_purpose(options, preset))
    device = choose_device(options.device, local_rank=world.local_rank)
    runtime = Runtime(device, number_format(config.precision, device, is_training=True))
    report.device = f"{device}, {runtime.dtype}"

    data, validation, shown, known = _read(options, preset, init, work, world, rejects)
    labels = data.targets.labels
    n_photos, _, _ = data.targets.counts(data.records.counts.tags)
    # Where all labels are rare, none is too rare.
    fewest = min(config.fewest_positives, n_photos.max(initial=0))
    evidence = known | shown | (n_photos >= fewest)
    evidence &= np.array([label.validated for label in labels])  # as a file of labels marks them
    trained = shown | (n_photos > 0)
    if not (config.fewest_positives and trained.any()):
        trained[:] = True
    if not trained.all():
        report.notify(f"{trained.sum()} of {len(labels)} labels can be trained")

    with world.main_first():
        if (captioning := preset.model.captioning) is not None:
            path = work / "tokenizer.json"
            tokenizer = start.caption_tokenizer(path, captioning, init, _texts(data))
            data = replace(data, tokenizer=tokenizer)
        encoder = None
        if preset.model.labels.kind != "learnt":
            encoder = start.open_text_encoder(options.text, init, preset)
        vocabulary = len(data.tokenizer or ())
        model = start.initial_model(preset, labels, vocabulary, encoder, init, report.notify)
        model.to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
        clip = None
        if (place := teachers.clip_place(config.distill)) is not None:
            clip = teachers.ClipTeacher(local_path(place, start.OFFLINE), preset.preprocess)
        mask = None if trained.all() else torch.from_numpy(trained)
        given = write_table(preset) | {
            "records": len(data.records), "labels": labels.sha256, "val": options.val,
            "model": options.init, "text": options.text, "processes": world.size,
        }  # fmt: skip
        task = TrainingTask(model, config, clip, mask).to(device)
        trainer = Trainer(task, runtime, world, given)
        if (work / LAST).is_file():
            trainer.restore(work / LAST)
        changes = config.augment.crop_scale != (1.0, 1.0) or config.augment.operations > 0
        is_frozen = config.backbone_lr_factor == 0 or model.encoder.frozen_stages > 0
        if is_frozen and not changes and clip is None:  # they are the same in every epoch
            data, validation = _with_features(data, validation, trainer, rejects)
        if encoder is not None and "distill caption" in task.weights:
            report.notify(f"embedding {data.records.counts.n_captions} captions")
            with report.progress(title="captions", total=len(data.records)) as advance:
                data = replace(data, texts=caption_vectors(data.records, encoder, advance))

    this = Run(
        options.out, shlex.join(["ramctl", *options.argv]), preset, init, model, encoder, data,
        validation, options.val or "photos held out of the records, never trained on",
        evidence, trained | known, runtime, rejects, world.is_main,
    )  # fmt: skip
    if _loop(this, trainer, world, work, options.events, stop):
        if world.is_main:
            publish(this, trainer.step)
            shutil.rmtree(work, ignore_errors=True)
            report.notify(f"wrote {options.out}")
        world.wait()


def run_preset(options: TrainOptions) -> Preset:
    """The preset of a run with all options merged in."""
    if options.preset is None and options.init is not None:
        preset = Bundle.open(resolve_model(options.init)).preset
        # The user of a bundle does not have the files of scores that it was trained with.
        kept = teachers.without_scores(preset.training.distill)
        preset = change_preset(preset, {"training": {"distill": kept}})
    else:
        preset = presets.load_preset(options.preset or "mini")
    # What `train` sets is the model's, what `finetune` sets this run's.
    if options.command == "finetune":
        preset = change_preset(
            presets.finetuning_preset(preset), presets.parse_overrides(options.overrides)
        )
    else:
        preset = presets.override_preset(preset, options.overrides)
    changes: dict[str, Any] = {}
    if options.epochs is not None:
        changes = {"epochs": options.epochs, "steps": 0}
    if options.distill:
        changes["distill"] = [name for name in options.distill if name != "none"]
    return change_preset(preset, {"training": changes})


def _purpose(options: TrainOptions, preset: Preset) -> str:
    """The run and its reason, in one line."""
    if options.command == "finetune":
        return f"trains on from {options.init}, at {preset.name}'s settings for a small, clean set"
    if options.init:
        return f"trains {preset.name} on from {options.init}: its weights and labels are the start"
    return f"trains {preset.name} from scratch (--model starts from a bundle)"


def _read(
    options: TrainOptions, preset: Preset, init: Bundle | None, work: Path, world: World,
    rejects: Rejects,
) -> tuple[TrainingSet, TrainingSet, Flags, Flags]:  # fmt: skip
    """The records to train and to validate on, with their labels, read by the first process.

    Also which labels (L,) a teacher knows, and which the model to start from.
    """
    config, val, report = preset.training, options.val, rejects.report
    taggers = teachers.scores_files(config.distill)

    def read(name: str, names: Sequence[str], **how: bool) -> Records:
        inputs = inputs_or_stdin(names, "JSONL files of parsed records")
        require_files(inputs)
        path, command = work / name, options.command
        make = partial(read_records, path, inputs, options.root, rejects.add, command, **how)
        read = world.from_main(make)
        report.n_in += read.n_lines
        return read

    records = read(
        "records.jsonl", options.inputs, hold_out=val is None, takes_untagged=bool(taggers)
    )
    held_out, held_out_ids = records, np.flatnonzero(records.held_out)
    if val is not None:
        held_out = read("val.jsonl", [val])
        held_out_ids = np.arange(len(held_out))

    tables = [TaggerScores.read(path, options.command) for path in taggers]
    rows, is_usable = _taught(tables, records, rejects)
    tags = sum((table.given for table in tables), records.counts.tags)
    labels = start.choose_labels(
        options.labels, init, replace(records.counts, tags=tags), report.notify
    )
    soft = [teachers.SoftTargets(*parts, labels) for parts in zip(tables, rows, strict=True)]
    targets = Targets(labels, config.absent_weight, soft)
    _, n_tags, n_mentions = targets.counts(records.counts.tags)
    if n_tags:
        words = f"{n_tags} tags ({n_mentions} mentions)"
        report.notify(f"{words} are not in the label system: ignored")

    shown, known = np.zeros((2, len(labels)), bool)
    for tagger in soft:
        shown[tagger.known] = True
    if init is not None:
        known = np.array(start.rows_in(init.labels, labels)) >= 0
    data = TrainingSet(
        records, np.flatnonzero(is_usable & ~records.held_out), targets,
        TrainingPhoto(preset.preprocess, config.augment), config.seed, config.workers,
    )  # fmt: skip
    whole = TrainingPhoto(preset.preprocess, UNCHANGED)
    validation = TrainingSet(held_out, held_out_ids, Targets(labels), whole, workers=config.workers)
    return data, validation, shown, known


def _taught(
    tables: Sequence[TaggerScores], records: Records, rejects: Rejects
) -> tuple[list[Ids], Flags]:
    """The row of each photo in each table; which records (N,) have tags or are in a table.

    The others are rejected.
    """
    if not tables:
        return [], np.ones(len(records), bool)
    notes = [records[index] for index in range(len(records))]
    is_usable = np.array([note.is_tagged for note in notes])
    rows = [table.rows_of([note.image for note in notes]) for table in tables]
    for table, found in zip(tables, rows, strict=True):
        n = (found >= 0).sum()
        rejects.report.notify(f"{table.path}: scores of {n} of {len(found)} photos")
        is_usable |= found >= 0
    problem = RecordProblem(NO_TAGS, code="missing_field")
    records.reject(dict.fromkeys(np.flatnonzero(~is_usable).tolist(), problem), rejects)
    return rows, is_usable


def _texts(data: TrainingSet) -> Iterator[str]:
    """The labels, and the captions of at most MAX_TEXTS records."""
    yield from data.targets.labels.tags
    for index in data.ids[:: -(-len(data.ids) // MAX_TEXTS) or 1].tolist():
        for caption in data.records[index].captions:
            yield clean_caption(caption.text)


def _with_features(
    data: TrainingSet, validation: TrainingSet, trainer: Trainer, rejects: Rejects
) -> tuple[TrainingSet, TrainingSet]:
    """Both with the features of frozen stages in place of photos, without unreadable photos."""
    encoder, report = trainer.task.model.encoder, rejects.report

    def computed(part: TrainingSet, *, flip: bool) -> TrainingSet:
        report.notify(f"features of {len(part.records)} photos")
        with report.progress(title="features", total=len(part.records)) as advance:
            features, problems = photo_features(
                part.records, encoder, part.photo.preprocess.config, advance, flip=flip
            )
        part.records.reject(problems, rejects)
        ids = part.ids[~np.isin(part.ids, list(problems))]
        # They are read faster than worker processes could hand them over.
        return replace(part, ids=ids, features=features, workers=0)

    with_features = computed(data, flip=data.photo.augment.flip > 0)
    if validation.records is data.records:
        return with_features, replace(validation, features=with_features.features, workers=0)
    return with_features, computed(validation, flip=False)


def _loop(
    this: Run, trainer: Trainer, world: World, work: Path, events: Path | None, stop: StopRequest
) -> bool:
    """Train until the end (True) or a signal (False)."""
    config, report, data = this.preset.training, this.rejects.report, this.data
    if not len(data.ids):
        raise RunProblem("no photo to train on could be read")
    sampler = Sampler(
        data.ids, config.batch_size, config.accumulation, config.seed, config.drop_last,
        world.rank, world.size,
    )  # fmt: skip
    an_epoch = sampler.steps_an_epoch
    total = config.steps or max(1, round(config.epochs * an_epoch))
    if first := trainer.step:
        report.notify(f"continuing after step {first} of {total}")
    device = this.runtime.device
    batches = data.batches(sampler.keys(first, total), pins=device.type == "cuda")
    trainer.module = world.wrap(trainer.task, device)
    is_stopped, n_learnt, unreadable = False, 0, set[int]()
    begun = saved = logged = time.monotonic()
    with ExitStack() as stack:
        advance = stack.enter_context(report.progress(title="train", unit="steps", total=total))
        path = events if events is not None and world.is_main else Path(os.devnull)
        log = stack.enter_context(path.open("ab" if first else "wb", buffering=0))
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
            event = {
                "event": "step", "step": trainer.step, "epoch": epoch, "loss": done.loss,
                "losses": done.losses, "lr": lr, "grad_norm": done.grad_norm,
                "photos": done.photos, "rate_img_s": round(rate, 2),
                "wait_share": round(waited / max(now - started, 1e-9), 4),
            }  # fmt: skip
            log.write(dumps(event))
            data.records.reject(done.rejected, this.rejects)
            n_learnt, unreadable = n_learnt + done.photos, unreadable | done.rejected.keys()
            if not n_learnt and (is_last or len(unreadable) >= min(MAX_UNREADABLE, len(data.ids))):
                raise RunProblem("no photo could be read: nothing is learnt (see --root)")
            if is_last or now - logged >= LOG_EVERY_S:
                logged, losses = now, ", ".join(f"{k} {x:.4g}" for k, x in done.losses.items())
                place = f"step {trainer.step}/{total}, epoch {epoch}"
                report.notify(f"{place}: loss {done.loss:.4g} ({losses}), {rate:.1f} images/s")
            if trainer.step == first + MEASURED_STEPS:
                pace = (now - begun) / MEASURED_STEPS
                report.notify(f"{pace:.3g} s a step, {_peak_memory(device)}")
            is_stopped = world.sums({"stopped": stop.signum is not None})["stopped"] > 0
            if world.is_main and (is_last or is_stopped or now - saved >= SAVE_EVERY_S):
                trainer.save(work / LAST)
                saved = now
            if trainer.step % an_epoch == 0 and not (is_last or is_stopped):
                _, facts = validate(this, this.runtime, trainer.step)
                if facts:
                    log.write(dumps({"event": "validation", "step": trainer.step} | facts))
    if left := total - trainer.step:
        report.notify(f"stopped after step {trainer.step}, {left} left; continue with --resume")
    return not left


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"at most {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB of GPU memory"
    unit = 1 if sys.platform == "darwin" else 1024
    n_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"at most {n_bytes / 1e9:.2f} GB of memory"
