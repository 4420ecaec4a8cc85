"""A training job put together from its plan: records, labels, model, teachers, trainer."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TOKENIZER, Bundle, file_sha256, resolve_model
from ramctl.decide.fitting import Flags
from ramctl.device import Runtime, choose_device, number_format
from ramctl.errors import RecordProblem, RunProblem
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.caption_tokenizer import (
    CaptionTokenizer,
    bert_tokenizer,
    clean_caption,
    load_tokenizer,
    train_tokenizer,
)
from ramctl.model.config import AugmentConfig, Preset
from ramctl.model.encoder import ImageEncoder
from ramctl.pretrained.hub import local_path
from ramctl.records.files import write_atomic
from ramctl.records.inputs import require_files
from ramctl.records.parallel import usable_cores
from ramctl.records.record import Reject
from ramctl.tagger_scores import Photo, TaggerScores
from ramctl.text.static_table import TextEncoder
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.batches import TrainingSet
from ramctl.training.data.features import CachedFeatures, FeatureCache, keep_caption_vectors
from ramctl.training.data.record_file import RecordFile, Source, spool
from ramctl.training.data.record_scan import ScannedRecords, scan_records
from ramctl.training.data.sampler import Sampler
from ramctl.training.data.targets import TagCounts, Targets, build_labels, read_annotation
from ramctl.training.data.teachers import ScoresTeacher, Silence, SoftTargets, scores_teachers
from ramctl.training.distributed import World
from ramctl.training.initial import clip_place, initial_model, open_text_encoder, rows_in
from ramctl.training.objectives import ClipTeacher, TrainingTask
from ramctl.training.plan import RECORDS_HASH, Plan, TrainOptions, WorkFolder
from ramctl.training.train import Trainer
from ramctl.training.validation import ValidationSet

MOST_TEXTS = 500_000  # records whose captions decide the vocabulary
UNCHANGED = AugmentConfig((1.0, 1.0), 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class RunContext:
    """Where a job runs, and whom it tells: nothing here changes its result."""

    world: World
    runtime: Runtime
    say: Callable[[str], None]
    on_reject: Callable[[Reject], None]
    on_read: Callable[[int], None]  # number of records read; may raise to stop
    workers: int | None = None  # processes that read photos; None: as many as the preset says
    is_dry: bool = False  # nothing is computed ahead: no features, no caption vectors


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a run trains, and trains on. L labels."""

    plan: Plan
    context: RunContext
    init: Bundle | None
    records: ScannedRecords
    n_lines: int  # of records and validation records, good or bad
    targets: Targets
    outside: tuple[int, int]  # tags that are not among the labels, and their mentions
    evidence: Flags  # (L,) whether enough photos or a teacher show the label
    learnt: Flags  # (L,) whether it is trained, here or by the model that this goes on from
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    training_set: TrainingSet
    validation: ValidationSet
    trainer: Trainer


def runtime_of(options: TrainOptions, precision: str, local_rank: int = 0) -> Runtime:
    """The device and number format of a run; `--dtype` outranks the preset's precision."""
    device = choose_device(options.device, local_rank=local_rank)
    wanted = precision if options.dtype == "auto" else options.dtype
    return Runtime(device, number_format(wanted, device, is_training=True))


def can_keep_features(preset: Preset, encoder: ImageEncoder) -> bool:
    """Whether what the frozen stages make of a photo never changes, so that it can be kept."""
    training, augment = preset.training, preset.training.data.augment
    is_frozen = training.backbone.backbone_lr_factor == 0 or encoder.frozen_stages > 0
    is_only_flipped = augment.crop_scale == (1.0, 1.0) and augment.operations == 0
    return is_frozen and is_only_flipped and clip_place(training.losses.distill) is None


