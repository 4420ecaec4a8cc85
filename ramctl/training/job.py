"""A training job put together from its plan: records, labels, model, teachers, trainer."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TOKENIZER, Bundle, resolve_model
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
from ramctl.records.jsonl import MAX_LINE
from ramctl.records.parallel import usable_cores
from ramctl.records.record import JsonObject, Reject
from ramctl.records.remote import base_url
from ramctl.tagger_scores import Photo, TaggerScores
from ramctl.text.encoder import TextEncoder
from ramctl.training.checkpoint_store import RECORDS_HASH
from ramctl.training.data.annotations import read_annotation, require_tags
from ramctl.training.data.augmentation import TrainingPhoto, training_preprocess
from ramctl.training.data.batches import TrainingSet
from ramctl.training.data.features import CachedFeatures, FeatureCache, keep_caption_vectors
from ramctl.training.data.record_file import RecordFile, Source, copy_records, is_read_by_offset
from ramctl.training.data.record_index import RecordIndex
from ramctl.training.data.record_scan import ScannedRecords, scan_records
from ramctl.training.data.sampler import Sampler
from ramctl.training.data.silence import Silence
from ramctl.training.data.targets import Targets, append_labels, build_labels
from ramctl.training.data.teacher_scores import ScoresTeacher, SoftTargets, scores_teachers
from ramctl.training.distributed import World
from ramctl.training.initial import initial_model
from ramctl.training.objectives.clip_teacher import ClipTeacher
from ramctl.training.objectives.task import TrainingTask
from ramctl.training.plan import Plan, TrainOptions, WorkFolder
from ramctl.training.text_vectors import clip_place, open_text_encoder
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


def runtime_of(options: TrainOptions, precision: str, local_rank: int = 0) -> Runtime:
    """The device and number format of a run; `--dtype` outranks the preset's precision."""
    device = choose_device(options.device, local_rank=local_rank)
    wanted = precision if options.dtype == "auto" else options.dtype
    return Runtime(device, number_format(wanted, device, is_training=True))


def can_keep_features(preset: Preset, encoder: ImageEncoder) -> bool:
    """Whether what the frozen stages make of a photo never changes, so that it can be kept."""
    training, augment = preset.training, preset.training.data.augment
    has_frozen = training.backbone.frozen_stages > 0 and encoder.keeps_stages
    is_frozen = training.backbone.backbone_lr_factor == 0 or has_frozen
    is_only_flipped = augment.crop_scale == (1.0, 1.0) and augment.operations == 0
    is_plain = is_only_flipped and training_preprocess(preset) == preset.preprocess
    return is_frozen and is_plain and clip_place(training.losses.distill) is None


def _are_remote(sources: list[Source]) -> bool:
    return any(base_url(source.base) is not None for source in sources)


