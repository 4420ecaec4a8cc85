"""A run: its options, what it trains, and on what.

N records, L labels.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.checkpoints.hub import local_path
from ramctl.checkpoints.static_table import TextEncoder
from ramctl.errors import Interrupted, RecordProblem, UsageProblem
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.model import preset as presets
from ramctl.model.caption_tokenizer import CaptionTokenizer, clean_caption
from ramctl.model.device import Runtime
from ramctl.model.preset import Preset, change_preset
from ramctl.model.ram import RAM
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.record import STDIN, Reject
from ramctl.records.report import Rejects, Report
from ramctl.records.signals import StopRequest
from ramctl.training import start, teachers
from ramctl.training.annotations import Ids, Records, read_records
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.data import Targets, TrainingSet
from ramctl.training.distributed import World, is_torchrun
from ramctl.training.features import Half, caption_vectors, photo_features
from ramctl.training.losses import TrainingTask
from ramctl.training.teachers import clip_place
from ramctl.training.trainer import Trainer

LAST = "last.pt"  # in OUT.work: what `--resume` goes on with
MAX_TEXTS = 500_000  # records whose captions decide the vocabulary
Flags = NDArray[np.bool_]


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
    steps: int | None = None
    epochs: float | None = None
    seed: int | None = None
    resume: bool = False
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    rejects: str | None = None
    strict: bool = False
    events: Path | None = None
    stats: Path | None = None
    quiet: bool = False


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
    numbers: dict[str, Any] = {"steps": options.steps, "seed": options.seed}
    changes = {name: n for name, n in numbers.items() if n is not None}
    if options.epochs is not None:
        changes |= {"epochs": options.epochs, "steps": 0}
    if options.distill:
        changes["distill"] = [name for name in options.distill if name != "none"]
    return change_preset(preset, {"training": changes})


@dataclass
class Run:
    """One process of a run: its settings, and what it reports to."""

    options: TrainOptions
    preset: Preset
    init: Bundle | None  # to start from
    runtime: Runtime
    world: World
    report: Report
    rejects: Rejects
    stop: StopRequest
    work: Path  # the folder of the unfinished run
    reported: set[tuple[Path, int]] = field(default_factory=set)

    def reject(self, reject: Reject) -> None:
        """Report a record that is not trained on."""
        if self.world.is_main:
            self.rejects.add(reject)

    def reject_photos(self, records: Records, problems: Mapping[int, RecordProblem]) -> None:
        """Report each unreadable photo once, not in every epoch."""
        for index, problem in problems.items():
            if (records.path, index) not in self.reported:
                self.reported.add((records.path, index))
                self.reject(records.reject(index, problem, self.options.command))


@dataclass(frozen=True, slots=True)
class Examples:
    """The records of a run, and what they show of which labels."""

    records: Records
    ids: Ids  # of those trained on
    held_out: Records  # the same records, or those of `--val`
    held_out_ids: Ids
    targets: Targets
    evidence: Flags  # (L,) whether enough photos or a teacher show the label
    trained: Flags  # (L,) whether any does
    known: Flags  # (L,) whether the model to start from has it


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is trained, and trained on."""

    examples: Examples
    trainer: Trainer
    data: TrainingSet
    validation: TrainingSet
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    workers: int  # processes that read photos

    @property
    def model(self) -> RAM:
        """The model, without its losses."""
        return self.trainer.task.model


def read_examples(run: Run) -> Examples:
    """Read all records, in the first process, and choose the labels."""
    options, config, report, val = run.options, run.preset.training, run.report, run.options.val
    read = partial(read_records, root=options.root, on_reject=run.reject, stage=options.command)
    taggers = teachers.scores_teachers(config.distill)
    make = partial(read, hold_out=val is None, takes_untagged=bool(taggers))
    path, inputs = run.work / "records.jsonl", _inputs(options.inputs)
    records = run.world.from_main(lambda: make(path, inputs))
    held_out, held_out_ids = records, np.flatnonzero(records.held_out)
    report.n_in = records.n_lines
    if val is not None:
        held_out = run.world.from_main(lambda: read(run.work / "val.jsonl", _inputs([val])))
        held_out_ids = np.arange(len(held_out))
        report.n_in += held_out.n_lines

    tables = [TaggerScores.read(tagger.path, options.command) for tagger in taggers]
    rows, is_usable = _photo_rows(run, tables, records)
    taught = sum((table.given for table in tables), Counter[str]())
    counts = replace(records.counts, tags=records.counts.tags + taught)
    labels = start.choose_labels(options.labels, run.init, counts, report.notify)
    matched = zip(taggers, tables, rows, strict=True)
    soft = [teachers.SoftTargets(*parts, labels) for parts in matched]
    targets = Targets(labels, config.absent_weight, soft)
    n_photos, n_tags, n_mentions = targets.counts(records.counts.tags)
    if n_tags:
        words = f"{n_tags} tags ({n_mentions} mentions)"
        report.notify(f"{words} are not in the label system: ignored")

    known, trained = np.zeros((2, len(labels)), bool)
    if run.init is not None:
        known = np.array(start.rows_in(run.init.labels, labels)) >= 0
    for tagger in soft:
        trained[tagger.known] = True
    # Where all labels are rare, none is too rare.
    fewest = min(config.fewest_positives, n_photos.max(initial=0))
    evidence = known | trained | (n_photos >= fewest)
    evidence &= np.array([label.validated for label in labels])  # as a file of labels marks them
    trained |= n_photos > 0
    return Examples(
        records, np.flatnonzero(is_usable & ~records.held_out), held_out, held_out_ids, targets,
        evidence, trained, known,
    )  # fmt: skip


