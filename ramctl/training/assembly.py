"""A training job put together from its plan: records, labels, model, teachers, trainer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TOKENIZER, Bundle, resolve_model
from ramctl.device import Runtime, choose_device, uses_bf16
from ramctl.errors import RecordProblem, RunProblem
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.caption_tokenizer import (
    CaptionTokenizer,
    clean_caption,
    load_tokenizer,
    train_tokenizer,
)
from ramctl.model.config import AugmentConfig, Preset
from ramctl.pretrained.hub import local_path
from ramctl.records.files import write_atomic
from ramctl.records.record import Reject
from ramctl.text.clip import PREFIX
from ramctl.text.encoder import TextEncoder
from ramctl.training.data.annotations import read_annotation
from ramctl.training.data.augmentation import TrainingPhoto, is_only_flipped, training_preprocess
from ramctl.training.data.batches import CachedFeatures, Collate, StepLoader, TrainingSet
from ramctl.training.data.features import FeatureCache, keep_caption_vectors
from ramctl.training.data.record_file import (
    RecordFile,
    ScannedRecords,
    Source,
    scan_records,
)
from ramctl.training.data.sampler import Sampler
from ramctl.training.data.targets import Targets, append_labels, build_labels
from ramctl.training.distributed import World
from ramctl.training.initial import initial_model
from ramctl.training.objectives.clip_teacher import ClipTeacher
from ramctl.training.objectives.task import TrainingTask
from ramctl.training.plan import Plan, TrainOptions, WorkFolder
from ramctl.training.text_vectors import open_text_encoder
from ramctl.training.train import Trainer
from ramctl.training.validation import ValidationSet

MOST_TEXTS = 500_000  # records whose captions decide the word pieces
UNCHANGED = AugmentConfig((1.0, 1.0), 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class RunContext:
    """Where a job runs, and whom it tells: nothing here changes its result."""

    world: World
    runtime: Runtime
    say: Callable[[str], None]
    on_reject: Callable[[Reject], None]
    on_read: Callable[[int], None]  # number of records read; may raise to stop


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a run trains, and trains on."""

    plan: Plan
    records: ScannedRecords
    n_lines: int  # of the records' and the validation file, good or bad
    targets: Targets
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    init: Bundle | None
    loader: StepLoader
    validation: ValidationSet | None
    trainer: Trainer

    def data_counts(self) -> dict[str, int]:
        """What was trained on, for the model card."""
        counts = self.records.counts.tags
        n_tags, n_mentions = self.targets.outside(counts)
        return {
            "records": len(self.records.records),
            "records_trained_on": len(self.trainer.sampler.ids),
            "captions": self.records.n_captions,
            "tag_mentions": sum(counts.values()),
            "tags_outside_the_labels": n_tags,
            "mentions_outside_the_labels": n_mentions,
        }


def runtime_of(options: TrainOptions, precision: str, local_rank: int = 0) -> Runtime:
    """The device and number format of a run; `--dtype` outranks the preset's precision."""
    device = choose_device(options.device, local_rank=local_rank)
    wanted = precision if options.dtype == "auto" else options.dtype
    return Runtime(device, uses_bf16(wanted, device, on_cpu=True))


def build_job(
    plan: Plan, work: WorkFolder, context: RunContext, *, keeps_features: bool = True
) -> Job:
    """The job of a plan; slow results are stored in the work folder, so that a resume finds them.

    Without `keeps_features` (a dry run) nothing is computed ahead: no features, no caption vectors.
    """
    return _Builder(plan, work, context).build(keeps_features=keeps_features)


def can_keep_features(preset: Preset) -> bool:
    """Whether what the frozen stages make of a photo never changes, so that it can be kept."""
    training = preset.training
    teacher_sees_photos = any(name.startswith(PREFIX) for name in training.losses.distill)
    is_frozen = training.backbone.backbone_lr_factor == 0 or training.backbone.frozen_stages > 0
    is_plain = (
        is_only_flipped(training.data.augment) and training_preprocess(preset) == preset.preprocess
    )
    return is_frozen and is_plain and not teacher_sees_photos


