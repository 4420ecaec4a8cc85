"""A training job, built from its plan: records, labels, model, teachers, trainer."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    TOKENIZER,
    Bundle,
    file_sha256,
    read_labels,
    resolve_model,
)
from ramctl.device import Runtime, choose_device, number_format
from ramctl.errors import RecordProblem, RunProblem
from ramctl.inference.fitting import Flags
from ramctl.labels import LABELS, Labels
from ramctl.model.caption_tokenizer import (
    CaptionTokenizer,
    bert_tokenizer,
    clean_caption,
    load_tokenizer,
    train_tokenizer,
)
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import (
    AugmentConfig,
    CaptioningConfig,
    PreprocessConfig,
    Preset,
    TrainingConfig,
)
from ramctl.pretrained.hub import local_path
from ramctl.records.files import write_atomic
from ramctl.records.inputs import require_files
from ramctl.records.record import Record, Reject
from ramctl.tagger_scores import TaggerScores
from ramctl.text.static_table import TextEncoder
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.batches import TrainingSet
from ramctl.training.data.features import CachedFeatures, FeatureCache, keep_caption_vectors
from ramctl.training.data.record_file import RecordFile, Source, spool
from ramctl.training.data.record_scan import ScannedRecords, scan_records
from ramctl.training.data.sampler import Sampler
from ramctl.training.data.targets import TagCounts, Targets, build_labels, read_annotation
from ramctl.training.data.teachers import (
    ScoresTeacher,
    SoftTargets,
    TagTargets,
    scores_teachers,
)
from ramctl.training.distributed import World
from ramctl.training.initial import clip_place, initial_model, open_text_encoder, rows_in
from ramctl.training.loop import Trainer
from ramctl.training.objectives import ClipTeacher, TrainingTask
from ramctl.training.plan import RECORDS_HASH, Plan, TrainOptions, WorkFolder
from ramctl.training.validation import ValidationSet

MAX_TEXTS = 500_000  # records whose captions decide the vocabulary
UNCHANGED = AugmentConfig((1.0, 1.0), 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class RunContext:
    """Where a job runs, and what it reports to: nothing here changes its result."""

    world: World
    runtime: Runtime
    stage: str  # of rejects: the command
    notify: Callable[[str], None]
    on_reject: Callable[[Reject], None]
    # Of what is prepared for how many records: takes how many more are done; may raise to stop.
    counting: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
    workers: int | None = None  # processes that read photos; None: the preset's number

    def reject(self, record: Record, problem: RecordProblem) -> None:
        """Report a record that is not trained on."""
        self.on_reject(Reject.of(record, problem, self.stage))


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
    learnt: Flags  # (L,) whether it is trained, here or in the bundle that training starts from
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    training_set: TrainingSet
    validation: ValidationSet
    trainer: Trainer


def runtime_of(options: TrainOptions, precision: str, local_rank: int = 0) -> Runtime:
    """The device and number format of a run; `--dtype` outranks the preset's precision."""
    device = choose_device(options.device, local_rank=local_rank)
    dtype = precision if options.dtype == "auto" else options.dtype
    return Runtime(device, number_format(dtype, device, is_training=True))


def build_job(plan: Plan, work: WorkFolder, context: RunContext) -> Job:
    """Build the job of a plan; slow results are kept in the work folder for `--resume`."""
    preset, config = plan.preset, plan.preset.training
    init = Bundle.open(resolve_model(plan.init)) if plan.init else None
    teachers = scores_teachers(config.distill)
    scan = partial(scan_records, on_reject=context.on_reject, stage=context.stage)
    records = scan(plan.sources, hold_out=plan.val is None, takes_untagged=bool(teachers))
    scores = _teacher_scores(teachers, records, context)
    _require_same_input(work.path / RECORDS_HASH, records, teachers, context.world)

    taught = sum((table.given for table, _ in scores), Counter())
    counts = replace(records.counts, tags=records.counts.tags + taught)
    targets = Targets(
        _labels(plan.labels, work.path / LABELS, init, counts, context, is_taught=bool(taught))
    )
    outside = _tags_outside(targets, records, context)
    soft = tuple(
        SoftTargets(teacher, table, targets.labels, rows)
        for teacher, (table, rows) in zip(teachers, scores, strict=True)
    )
    known = _known_labels(init, targets)

    tokenizer = _tokenizer(preset.model.captioning, work.path / TOKENIZER, init, targets, records)
    is_learnt = preset.model.labels.kind == "learnt"
    encoder = None if is_learnt else open_text_encoder(plan.text, init, preset)
    evidence, trained = _evidence(config, targets, records.counts, soft, known)
    task = _task(preset, targets.labels, tokenizer, encoder, init, trained, context)

    validation_records = _validation_records(plan, work, scan)
    features = validation_features = None
    if can_keep_features(config, task.model.encoder):
        photos = partial(_features, work.features, task.model.encoder, preset.preprocess, context)
        features = validation_features = photos(records.records, flip=config.augment.flip > 0)
        if validation_records is not None:
            validation_features = photos(validation_records.records, flip=False)
    sampler = _sampler(config, records, features, context.world)
    # Kept features are read faster than worker processes could hand them over.
    workers = config.workers if features is None else 0
    vectors = _caption_vectors(work.path, config, records, encoder, context)
    training_set = TrainingSet(
        records.records,
        TagTargets(targets, config, soft),
        config,
        TrainingPhoto(preset.preprocess, config.augment),
        tokenizer,
        features,
        vectors,
        workers if context.workers is None else context.workers,
        pins=context.runtime.device.type == "cuda",
    )
    held_out = validation_records or records
    validation = ValidationSet(  # without photos where too few could be held out
        held_out.records,
        records.held_out_ids if validation_records is None else held_out.training_ids,
        targets,
        TrainingPhoto(preset.preprocess, UNCHANGED),
        validation_features,
    )
    trainer = Trainer(task, config, sampler, runtime=context.runtime, world=context.world)
    n_lines = records.n_lines + (validation_records.n_lines if validation_records else 0)
    return Job(
        plan, context, init, records, n_lines, targets, outside, evidence, trained | known,
        tokenizer, encoder, training_set, validation, trainer,
    )  # fmt: skip