class Job:
    """Everything that a run trains, and trains on.

    The parts are made in the order in which they depend on each other. Slow results are stored in
    the work folder, so that a resume finds them.
    """

    def __init__(self, plan: Plan, work: WorkFolder, context: RunContext) -> None:
        self.plan, self.work, self.context = plan, work, context
        self.preset, self.training = plan.preset, plan.preset.training
        self.init = Bundle.open(resolve_model(plan.init)) if plan.init else None
        teachers = scores_teachers(self.training.losses.distill)
        self.records = self._scan(
            "records", plan.sources, hold_out=plan.val is None, takes_untagged=bool(teachers)
        )
        self._warn_of_shards()
        scores = self._teacher_scores(teachers)
        self._check_unchanged(teachers)
        taught = sum((seen.given for seen, _ in scores), Counter())
        self.targets = Targets(self._labels(taught))
        self.outside = self.targets.outside(self.records.counts.tags)
        if self.outside[1]:
            tags = "{} tags ({} mentions)".format(*self.outside)
            context.say(f"{tags} are not in the label system: ignored")
        self.tokenizer = self._tokenizer()
        self.encoder: TextEncoder | None = None
        if self.preset.model.labels.kind != "learnt":
            self.encoder = open_text_encoder(plan.text, self.init, self.preset)
        self.teachers = tuple(
            SoftTargets(teacher, seen, self.targets.labels, rows)
            for teacher, (seen, rows) in zip(teachers, scores, strict=True)
        )
        counts = self.targets.counts(self.records.counts.tags)
        is_trained = np.zeros(len(counts), bool)
        for teacher in self.teachers:
            is_trained[teacher.known] = True
        fewest = self.training.losses.fewest_positives
        # Where all labels are rare, none is too rare.
        self.evidence = is_trained | (counts >= min(fewest, counts.max(initial=0)))
        is_trained |= counts > 0
        if self.training.losses.captions_alone:  # the tagger comes with what it has
            self.evidence[:] = is_trained[:] = True
        # A label that is said to be without evidence in the file stays so.
        self.evidence &= np.array([label.validated for label in self.targets.labels])
        task = self._task(is_trained)
        val = self._scan_val()
        self.n_lines = self.records.n_lines + (val.n_lines if val else 0)  # good or bad
        ids, features, val_features = self.records.training_ids, None, None
        if can_keep_features(self.preset, task.model.encoder) and not context.is_dry:
            flip = self.training.data.augment.flip > 0
            features = val_features = self._kept(task, self.records.records, flip=flip)
            ids = ids[features.rows[ids, 0] >= 0]
            if val is not None:
                val_features = self._kept(task, val.records, flip=False)
        workers = context.workers
        if workers is None:
            # Kept features are read faster than worker processes could hand them over.
            workers = 0 if features else self.training.data.workers
        self.training_set = TrainingSet(
            self.records.records, self.targets, self.training,
            TrainingPhoto(training_preprocess(self.preset), self.training.data.augment),
            self.tokenizer, features, self._caption_vectors(), self.teachers,
            self._silence(), workers, pins=context.runtime.device.type == "cuda",
        )  # fmt: skip
        val_ids = np.arange(len(val.records)) if val else self.records.held_out_ids
        self.validation = ValidationSet(  # without photos where too few could be held out
            (val or self.records).records, val_ids, self.targets,
            TrainingPhoto(self.preset.preprocess, UNCHANGED), val_features,
        )  # fmt: skip
        self.trainer = self._trainer(task, ids)

    def _scan_val(self) -> ScannedRecords | None:
        name = self.plan.val
        if name is None:
            return None
        require_files([name])
        copy = None if is_read_by_offset(name) else self.work.path / "val" / "records.jsonl"
        if copy is not None and not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            copy_records(name, copy)
        return self._scan("val", [Source.of(name, self.plan.root, copy)], hold_out=False)

    def _scan(
        self, name: str, sources: list[Source], *, hold_out: bool, takes_untagged: bool = False
    ) -> ScannedRecords:
        options: JsonObject = {
            "hold_out": hold_out,
            "takes_untagged": takes_untagged,
            "max_line": self.plan.max_line or MAX_LINE,
            "with_shards": self.training.data.shuffled_shards > 0 or _are_remote(sources),
        }
        index = RecordIndex(self.work.path / f"{name}.index", sources, options)
        return index.scanned(
            lambda on_reject: scan_records(
                sources, on_reject, self.plan.command, jobs=usable_cores(), **options
            ),
            self.context.on_reject,
            keep=self.context.world.is_main,
        )

    def _warn_of_shards(self) -> None:
        """Say that all archives at a URL are needed all the time, unless a few are mixed."""
        if _are_remote(self.plan.sources) and not self.training.data.shuffled_shards:
            n_shards = int(self.records.shards.max()) + 1 if self.records.shards is not None else 0
            if n_shards > 1:
                self.context.say(
                    f"photos of all {n_shards} archives are mixed, and so all are copied and kept: "
                    "--set training.shuffled_shards=16 mixes those of 16 at a time"
                )

    def _teacher_scores(
        self, teachers: Sequence[ScoresTeacher]
    ) -> list[tuple[TaggerScores, NDArray[np.int64]]]:
        """What each teacher scored, and its row of each record's photo.

        Records that nobody tagged and no teacher saw are rejected.
        """
        if not teachers:
            return []
        records, found = self.records.records, []
        notes = [read_annotation(records[index]) for index in range(len(records))]
        is_usable = np.array([note.is_tagged for note in notes])
        for teacher in teachers:
            scores = TaggerScores.read(teacher.path, self.plan.command)
            rows = scores.rows_of([Photo(note.image, note.base) for note in notes])
            n_seen = int((rows >= 0).sum())
            self.context.say(f"{teacher.path}: scores of {n_seen} of {len(rows)} photos")
            is_usable |= rows >= 0
            found.append((scores, rows))
        for index in np.flatnonzero(~is_usable).tolist():
            try:
                require_tags(notes[index])
            except RecordProblem as problem:
                self.context.on_reject(Reject.of(records[index], problem, self.plan.command))
        ids = self.records.training_ids
        self.records.training_ids = ids[is_usable[ids]]
        return found

    def _check_unchanged(self, teachers: Sequence[ScoresTeacher]) -> None:
        """RunProblem when a resumed run's records or teachers are not what they were."""
        kept, hashes = self.work.path / RECORDS_HASH, [self.records.sha256]
        for path in (path for teacher in teachers for path in teacher.files):
            with path.open("rb") as stream:
                hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
        content = "\n".join(hashes)
        if kept.is_file():
            if kept.read_text("ascii") != content:
                what = "records or the teachers' scores" if teachers else "records"
                raise RunProblem(f"the {what} changed since the run began: use --restart")
        elif self.context.world.is_main:
            write_atomic(kept, content.encode("ascii"))

    def _labels(self, taught: Counter[str]) -> LabelSystem:
        """The label system; `taught` counts the photos that teachers give each of their names."""
        kept, given, say = self.work.path / LABELS, self.plan.labels, self.context.say
        if kept.is_file():
            return LabelSystem.read(kept)
        if given is not None and given.startswith("+"):
            if self.init is None:
                raise RunProblem("--labels +FILE appends to the labels of a bundle: name one")
            labels = append_labels(self.init.labels, Path(given[1:]))
            n_before = len(self.init.labels)
            say(f"{len(labels) - n_before} labels appended to {n_before}")
        elif given is not None:
            labels = LabelSystem.read(Path(given))
        elif self.init is not None:
            labels = self.init.labels
        else:
            counts = self.records.counts
            labels = build_labels(replace(counts, tags=counts.tags + taught))
            whose = "records' tags and teachers' names" if taught else "records' tags"
            say(f"no --labels: {len(labels)} labels built from the {whose}")
        if self.context.world.is_main:
            labels.write(kept)
        return labels

    def _tokenizer(self) -> CaptionTokenizer | None:
        captioning, init = self.preset.model.captioning, self.init
        if captioning is None:
            return None
        kept = self.work.path / TOKENIZER
        if not kept.is_file():
            if init is None and (self.plan.vocab or captioning.pieces == "bert"):
                file = local_path(self.plan.vocab) if self.plan.vocab else None
                write_atomic(kept, bert_tokenizer(file).to_str(pretty=True).encode("utf-8"))
            elif init is None:
                words = train_tokenizer(self._caption_texts(), captioning.vocabulary)
                write_atomic(kept, words.to_str(pretty=True).encode("utf-8"))
            elif init.has(TOKENIZER):
                write_atomic(kept, (init.path / TOKENIZER).read_bytes())
            else:
                raise RunProblem(
                    f"{init.path} has no vocabulary for its captions: convert it with --vocab, "
                    "or train without them (--set model.captioning=false)"
                )
        return CaptionTokenizer(load_tokenizer(kept), captioning)

    def _caption_texts(self) -> Iterator[str]:
        yield from self.targets.labels.tags
        ids = self.records.training_ids
        stride = -(-len(ids) // MOST_TEXTS)
        for index in ids[::stride].tolist():
            for caption in read_annotation(self.records.records[index]).captions:
                yield clean_caption(caption.text, self.training.data.caption_words)

    def _task(self, trained: NDArray[np.bool_]) -> TrainingTask:
        """The model with its objectives, on its device; `trained` (L,) are the labels to train."""
        device, labels, say = self.context.runtime.device, self.targets.labels, self.context.say
        model = initial_model(
            self.preset, labels, len(self.tokenizer or ()), self.encoder, self.init, say
        ).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster
        if self.training.backbone.checkpointing:
            model.recompute_activations()
        place, clip = clip_place(self.training.losses.distill), None
        if place is not None:
            clip = ClipTeacher(local_path(place), training_preprocess(self.preset))
        some = self.training.losses.fewest_positives and trained.any() and not trained.all()
        if some:
            say(f"{int(trained.sum())} of {len(labels)} labels can be trained")
        mask = torch.from_numpy(trained) if some else None
        return TrainingTask(model, self.training, clip, mask).to(device)

    def _kept(self, task: TrainingTask, records: RecordFile, *, flip: bool) -> CachedFeatures:
        """The features of all records whose photo can be read, computed where they are missing."""
        folder = Path(self.plan.cache or self.work.features)
        cache = FeatureCache(folder, task.model.encoder, self.preset.preprocess, flip=flip)

        def reject(position: int, problem: RecordProblem) -> None:
            self.context.on_reject(Reject.of(records[position], problem, self.plan.command))

        annotations = (read_annotation(records[index]) for index in range(len(records)))
        return cache.fill(annotations, reject, self.context.on_read, self.context.say)

    def _caption_vectors(self) -> NDArray[np.float16] | None:
        """The caption teacher's vectors, where it is asked for."""
        losses, encoder, records = self.training.losses, self.encoder, self.records
        if self.context.is_dry or encoder is None or not losses.distill_weight:
            return None
        if "caption" not in losses.distill:
            return None
        name = f"captions-{records.sha256[:16]}-{encoder.fingerprint}-{encoder.width}.f16"
        path = Path(self.plan.cache or self.work.path) / name
        self.context.say(f"embedding {records.counts.n_captions} captions (kept for the next run)")
        return keep_caption_vectors(path, records.records, encoder, self.context.on_read)

    def _silence(self) -> Silence:
        """What it says that captions do not name a label, or teachers do not see it."""
        records = self.records.records
        if not self.teachers:
            return Silence.of_nobody(len(self.targets))
        notes = ((i, read_annotation(records[i])) for i in self.records.training_ids.tolist())
        return Silence.learn(notes, self.targets, self.teachers)

    def _trainer(self, task: TrainingTask, ids: NDArray[np.int64]) -> Trainer:
        data, context = self.training.data, self.context
        if not len(ids):
            raise RunProblem("no photo to train on could be read")
        shards = self.records.shards
        a_step = data.batch_size * data.accumulation * context.world.size
        sampler = Sampler(
            ids, data.batch_size, data.accumulation, data.seed,
            data.drop_last and len(ids) >= a_step, context.world.rank, context.world.size,
            None if shards is None else shards[ids], data.shuffled_shards,
        )  # fmt: skip
        return Trainer(
            task, self.training, sampler,
            runtime=context.runtime, world=context.world,
        )  # fmt: skip