def build_job(plan: Plan, work: WorkFolder, context: RunContext) -> Job:
    """The job of a plan; slow results are kept in the work folder, so that a resume finds them."""
    preset, say = plan.preset, context.say
    data, losses = preset.training.data, preset.training.losses
    init = Bundle.open(resolve_model(plan.init)) if plan.init else None

    teachers = scores_teachers(losses.distill)
    scan = partial(
        scan_records, on_reject=context.on_reject, stage=plan.command, jobs=usable_cores(),
        with_shards=data.shuffled_shards > 0,
    )  # fmt: skip
    records = scan(plan.sources, hold_out=plan.val is None, takes_untagged=bool(teachers))
    scores = _teacher_scores(teachers, records, plan.command, context)
    _require_same_input(work, records, teachers, context)
    counts = records.counts
    if taught := sum((seen.given for seen, _ in scores), Counter()):
        counts = replace(counts, tags=counts.tags + taught)
    targets = Targets(_labels(plan, work, context, init, counts, is_taught=bool(taught)))
    outside = targets.outside(records.counts.tags)
    if outside[1]:
        say(f"{outside[0]} tags ({outside[1]} mentions) are not in the label system: ignored")
    tokenizer = _tokenizer(preset, work, init, targets, records)
    is_learnt = preset.model.labels.kind == "learnt"
    encoder = None if is_learnt else open_text_encoder(plan.text, init, preset)
    soft = tuple(
        SoftTargets(teacher, seen, targets.labels, rows)
        for teacher, (seen, rows) in zip(teachers, scores, strict=True)
    )
    before = np.zeros(len(targets), bool)
    if init is not None:
        before = np.array(rows_in(init.labels, targets.labels)) >= 0
    evidence, trained = _evidence(preset, targets, records.counts, soft, before)
    task = _task(preset, targets, tokenizer, encoder, init, trained, context)

    val = None
    if plan.val is not None:
        require_files([plan.val])
        copy = spool(plan.val, work.path / "val" / "records.jsonl")
        val = scan([Source.of(plan.val, plan.root, copy)], hold_out=False)
    ids, features, val_features = records.training_ids, None, None
    if can_keep_features(preset, task.model.encoder) and not context.is_dry:
        kept = Path(plan.cache or work.features)
        flip = data.augment.flip > 0
        features = val_features = _features(kept, task, plan, records.records, context, flip=flip)
        ids = ids[features.rows[ids, 0] >= 0]
        if val is not None:
            val_features = _features(kept, task, plan, val.records, context, flip=False)
    if not len(ids):
        raise RunProblem("no photo to train on could be read")
    # Kept features are read faster than worker processes could hand them over.
    usual = 0 if features else data.workers
    workers = usual if context.workers is None else context.workers
    vectors, by_captions = None, "caption" in losses.distill and losses.distill_weight > 0
    if encoder is not None and by_captions and not context.is_dry:
        name = f"captions-{records.sha256[:16]}-{encoder.fingerprint}-{encoder.width}.f16"
        say(f"embedding {records.counts.n_captions} captions (kept for the next run)")
        path = Path(plan.cache or work.path) / name
        vectors = keep_caption_vectors(path, records.records, encoder, context.on_read)
    silence = Silence.of_nobody(len(targets))
    if soft:
        notes = ((i, read_annotation(records.records[i])) for i in records.training_ids.tolist())
        silence = Silence.learn(notes, targets, soft)
    training_set = TrainingSet(
        records.records, targets, preset.training,
        TrainingPhoto(preset.preprocess, data.augment),
        tokenizer, features, vectors, soft, silence, workers,
        pins=context.runtime.device.type == "cuda",
    )  # fmt: skip
    validation = ValidationSet(  # without photos where too few could be held out
        (val or records).records,
        np.arange(len(val.records)) if val else records.held_out_ids,
        targets,
        TrainingPhoto(preset.preprocess, UNCHANGED),
        val_features,
    )
    a_step = data.batch_size * data.accumulation * context.world.size
    sampler = Sampler(
        ids, data.batch_size, data.accumulation, data.seed,
        data.drop_last and len(ids) >= a_step, context.world.rank, context.world.size,
        None if records.shards is None else records.shards[ids], data.shuffled_shards,
    )  # fmt: skip
    trainer = Trainer(task, preset.training, sampler, runtime=context.runtime, world=context.world)
    n_lines = records.n_lines + (val.n_lines if val else 0)
    return Job(
        plan, context, init, records, n_lines, targets, outside, evidence, trained | before,
        tokenizer, encoder, training_set, validation, trainer,
    )  # fmt: skip


def _require_same_input(
    work: WorkFolder, records: ScannedRecords, teachers: list[ScoresTeacher], context: RunContext
) -> None:
    """RunProblem where a run that goes on began with other records or teachers' scores."""
    kept = work.path / RECORDS_HASH
    hashes = [file_sha256(path) for one in teachers for path in (one.path, one.map) if path]
    content = "\n".join([records.sha256, *hashes])
    if kept.is_file() and kept.read_text("ascii") != content:
        changed = "the records or the teachers' scores changed since the run began"
        raise RunProblem(f"{changed}: use --restart")
    if context.world.is_main:
        write_atomic(kept, content.encode("ascii"))


def _teacher_scores(
    teachers: Sequence[ScoresTeacher], scanned: ScannedRecords, stage: str, context: RunContext
) -> list[tuple[TaggerScores, NDArray[np.int64]]]:
    """What each teacher scored, and its row of each record's photo.

    Records that nobody tagged and no teacher saw are rejected, and not trained on.
    """
    if not teachers:
        return []
    records, scores = scanned.records, []
    notes = [read_annotation(records[index]) for index in range(len(records))]
    is_usable = np.array([note.is_tagged for note in notes])
    for teacher in teachers:
        seen = TaggerScores.read(teacher.path, stage)
        rows = seen.rows_of([Photo(note.image, note.base) for note in notes])
        context.say(f"{teacher.path}: scores of {(rows >= 0).sum()} of {len(rows)} photos")
        is_usable |= rows >= 0
        scores.append((seen, rows))
    for index in np.flatnonzero(~is_usable).tolist():
        try:
            notes[index].require_tags()
        except RecordProblem as problem:
            context.on_reject(Reject.of(records[index], problem, stage))
    scanned.training_ids = scanned.training_ids[is_usable[scanned.training_ids]]
    return scores


