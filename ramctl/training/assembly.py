"""A training job put together: records, labels, model, teachers, trainer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ramctl.checkpoints.bundle import TOKENIZER, Bundle, resolve_model
from ramctl.errors import RecordProblem, RunProblem
from ramctl.labels import LabelSystem
from ramctl.model.caption_tokenizer import (
    CaptionTokenizer,
    clean_caption,
    load_tokenizer,
    train_tokenizer,
)
from ramctl.model.config import AugmentConfig, Preset, preset_from_table
from ramctl.pretrained.hub import local_path
from ramctl.records.files import write_atomic
from ramctl.records.record import Reject
from ramctl.text.clip import PREFIX
from ramctl.text.encoder import TextEncoder
from ramctl.training.annotations import Targets, read_annotation
from ramctl.training.augmentation import TrainingPhoto, is_only_flipped, training_preprocess
from ramctl.training.batches import CachedFeatures, Collate, TrainingSet
from ramctl.training.distributed import World
from ramctl.training.features import FeatureCache
from ramctl.training.initial import initial_model
from ramctl.training.label_building import append_labels, build_labels
from ramctl.training.objective import Objective
from ramctl.training.record_file import RecordFile, Source
from ramctl.training.sampler import Sampler
from ramctl.training.survey import Survey, survey
from ramctl.training.teachers import ClipTeacher, remember_caption_vectors
from ramctl.training.text_vectors import open_text_encoder
from ramctl.training.train import Trainer
from ramctl.training.validation import ValidationSet
from ramctl.training.work_folder import Plan, WorkFolder

LABELS = "labels.jsonl"
MOST_TEXTS = 500_000  # records whose captions decide the word pieces
UNCHANGED = AugmentConfig((1.0, 1.0), 0.0, 0, 0)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a job runs, and whom it tells: nothing here changes its result."""

    world: World
    device: torch.device
    bf16: bool
    say: Callable[[str], None]
    on_reject: Callable[[Reject], None]
    on_read: Callable[[int], None]  # records done while reading; may raise to stop


@dataclass(slots=True)
class Job:
    """Everything of one run."""

    plan: Plan
    preset: Preset
    found: Survey
    val: Survey | None
    labels: LabelSystem
    targets: Targets
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    init: Bundle | None
    training_set: TrainingSet
    collate: Collate
    validation: ValidationSet | None
    trainer: Trainer

    @property
    def n_lines(self) -> int:
        """Lines of the records' and the validation file, good or bad."""
        return self.found.n_lines + (0 if self.val is None else self.val.n_lines)

    def data_counts(self) -> dict[str, int]:
        """What was trained on, for the model card."""
        n_tags, n_mentions = self.targets.outside(self.found.counts.tags)
        return {
            "records": len(self.found.records),
            "records_trained_on": len(self.trainer.sampler.ids),
            "captions": self.found.n_captions,
            "tag_mentions": sum(self.found.counts.tags.values()),
            "tags_outside_the_labels": n_tags,
            "mentions_outside_the_labels": n_mentions,
        }

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        training = self.preset.training
        if training.steps:
            return training.steps
        steps = max(1, round(training.epochs * self.trainer.sampler.steps_an_epoch))
        return steps + self.trainer.shift