def _tags_outside(
    targets: Targets, records: ScannedRecords, context: RunContext
) -> tuple[int, int]:
    """The tags of the records that are not labels, and their mentions; a message if there are."""
    n_tags, n_mentions = targets.outside(records.counts.tags)
    if n_mentions:
        context.notify(
            f"{n_tags} tags ({n_mentions} mentions) are not in the label system: ignored"
        )
    return n_tags, n_mentions


def _known_labels(init: Bundle | None, targets: Targets) -> Flags:
    """Which labels (L,) the model has that training starts from."""
    if init is None:
        return np.zeros(len(targets), bool)
    return np.array(rows_in(init.labels, targets.labels)) >= 0


def _validation_records(
    plan: Plan, work: WorkFolder, scan: Callable[..., ScannedRecords]
) -> ScannedRecords | None:
    """The scanned records of `--val`, which are copied into the work folder; None without."""
    if plan.val is None:
        return None
    require_files([plan.val])
    copy = spool(plan.val, work.path / "val" / "records.jsonl")
    return scan([Source.of(plan.val, plan.root, copy)], hold_out=False)


def _require_same_input(
    kept: Path, records: ScannedRecords, teachers: Sequence[ScoresTeacher], world: World
) -> None:
    """RunProblem where a resumed run began with other records or teachers' scores."""
    hashes = [file_sha256(path) for item in teachers for path in (item.path, item.map) if path]
    content = "\n".join([records.sha256, *hashes])
    if kept.is_file() and kept.read_text("ascii") != content:
        raise RunProblem("the records or the teachers' scores changed since the run began")
    if world.is_main:
        write_atomic(kept, content.encode("ascii"))


def _teacher_scores(
    teachers: Sequence[ScoresTeacher], scanned: ScannedRecords, context: RunContext
) -> list[tuple[TaggerScores, NDArray[np.int64]]]:
    """Each teacher's scores, and its row of each record's photo.

    Records without tags whose photo no teacher scored are rejected, and not trained on.
    """
    if not teachers:
        return []
    records, scores = scanned.records, []
    notes = [read_annotation(records[index]) for index in range(len(records))]
    is_usable = np.array([note.is_tagged for note in notes])
    for teacher in teachers:
        table = TaggerScores.read(teacher.path, context.stage)
        rows = table.rows_of([note.image for note in notes])
        context.notify(f"{teacher.path}: scores of {(rows >= 0).sum()} of {len(rows)} photos")
        is_usable |= rows >= 0
        scores.append((table, rows))
    for index in np.flatnonzero(~is_usable).tolist():
        try:
            notes[index].require_tags()
        except RecordProblem as problem:
            context.reject(records[index], problem)
    scanned.training_ids = scanned.training_ids[is_usable[scanned.training_ids]]
    return scores


def _labels(
    name: str | None, kept: Path, init: Bundle | None, counts: TagCounts, context: RunContext, *,
    is_taught: bool,
) -> Labels:  # fmt: skip
    """The label system of `--labels`, of `--init`, or of the tags that `counts` counts."""
    if kept.is_file():
        return Labels.read(kept)
    if name is not None and name.startswith("+"):
        if init is None:
            raise RunProblem("--labels +FILE appends to the labels of a bundle: name one")
        labels = init.labels.extended(read_labels(name[1:]))
        context.notify(f"{len(labels) - len(init.labels)} labels appended to {len(init.labels)}")
    elif name is not None:
        labels = read_labels(name)
    elif init is not None:
        labels = init.labels
    else:
        labels = build_labels(counts)
        origin = "records' tags and teachers' names" if is_taught else "records' tags"
        context.notify(f"no --labels: {len(labels)} labels built from the {origin}")
    if context.world.is_main:
        labels.write(kept)
    return labels