def _labels(
    plan: Plan, work: WorkFolder, context: RunContext, init: Bundle | None, counts: TagCounts, *,
    is_taught: bool,
) -> LabelSystem:  # fmt: skip
    """The label system of `--labels`, of `--init`, or of the tags that `counts` counts."""
    kept, file, say = work.path / LABELS, plan.labels, context.say
    if kept.is_file():
        return LabelSystem.read(kept)
    if file is not None and file.startswith("+"):
        if init is None:
            raise RunProblem("--labels +FILE appends to the labels of a bundle: name one")
        labels = init.labels.extended(LabelSystem.read(Path(file[1:])))
        say(f"{len(labels) - len(init.labels)} labels appended to {len(init.labels)}")
    elif file is not None:
        labels = LabelSystem.read(Path(file))
    elif init is not None:
        labels = init.labels
    else:
        labels = build_labels(counts)
        whose = "records' tags and teachers' names" if is_taught else "records' tags"
        say(f"no --labels: {len(labels)} labels built from the {whose}")
    if context.world.is_main:
        labels.write(kept)
    return labels


def _evidence(
    preset: Preset, targets: Targets, told: TagCounts, teachers: Sequence[SoftTargets],
    before: Flags,
) -> tuple[Flags, Flags]:  # fmt: skip
    """Which labels (L,) enough photos or a teacher show, and which can be trained at all.

    What the model knew `before` (L,) stays evident: that these photos do not show it says nothing.
    """
    counts = targets.counts(told.tags + told.likely)
    trained = np.zeros(len(counts), bool)
    for teacher in teachers:
        trained[teacher.known] = True
    fewest = preset.training.losses.fewest_positives
    # Where all labels are rare, none is too rare.
    evidence = before | trained | (counts >= min(fewest, counts.max(initial=0)))
    trained |= counts > 0
    if preset.training.losses.captions_alone:  # the tagger comes with what it has
        evidence[:] = trained[:] = True
    # A label that is said to be without evidence in the file stays so.
    evidence &= np.array([label.validated for label in targets.labels])
    return evidence, trained


def _tokenizer(
    preset: Preset, work: WorkFolder, init: Bundle | None, targets: Targets, scanned: ScannedRecords
) -> CaptionTokenizer | None:
    captioning, kept = preset.model.captioning, work.path / TOKENIZER
    if captioning is None:
        return None

    def texts() -> Iterator[str]:
        yield from targets.labels.tags
        ids = scanned.training_ids
        for index in ids[:: -(-len(ids) // MOST_TEXTS)].tolist():
            for caption in read_annotation(scanned.records[index]).captions:
                yield clean_caption(caption.text)

    if not kept.is_file():
        if init is not None:
            if not init.has(TOKENIZER):
                raise RunProblem(
                    f"{init.path} has no vocabulary for its captions: convert it with --vocab, "
                    "or train without them (--set model.captioning=false)"
                )
            content = (init.path / TOKENIZER).read_bytes()
        else:
            is_bert = captioning.pieces == "bert"
            words = bert_tokenizer() if is_bert else train_tokenizer(texts(), captioning.vocabulary)
            content = words.to_str(pretty=True).encode("utf-8")
        write_atomic(kept, content)
    return CaptionTokenizer(load_tokenizer(kept), captioning)


def _task(
    preset: Preset, targets: Targets, tokenizer: CaptionTokenizer | None,
    encoder: TextEncoder | None, init: Bundle | None, trained: Flags, context: RunContext,
) -> TrainingTask:  # fmt: skip
    """The model with its objectives, on its device; `trained` (L,) are the labels to train."""
    device, labels, training = context.runtime.device, targets.labels, preset.training
    model = initial_model(preset, labels, len(tokenizer or ()), encoder, init, context.say)
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
    place = clip_place(training.losses.distill)
    clip = None if place is None else ClipTeacher(local_path(place), preset.preprocess)
    mask = None
    if training.losses.fewest_positives and trained.any() and not trained.all():
        context.say(f"{int(trained.sum())} of {len(labels)} labels can be trained")
        mask = torch.from_numpy(trained)
    return TrainingTask(model, training, clip, mask).to(device)


def _features(
    folder: Path, task: TrainingTask, plan: Plan, records: RecordFile, context: RunContext, *,
    flip: bool,
) -> CachedFeatures:  # fmt: skip
    """The features of all records whose photo can be read, computed where they are missing."""
    cache = FeatureCache(folder, task.model.encoder, plan.preset.preprocess, flip=flip)

    def reject(position: int, problem: RecordProblem) -> None:
        context.on_reject(Reject.of(records[position], problem, plan.command))

    annotations = (read_annotation(records[index]) for index in range(len(records)))
    return cache.fill(annotations, reject, context.on_read, context.say)