def build_job(
    plan: Plan, work: WorkFolder, around: Surroundings, *, keeps_features: bool = True
) -> Job:
    """The job of a plan; what takes long is kept in the work folder and done once.

    Without `keeps_features` (a dry run) nothing is computed ahead: no features, no caption vectors.
    """
    preset = preset_from_table(plan.preset)
    init = Bundle.open(resolve_model(plan.init)) if plan.init else None
    stage = plan.command
    found = survey(plan.record_sources(), around.on_reject, stage, hold_out=plan.val is None)
    _check_unchanged(work, found, around)
    labels = _labels(plan, work, init, found, around)
    targets = Targets(labels)
    n_tags, n_mentions = targets.outside(found.counts.tags)
    if n_mentions:
        around.say(f"{n_tags} tags ({n_mentions} mentions) are not in the label system: ignored")
    tokenizer = _tokenizer(preset, work, init, found, labels)
    encoder = None
    if preset.model.labels.kind != "learnt":
        encoder = open_text_encoder(plan.text, init, preset)
    vocabulary = len(tokenizer or ())
    model = initial_model(preset, labels, vocabulary, encoder, init, around.say).to(around.device)
    if preset.training.checkpointing:
        model.recompute_activations()
    trained = _trained_labels(preset, targets, found)
    objective = Objective(model, preset.training, _clip(preset), trained).to(around.device)
    if trained is not None:
        around.say(f"{int(trained.sum())} of {len(labels)} labels are named often enough to train")
    val = None if plan.val is None else _validation_survey(plan, around)
    records = _Records(found, val, stage, around)
    ids, features, val_features, texts = found.training_ids, None, None, None
    if keeps_features:
        if can_keep_features(preset):
            ids, features, val_features = records.cache(plan, work, preset, objective)
        if encoder is not None and preset.training.distill_weight:
            texts = _caption_vectors(plan, work, preset, found, encoder, around)
    photo = TrainingPhoto(training_preprocess(preset), preset.training.augment)
    training_set = TrainingSet(
        found.records, targets, preset.training, photo, features=features, texts=texts
    )
    collate = Collate(len(labels), tokenizer, preset.training)
    size = preset.preprocess.size
    collate.photo_shape = features.cache.stores[0].shape if features else (3, size, size)
    return Job(
        plan, preset, found, val, labels, targets, tokenizer, encoder, init, training_set, collate,
        _validation(preset, found, val, targets, features, val_features),
        _trainer(preset, objective, ids, around),
    )  # fmt: skip


def _check_unchanged(work: WorkFolder, found: Survey, around: Surroundings) -> None:
    """RunProblem when a resumed run's records are not what they were."""
    kept = work.path / "records.sha256"
    if kept.is_file():
        if kept.read_text("ascii") != found.sha256:
            raise RunProblem("the records changed since the run began: begin anew with --restart")
    elif around.world.is_main:
        write_atomic(kept, found.sha256.encode("ascii"))


def can_keep_features(preset: Preset) -> bool:
    """Whether what frozen stages make of a photo never changes, so that it can be kept."""
    training = preset.training
    sees_photos = any(name.startswith("clip:") for name in training.distill)
    is_frozen = training.backbone_lr_factor == 0 or training.frozen_stages > 0
    is_plain = (
        is_only_flipped(training.augment) and training_preprocess(preset) == preset.preprocess
    )
    return is_frozen and is_plain and not sees_photos


def _caption_vectors(
    plan: Plan,
    work: WorkFolder,
    preset: Preset,
    found: Survey,
    encoder: TextEncoder,
    around: Surroundings,
) -> np.ndarray | None:
    """The caption teacher's vectors, where it is asked for."""
    if "caption" not in preset.training.distill:
        return None
    folder = Path(plan.cache) if plan.cache else work.path
    name = f"captions-{found.sha256[:16]}-{encoder.fingerprint}-{encoder.width}.f16"
    around.say(f"embedding {found.n_captions} captions (kept for the next run)")
    return remember_caption_vectors(folder / name, found.records, encoder, around.on_read)


def _trained_labels(preset: Preset, targets: Targets, found: Survey) -> torch.Tensor | None:
    """Which labels enough records name, (L,); None when all labels are trained."""
    fewest = preset.training.fewest_positives
    if not fewest:
        return None
    counts = targets.counts(found.counts.tags)
    if counts.max(initial=0) < fewest:
        return None
    return torch.from_numpy(counts >= fewest)


def _trainer(
    preset: Preset, objective: Objective, ids: np.ndarray, around: Surroundings
) -> Trainer:
    training, world = preset.training, around.world
    if not len(ids):
        raise RunProblem("no photo to train on could be read")
    sampler = Sampler(
        ids, training.batch_size, training.accumulation, training.seed,
        training.drop_last and len(ids) >= training.batch_size * training.accumulation * world.size,
        world.rank, world.size,
    )  # fmt: skip
    return Trainer(
        objective, training, sampler, world=world, device=around.device, bf16=around.bf16
    )


def _labels(
    plan: Plan, work: WorkFolder, init: Bundle | None, found: Survey, around: Surroundings
) -> LabelSystem:
    kept = work.path / LABELS
    if kept.is_file():
        return LabelSystem.read(kept)
    given = plan.labels
    if given is not None and given.startswith("+"):
        if init is None:
            raise RunProblem("--labels +FILE appends to the labels of a bundle: name one")
        labels = append_labels(init.labels, Path(given[1:]))
        around.say(f"{len(labels) - len(init.labels)} labels appended to {len(init.labels)}")
    elif given is not None:
        labels = LabelSystem.read(Path(given))
    elif init is not None:
        labels = init.labels
    else:
        labels = build_labels(found.counts)
        around.say(f"no --labels: {len(labels)} labels built from the records' tags")
    if around.world.is_main:
        labels.write(kept)
    return labels