def _evidence(
    config: TrainingConfig, targets: Targets, counts: TagCounts, teachers: Sequence[SoftTargets],
    known: Flags,
) -> tuple[Flags, Flags]:  # fmt: skip
    """Which labels (L,) have evidence in enough photos or by a teacher, and which can be trained.

    Labels that are `known` (L,) keep their evidence, however few photos show them.
    """
    n_photos = targets.counts(counts.tags)
    trained = np.zeros(len(targets), bool)
    for teacher in teachers:
        trained[teacher.known] = True
    # Where all labels are rare, none is too rare.
    fewest = min(config.fewest_positives, n_photos.max(initial=0))
    evidence = known | trained | (n_photos >= fewest)
    trained |= n_photos > 0
    if config.captions_alone:  # the tagger comes with what it has
        evidence[:] = trained[:] = True
    # A label that is marked as without evidence in the file stays so.
    evidence &= np.array([label.validated for label in targets.labels])
    return evidence, trained


def _tokenizer(
    config: CaptioningConfig | None, kept: Path, init: Bundle | None, targets: Targets,
    scanned: ScannedRecords,
) -> CaptionTokenizer | None:  # fmt: skip
    """The captioning branch's tokenizer, of `--init` or new; None without the branch."""
    if config is None:
        return None

    def texts() -> Iterator[str]:
        yield from targets.labels.tags
        ids = scanned.training_ids
        for index in ids[:: -(-len(ids) // MAX_TEXTS)].tolist():
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
            is_bert = config.pieces == "bert"
            words = bert_tokenizer() if is_bert else train_tokenizer(texts(), config.vocabulary)
            content = words.to_str(pretty=True).encode("utf-8")
        write_atomic(kept, content)
    return CaptionTokenizer(load_tokenizer(kept), config)


def _task(
    preset: Preset, labels: Labels, tokenizer: CaptionTokenizer | None,
    encoder: TextEncoder | None, init: Bundle | None, trained: Flags, context: RunContext,
) -> TrainingTask:  # fmt: skip
    """The model with its objectives, on its device; `trained` (L,) are the labels to train."""
    device, config = context.runtime.device, preset.training
    model = initial_model(preset, labels, len(tokenizer or ()), encoder, init, context.notify)
    model.to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
    place = clip_place(config.distill)
    clip = None if place is None else ClipTeacher(local_path(place), preset.preprocess)
    mask = None
    if config.fewest_positives and trained.any() and not trained.all():
        context.notify(f"{int(trained.sum())} of {len(labels)} labels can be trained")
        mask = torch.from_numpy(trained)
    return TrainingTask(model, config, clip, mask).to(device)


def can_keep_features(config: TrainingConfig, encoder: ImageEncoder) -> bool:
    """Whether the frozen stages give the same features of a photo in every epoch."""
    is_frozen = config.backbone_lr_factor == 0 or encoder.frozen_stages > 0
    is_only_flipped = config.augment.crop_scale == (1.0, 1.0) and config.augment.operations == 0
    return is_frozen and is_only_flipped and clip_place(config.distill) is None


def _features(
    folder: Path, encoder: ImageEncoder, preprocess: PreprocessConfig, context: RunContext,
    records: RecordFile, *, flip: bool,
) -> CachedFeatures:  # fmt: skip
    """The features of all records whose photo can be read, computed where they are missing."""
    cache = FeatureCache(folder, encoder, preprocess, flip=flip)
    annotations = (read_annotation(records[index]) for index in range(len(records)))
    context.notify(f"features of {len(records)} photos")
    with context.counting("features", len(records)) as on_done:
        return cache.fill(
            annotations, lambda position, problem: context.reject(records[position], problem),
            on_done,
        )  # fmt: skip


def _sampler(
    config: TrainingConfig, records: ScannedRecords, features: CachedFeatures | None, world: World
) -> Sampler:
    """The order of the records that are trained on; RunProblem where there are none."""
    ids = records.training_ids
    if features is not None:
        ids = ids[features.rows[ids, 0] >= 0]
    if not len(ids):
        raise RunProblem("no photo to train on could be read")
    a_step = config.batch_size * config.accumulation * world.size
    return Sampler(
        ids, config.batch_size, config.accumulation, config.seed,
        config.drop_last and len(ids) >= a_step, world.rank, world.size,
    )  # fmt: skip


def _caption_vectors(
    folder: Path, config: TrainingConfig, records: ScannedRecords, encoder: TextEncoder | None,
    context: RunContext,
) -> NDArray[np.float16] | None:  # fmt: skip
    """The records' caption vectors (N, E) where captions teach; computed where missing."""
    is_taught = "caption" in config.distill and config.distill_weight > 0
    if encoder is None or not is_taught:
        return None
    context.notify(f"embedding {records.counts.n_captions} captions")
    with context.counting("captions", len(records.records)) as on_done:
        return keep_caption_vectors(folder / "captions.f16", records.records, encoder, on_done)