def _inputs(names: Sequence[str]) -> tuple[str, ...]:
    inputs = inputs_or_stdin(names, "JSONL files of parsed records")
    require_files(inputs)
    if is_torchrun() and STDIN in inputs:
        raise UsageProblem("several processes cannot share stdin: name the records' files")
    return inputs


def _photo_rows(
    run: Run, tables: Sequence[TaggerScores], records: Records
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
        run.report.notify(f"{table.path}: scores of {(found >= 0).sum()} of {len(found)} photos")
        is_usable |= found >= 0
    for index in np.flatnonzero(~is_usable).tolist():
        try:
            notes[index].require_tags()
        except RecordProblem as problem:
            run.reject_photos(records, {index: problem})
    return rows, is_usable


def build_job(run: Run, examples: Examples) -> Job:
    """The model with its losses, as an unfinished run left it, and its batches."""
    options, preset, config = run.options, run.preset, run.preset.training
    labels, device, notify = examples.targets.labels, run.runtime.device, run.report.notify
    given = presets.write_table(preset) | {
        "records": len(examples.records), "labels": labels.sha256, "val": options.val,
        "model": options.init, "text": options.text, "processes": run.world.size,
    }  # fmt: skip
    with run.world.main_first():
        tokenizer = encoder = clip = mask = None
        if (captioning := preset.model.captioning) is not None:
            path = run.work / "tokenizer.json"
            tokenizer = start.caption_tokenizer(path, captioning, run.init, _texts(examples))
        if preset.model.labels.kind != "learnt":
            encoder = start.open_text_encoder(options.text, run.init, preset)
        model = start.initial_model(preset, labels, len(tokenizer or ()), encoder, run.init, notify)
        model.to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
        if (place := clip_place(config.distill)) is not None:
            clip = teachers.ClipTeacher(local_path(place), preset.preprocess)
        if config.fewest_positives and 0 < (n_trained := examples.trained.sum()) < len(labels):
            notify(f"{n_trained} of {len(labels)} labels can be trained")
            mask = torch.from_numpy(examples.trained)
        task = TrainingTask(model, config, clip, mask).to(device)
        trainer = Trainer(task, run.runtime, run.world, given)
        if (run.work / LAST).is_file():
            trainer.restore(run.work / LAST)
        photo = TrainingPhoto(preset.preprocess, config.augment)
        whole = TrainingPhoto(preset.preprocess, UNCHANGED)
        data = TrainingSet(examples.records, examples.targets, photo, config.seed, tokenizer)
        validation = TrainingSet(examples.held_out, Targets(labels), whole)
        workers = config.workers if options.workers is None else options.workers
        job = Job(examples, trainer, data, validation, tokenizer, encoder, workers)
        try:
            return _with_captions(run, _with_features(run, job))
        except Interrupted:  # it takes hours to compute them for many photos
            if run.world.is_main:
                trainer.save(run.work / LAST)
            raise


def _texts(examples: Examples) -> Iterator[str]:
    """The labels, and the captions of at most MAX_TEXTS records."""
    yield from examples.targets.labels.tags
    for index in examples.ids[:: -(-len(examples.ids) // MAX_TEXTS) or 1].tolist():
        for caption in examples.records[index].captions:
            yield clean_caption(caption.text)


def _with_features(run: Run, job: Job) -> Job:
    """The job with features in place of photos, where they are the same in every epoch."""
    encoder, examples, config = job.model.encoder, job.examples, run.preset.training
    changes = config.augment.crop_scale != (1.0, 1.0) or config.augment.operations > 0
    is_frozen = config.backbone_lr_factor == 0 or encoder.frozen_stages > 0
    if changes or not is_frozen or clip_place(config.distill) is not None:
        return job

    def features(records: Records, ids: Ids, *, flip: bool) -> tuple[Half, Ids]:
        run.report.notify(f"features of {len(records)} photos")
        with run.report.progress(title="features", total=len(records)) as advance:
            kept, problems = photo_features(
                records, encoder, run.preset.preprocess, advance, flip=flip
            )
        run.reject_photos(records, problems)
        return kept, ids[~np.isin(ids, list(problems))]

    kept, ids = features(examples.records, examples.ids, flip=config.augment.flip > 0)
    data, held_out = replace(job.data, features=kept), examples.held_out
    held_out_ids = examples.held_out_ids
    if held_out is not examples.records:
        kept, held_out_ids = features(held_out, held_out_ids, flip=False)
    return replace(
        job, data=data, validation=replace(job.validation, features=kept),
        examples=replace(examples, ids=ids, held_out_ids=held_out_ids),
        # They are read faster than worker processes could hand them over.
        workers=run.options.workers or 0,
    )  # fmt: skip


def _with_captions(run: Run, job: Job) -> Job:
    """The job with the vectors of all captions, if these teach."""
    config, records = run.preset.training, job.examples.records
    if job.encoder is None or "caption" not in config.distill or not config.distill_weight:
        return job
    run.report.notify(f"embedding {records.counts.n_captions} captions")
    with run.report.progress(title="captions", total=len(records)) as advance:
        texts = caption_vectors(run.work / "captions.f16", records, job.encoder, advance)
    return replace(job, data=replace(job.data, texts=texts))