class _Builder:
    """The parts of a job, in the order in which they depend on each other."""

    def __init__(self, plan: Plan, work: WorkFolder, context: RunContext) -> None:
        self.plan, self.work, self.context = plan, work, context
        self.preset, self.training = plan.preset, plan.preset.training
        self.cache = Path(plan.cache) if plan.cache else None
        self.init = Bundle.open(resolve_model(plan.init)) if plan.init else None
        self.records = self._scan(plan.sources, hold_out=plan.val is None)

    def build(self, *, keeps_features: bool) -> Job:
        self._check_unchanged()
        labels = self._labels()
        targets = self._targets(labels)
        tokenizer = self._tokenizer(labels)
        encoder = None
        if self.preset.model.labels.kind != "learnt":
            encoder = open_text_encoder(self.plan.text, self.init, self.preset)
        task = self._task(targets, tokenizer, encoder)
        val = None if self.plan.val is None else self._scan([self._val_source()], hold_out=False)
        ids, features, val_features, texts = self.records.training_ids, None, None, None
        if keeps_features:
            if can_keep_features(self.preset):
                ids, features, val_features = self._keep_features(task, val)
            if encoder is not None and self.training.losses.distill_weight:
                texts = self._caption_vectors(encoder)
        photo = TrainingPhoto(training_preprocess(self.preset), self.training.data.augment)
        size = self.preset.preprocess.size
        loader = StepLoader(
            TrainingSet(
                self.records.records, targets, self.training, photo, features=features, texts=texts
            ),
            Collate(
                len(labels), tokenizer, self.training,
                photo_shape=features.cache.stores[0].shape if features else (3, size, size),
            ),
            # Kept features are read faster than worker processes could hand them over.
            workers=0 if features else self.training.data.workers,
        )  # fmt: skip
        return Job(
            plan=self.plan,
            records=self.records,
            n_lines=self.records.n_lines + (val.n_lines if val else 0),
            targets=targets,
            tokenizer=tokenizer,
            encoder=encoder,
            init=self.init,
            loader=loader,
            validation=self._validation(val, targets, features, val_features),
            trainer=self._trainer(task, ids),
        )

    def _scan(self, sources: list[Source], *, hold_out: bool) -> ScannedRecords:
        return scan_records(sources, self.context.on_reject, self.plan.command, hold_out=hold_out)

    def _check_unchanged(self) -> None:
        """RunProblem when a resumed run's records are not what they were."""
        kept = self.work.path / "records.sha256"
        if kept.is_file():
            if kept.read_text("ascii") != self.records.sha256:
                raise RunProblem("the records changed since the run began: use --restart")
        elif self.context.world.is_main:
            write_atomic(kept, self.records.sha256.encode("ascii"))

    def _labels(self) -> LabelSystem:
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
            labels = build_labels(self.records.counts)
            say(f"no --labels: {len(labels)} labels built from the records' tags")
        if self.context.world.is_main:
            labels.write(kept)
        return labels

    def _targets(self, labels: LabelSystem) -> Targets:
        targets = Targets(labels)
        n_tags, n_mentions = targets.outside(self.records.counts.tags)
        if n_mentions:
            self.context.say(
                f"{n_tags} tags ({n_mentions} mentions) are not in the label system: ignored"
            )
        return targets

    def _tokenizer(self, labels: LabelSystem) -> CaptionTokenizer | None:
        captioning, init = self.preset.model.captioning, self.init
        if captioning is None:
            return None
        kept = self.work.path / TOKENIZER
        if not kept.is_file():
            if init is None:
                texts = self._caption_texts(labels)
                train_tokenizer(texts, captioning.vocabulary).save(str(kept))
            elif init.has(TOKENIZER):
                kept.write_bytes((init.path / TOKENIZER).read_bytes())
            else:
                raise RunProblem(
                    f"{init.path} has no word pieces for its captions: convert it with --vocab, "
                    "or train without them (--set model.captioning=false)"
                )
        return CaptionTokenizer(load_tokenizer(kept), captioning)

    def _caption_texts(self, labels: LabelSystem) -> Iterator[str]:
        yield from labels.tags
        ids = self.records.training_ids
        stride = -(-len(ids) // MOST_TEXTS)
        for index in ids[::stride].tolist():
            for caption in self.records.annotation(index).captions:
                yield clean_caption(caption.text, self.training.data.caption_words)

    def _clip_name(self) -> str | None:
        names = self.training.losses.distill
        return next((name for name in names if name.startswith(PREFIX)), None)

    def _task(
        self, targets: Targets, tokenizer: CaptionTokenizer | None, encoder: TextEncoder | None
    ) -> TrainingTask:
        """The model with its objectives, on its device."""
        device, labels, say = self.context.runtime.device, targets.labels, self.context.say
        vocabulary = len(tokenizer or ())
        model = initial_model(self.preset, labels, vocabulary, encoder, self.init, say).to(device)
        if self.training.backbone.checkpointing:
            model.recompute_activations()
        trained = self._trained_labels(targets)
        name, clip = self._clip_name(), None
        if name is not None:
            folder = local_path(name.removeprefix(PREFIX))
            clip = ClipTeacher(folder, training_preprocess(self.preset))
        task = TrainingTask(model, self.training, clip, trained).to(device)
        if trained is not None:
            say(f"{int(trained.sum())} of {len(labels)} labels are named often enough to train")
        return task

    def _trained_labels(self, targets: Targets) -> torch.Tensor | None:
        """Which labels enough records name, (L,); None when all labels are trained."""
        fewest = self.training.losses.fewest_positives
        if not fewest:
            return None
        counts = targets.counts(self.records.counts.tags)
        if counts.max(initial=0) < fewest:
            return None
        return torch.from_numpy(counts >= fewest)

    def _val_source(self) -> Source:
        assert self.plan.val is not None
        path = Path(self.plan.val)
        if not path.is_file():
            raise RunProblem(f"{path}: no such file")
        return Source(path, self.plan.val, Path(self.plan.root) if self.plan.root else path.parent)

    def _keep_features(
        self, task: TrainingTask, val: ScannedRecords | None
    ) -> tuple[NDArray[np.int64], CachedFeatures, CachedFeatures | None]:
        """The ids to train on, the features of the records, and those for validation."""
        cache = FeatureCache(
            self.cache or self.work.features, task.model.encoder, self.preset.preprocess,
            flip=self.training.data.augment.flip > 0,
        )  # fmt: skip
        rows = self._fill(cache, self.records.records)
        ids = self.records.training_ids
        ids = ids[rows[ids, 0] >= 0]
        val_features = None
        if val is not None:
            plain = cache.without_flip()
            val_features = CachedFeatures(plain, self._fill(plain, val.records))
        return ids, CachedFeatures(cache, rows), val_features

    def _fill(self, cache: FeatureCache, records: RecordFile) -> NDArray[np.int64]:
        def reject(position: int, problem: RecordProblem) -> None:
            self.context.on_reject(Reject.of(records[position], problem, self.plan.command))

        annotations = (read_annotation(records[index]) for index in range(len(records)))
        return cache.fill(annotations, reject, self.context.on_read)

    def _caption_vectors(self, encoder: TextEncoder) -> NDArray[np.float16] | None:
        """The caption teacher's vectors, where it is asked for."""
        if "caption" not in self.training.losses.distill:
            return None
        folder = self.cache or self.work.path
        name = f"captions-{self.records.sha256[:16]}-{encoder.fingerprint}-{encoder.width}.f16"
        self.context.say(f"embedding {self.records.n_captions} captions (kept for the next run)")
        return keep_caption_vectors(
            folder / name, self.records.records, encoder, self.context.on_read
        )

    def _validation(
        self, val: ScannedRecords | None, targets: Targets,
        features: CachedFeatures | None, val_features: CachedFeatures | None,
    ) -> ValidationSet | None:  # fmt: skip
        photo = TrainingPhoto(self.preset.preprocess, UNCHANGED)
        if val is not None:
            ids = np.arange(len(val.records))
            return ValidationSet(val.records, ids, targets, photo, val_features)
        ids = self.records.held_out_ids
        if not len(ids):
            return None
        return ValidationSet(self.records.records, ids, targets, photo, features)

    def _trainer(self, task: TrainingTask, ids: NDArray[np.int64]) -> Trainer:
        data, context = self.training.data, self.context
        if not len(ids):
            raise RunProblem("no photo to train on could be read")
        a_step = data.batch_size * data.accumulation * context.world.size
        sampler = Sampler(
            ids, data.batch_size, data.accumulation, data.seed,
            data.drop_last and len(ids) >= a_step, context.world.rank, context.world.size,
        )  # fmt: skip
        return Trainer(task, self.training, sampler, runtime=context.runtime, world=context.world)