def _tokenizer(
    preset: Preset, work: WorkFolder, init: Bundle | None, found: Survey, labels: LabelSystem
) -> CaptionTokenizer | None:
    captioning = preset.model.captioning
    if captioning is None:
        return None
    kept = work.path / TOKENIZER
    if not kept.is_file():
        if init is not None and not init.has(TOKENIZER):
            raise RunProblem(
                f"{init.path} has no word pieces for its captions: convert it with --vocab, or "
                "train without them (--set model.captioning=false)"
            )
        if init is not None:
            kept.write_bytes((init.path / TOKENIZER).read_bytes())
        else:
            texts = _caption_texts(found, preset.training.caption_words, labels)
            train_tokenizer(texts, captioning.vocabulary).save(str(kept))
    return CaptionTokenizer(load_tokenizer(kept), captioning)


def _caption_texts(found: Survey, max_words: int, labels: LabelSystem) -> Iterator[str]:
    yield from labels.tags
    stride = -(-len(found.training_ids) // MOST_TEXTS)
    for index in found.training_ids[::stride].tolist():
        for caption in read_annotation(found.records[index]).captions:
            yield clean_caption(caption.text, max_words)


def _clip(preset: Preset) -> ClipTeacher | None:
    names = [name for name in preset.training.distill if name.startswith("clip:")]
    if not names:
        return None
    return ClipTeacher(local_path(names[0].removeprefix(PREFIX)), training_preprocess(preset))


def _validation_survey(plan: Plan, around: Surroundings) -> Survey:
    assert plan.val is not None
    path = Path(plan.val)
    if not path.is_file():
        raise RunProblem(f"{path}: no such file")
    base = Path(plan.root) if plan.root else path.parent
    source = Source(path, plan.val, base)
    return survey([source], around.on_reject, plan.command, hold_out=False)


def _validation(
    preset: Preset,
    found: Survey,
    val: Survey | None,
    targets: Targets,
    features: CachedFeatures | None,
    val_features: CachedFeatures | None,
) -> ValidationSet | None:
    photo = TrainingPhoto(preset.preprocess, UNCHANGED)
    if val is not None:
        ids = np.arange(len(val.records))
        return ValidationSet(val.records, ids, targets, photo, val_features)
    if not len(found.held_out_ids):
        return None
    return ValidationSet(found.records, found.held_out_ids, targets, photo, features)


@dataclass(frozen=True, slots=True)
class _Records:
    """The records of a job and of its validation, on their way into the feature cache."""

    found: Survey
    val: Survey | None
    stage: str
    around: Surroundings

    def cache(
        self, plan: Plan, work: WorkFolder, preset: Preset, objective: Objective
    ) -> tuple[np.ndarray, CachedFeatures, CachedFeatures | None]:
        """The ids to train on, and the features of the records and of those for validation."""
        folder = Path(plan.cache) if plan.cache else work.features
        cache = FeatureCache(
            folder, objective.model.encoder, preset.preprocess,
            flip=preset.training.augment.flip > 0,
        )  # fmt: skip
        rows = self._fill(cache, self.found.records)
        ids = self.found.training_ids
        ids = ids[rows[ids, 0] >= 0]
        val_features = None
        if self.val is not None:
            plain = cache.without_flip()
            val_features = CachedFeatures(plain, self._fill(plain, self.val.records))
        return ids, CachedFeatures(cache, rows), val_features

    def _fill(self, cache: FeatureCache, records: RecordFile) -> np.ndarray:
        def reject(position: int, problem: RecordProblem) -> None:
            self.around.on_reject(Reject.of(records[position], problem, self.stage))

        annotations = (read_annotation(records[index]) for index in range(len(records)))
        return cache.fill(annotations, reject, self.around.on_read)


def with_run_options(
    preset: Preset, *, steps: int | None, epochs: float | None, seed: int | None,
    distill: tuple[str, ...],
) -> Preset:  # fmt: skip
    """The preset with what the command line says about the run."""
    training = preset.training
    if steps is not None:
        training = replace(training, steps=steps)
    if epochs is not None:
        training = replace(training, epochs=epochs, steps=0)
    if seed is not None:
        training = replace(training, seed=seed)
    if distill:
        training = replace(training, distill=tuple(name for name in distill if name != "none"))
    return replace(preset, training=training)
