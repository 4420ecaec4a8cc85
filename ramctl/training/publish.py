"""A trained model as a bundle: weights, labels with thresholds, graph and model card."""

import shutil
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jinja2 import StrictUndefined, Template
from numpy.typing import NDArray

from ramctl.calibration import Calibration, log_odds_of
from ramctl.checkpoints.bundle import (
    AXES,
    CALIBRATION,
    CARD,
    GRAPH,
    HEADROOM,
    TEXT_FOLDER,
    WEIGHTS,
    Bundle,
    BundleWriter,
)
from ramctl.checkpoints.load import load_model, write_model
from ramctl.checkpoints.onnx_graph import export_graph
from ramctl.checkpoints.weights import weights_of
from ramctl.device import Runtime
from ramctl.inference.label_set import borrowed
from ramctl.inference.shortlist import write_headroom
from ramctl.inference.torch_engine import TorchEngine
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.config import Preset
from ramctl.model.ram import RAM
from ramctl.parts import __version__
from ramctl.records.record import JsonObject
from ramctl.salience import Salience
from ramctl.tagging.embedding import SAMPLE, write_axes
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.targets import read_annotation
from ramctl.training.distributed import World
from ramctl.training.initial import rows_in
from ramctl.training.job import UNCHANGED, Job
from ramctl.training.salience import MOST_PHOTOS, learn_salience, mentions
from ramctl.training.validation import Scored, ThresholdChoice, ValidationSet, choose_thresholds

THRESHOLD_DIGITS = 4
SCALE_PHOTOS = 500  # that say where scores of a model that was fine-tuned have gone


def round_weights(model: RAM) -> None:
    """Round the weights as a bundle stores them, so that validation measures what is published."""
    with torch.no_grad():
        for tensor in weights_of(model).values():
            if tensor.dim() > 1 and tensor.is_floating_point():
                tensor.copy_(tensor.half())


def fill_untrained_labels(model: RAM, learnt: NDArray[np.bool_]) -> None:
    """Give labels too rare to train what new words get: a mixture of their neighbours' vectors.

    `learnt` (L,) tells which were trained, now or before.
    """
    labels = model.labels
    if learnt.all() or not learnt.any() or labels.described:
        return
    words, known = (torch.from_numpy(which.nonzero()[0]) for which in (~learnt, learnt))
    with torch.no_grad():
        text = labels.text.cpu()
        for part in (labels.own, labels.bias):
            owned = part.cpu()[known].numpy()
            if owned.shape[1]:
                rows = borrowed(text[words].numpy(), text[known].numpy(), owned)
                part[words.to(part.device)] = torch.from_numpy(rows).to(part.device)


def publish(out: Path, model: RAM, job: Job, scored: Scored | None, measured: JsonObject) -> None:
    """Write the job's model; an older bundle at `out` is replaced only when the new is complete.

    `scored` are the validation photos, which choose the thresholds, and `measured` is what the
    model card says of them.
    """
    preset = job.plan.preset
    parent = job.init if preset.training.losses.captions_alone else None
    known, by_branch = (None, None) if scored is None else _known_photos(model.eval(), job, parent)
    salience = None if scored is None else _salience(job, parent, known)
    model = model.cpu()
    provenance = _provenance(job, measured)
    if parent is not None:  # the tagger is its parent's
        history = parent.meta["provenance"]
        commands = [*history["commands"], *provenance["commands"]]
        provenance |= {"data": history["data"], "commands": commands}
    if parent is not None and parent.preprocess == preset.preprocess:
        labels, shared = parent.labels, parent.threshold
        calibration = parent.calibration if parent.has(CALIBRATION) else None
    else:  # a tagger that sees photos at another size has other scores
        labels, shared, calibration = _thresholds(model, job, scored, parent, salience)
    with BundleWriter(out) as writer:
        if parent is not None:
            for name in filter(parent.has, (AXES, HEADROOM)):
                shutil.copy(parent.path / name, writer.path / name)
        elif known is None and job.init is not None and labels.tags == job.init.labels.tags:
            for name in filter(job.init.has, (AXES,)):  # so that photos can be searched
                shutil.copy(job.init.path / name, writer.path / name)
        if known is not None:
            sample = known.scores[:: -(-len(known.scores) // SAMPLE)]
            write_axes(writer.path / AXES, sample)
            if by_branch is not None:
                write_headroom(writer.path / HEADROOM, sample, by_branch)
        if calibration is not None:
            calibration.write(writer.path / CALIBRATION)
        writer.meta = write_model(writer.path, preset, model, job.tokenizer, half=True)
        labels.write(writer.path / LABELS)
        if job.encoder is not None:
            job.encoder.save(writer.path / TEXT_FOLDER)
        thresholds = {"threshold": shared, "open_set_threshold": preset.open_set_threshold}
        writer.meta |= {"thresholds": thresholds, "provenance": provenance}
        if find_spec("onnx"):
            graph, weights = writer.path / GRAPH, writer.path / WEIGHTS
            export_graph(model, preset.preprocess.size, graph, weights=weights)
        else:
            reason = "it needs the extra [onnx] (ramctl convert adds it later)"
            job.context.say(f"no model.onnx written: {reason}")
        card = _model_card(out.name, preset, labels, provenance)
        (writer.path / CARD).write_text(card, encoding="utf-8")


def _thresholds(
    model: RAM, job: Job, scored: Scored | None, parent: Bundle | None, salience: Salience | None
) -> tuple[LabelSystem, float, Calibration | None]:
    """The labels with their thresholds, the one for all, and what these rest on.

    Calibrated offsets become part of the labels' biases, beside those of the `parent` whose tagger
    it is.
    """
    preset = job.plan.preset
    judged = None if scored is None else job.validation.judged(scored)
    choice = choose_thresholds(judged, job.evidence, preset, salience)
    # What captions of few photos leave out is mostly there: by them one tag in four would be given.
    is_told = choice.calibration and (job.plan.val or job.plan.command != "finetune")
    init = job.init
    if init is not None and init.preprocess == preset.preprocess and not is_told:
        job.context.say(f"thresholds: those of {init.path} stay as they are")
        _keep_scale(model, job, init)
        return _kept_thresholds(job.targets.labels, init, choice)
    if choice.why_not:
        job.context.say(f"thresholds: {choice.why_not}")
    if choice.calibration is not None and choice.is_calibrated and model.labels.bias.shape[1]:
        # A score then means the same of every label, and tags come in the order of their worth.
        shifts = choice.calibration.shifts_for(preset.precision)
        with torch.no_grad():
            model.labels.bias.add_(torch.from_numpy(shifts)[:, None])
        calibration = choice.calibration.fold(shifts)
        if parent is not None and parent.has(CALIBRATION):
            shifts = calibration.shifts + parent.calibration.shifts
            calibration = replace(calibration, shifts=shifts)
        choice = ThresholdChoice.of(calibration, preset.precision)
    shared = round(choice.shared, THRESHOLD_DIGITS)
    rounded = (round(float(threshold), THRESHOLD_DIGITS) for threshold in choice.own)
    labels = LabelSystem(
        replace(
            label, validated=bool(known), threshold=None if not known or value == shared else value
        )
        for label, value, known in zip(job.targets.labels, rounded, job.evidence, strict=True)
    )
    return labels, shared, choice.calibration


def _kept_thresholds(
    labels: LabelSystem, init: Bundle, choice: ThresholdChoice
) -> tuple[LabelSystem, float, Calibration | None]:
    """What a model that goes on from `init` has; of new labels what was chosen, if anything was."""
    rows = rows_in(init.labels, labels)
    kept = [
        replace(label, validated=init.labels[row].validated, threshold=init.labels[row].threshold)
        if row >= 0
        else replace(label, threshold=round(own, THRESHOLD_DIGITS))
        for label, row, own in zip(labels, rows, choice.own.tolist(), strict=True)
    ]
    ids = [None if row < 0 else row for row in rows]
    calibration = init.calibration.of(ids) if init.has(CALIBRATION) else None
    return LabelSystem(kept), init.threshold, calibration


def _keep_scale(model: RAM, job: Job, init: Bundle) -> None:
    """Shift the labels' log-odds to where thresholds of the model before give as many tags.

    Of tags that a person kept or took out most are right: scores rise with them, the wrong ones as
    well. Of photos that the model has learnt, each label's last given score becomes what it was.
    """
    rows = np.array(rows_in(init.labels, job.targets.labels))
    ids = job.records.training_ids
    photos = _learnt_photos(job, ids[:: -(-len(ids) // SCALE_PHOTOS) or 1])
    before = load_model(init, preset=job.plan.preset, captioning=False)
    if stages := model.encoder.frozen_stages:  # whose features may be kept
        before.encoder.freeze(stages)
    device = job.context.runtime.device
    how = Runtime(device), World(), lambda *_: None
    then = photos.score(
        before.to(device), *how, lambda engine, arrays: engine.scores(arrays)[:, rows]
    )
    now = photos.score(model.to(device).eval(), *how)
    model.cpu()
    if not model.labels.bias.shape[1] or then is None or now is None or not len(now.rows):
        return
    given = (then.scores > np.array(init.thresholds)[rows]).sum(0)
    last = len(now.rows) - np.clip(given, 1, None), np.arange(len(rows))
    was, is_now = (
        log_odds_of(np.sort(one.scores, axis=0)[last].astype(np.float64)) for one in (then, now)
    )
    with torch.no_grad():
        shifts = torch.from_numpy(np.where(rows < 0, 0.0, was - is_now))
        model.labels.bias.add_(shifts[:, None])


def _learnt_photos(job: Job, ids: NDArray[np.int64]) -> ValidationSet:
    data, photo = job.training_set, TrainingPhoto(job.plan.preset.preprocess, UNCHANGED)
    return ValidationSet(data.records, ids, job.targets, photo, data.features)


def _known_photos(
    model: RAM, job: Job, parent: Bundle | None
) -> tuple[Scored | None, NDArray[np.float32] | None]:
    """Some of the photos that were trained on, with captions where there are any, and their scores.

    And those of every so many by a global branch alone, where the model has one. None where a
    captioner has all from its tagger that they would tell.
    """
    if parent is not None and parent.has(AXES):
        return None, None
    data, ids = job.training_set, job.records.training_ids
    notes = ((index, read_annotation(data.records[index])) for index in ids.tolist())
    told = np.array([index for index, note in notes if any(note.captions)], np.int64)
    some = told if len(told) else ids
    some = some[:: -(-len(some) // MOST_PHOTOS) or 1]
    photos = _learnt_photos(job, some)
    how = Runtime(next(model.parameters()).device), World(), lambda *_: None
    scored = photos.score(model, *how)
    if scored is None or not len(scored.rows):
        return None, None
    if not model.scores_cells:
        return scored, None
    sample = replace(photos, ids=scored.rows[:: -(-len(scored.rows) // SAMPLE)])
    by_branch = sample.score(model, *how, TorchEngine.branch_scores)
    assert by_branch is not None
    return scored, by_branch.scores


def _salience(job: Job, parent: Bundle | None, known: Scored | None) -> Salience | None:
    """What captions of training photos say of salience; a captioner has its tagger's."""
    if parent is not None:
        return parent.calibration.salience if parent.has(CALIBRATION) else None
    if known is None:
        return None
    records, targets = job.training_set.records, job.targets
    notes = [read_annotation(records[row]) for row in known.rows.tolist()]
    if not any(any(note.captions) for note in notes):
        return None
    named = np.stack([mentions(note, targets) for note in notes])
    return learn_salience(known.scores, named, targets.labels, job.plan.preset.careful)


def _provenance(job: Job, measured: JsonObject) -> JsonObject:
    counts = job.records.counts
    n_tags, n_mentions = job.outside
    return {
        "commands": job.plan.commands,
        "seed": job.plan.preset.training.data.seed,
        "data": {
            "records": len(job.records.records),
            "records_trained_on": len(job.trainer.sampler.ids),
            "captions": counts.n_captions,
            "tag_mentions": sum(counts.tags.values()),
            "tags_outside_the_labels": n_tags,
            "mentions_outside_the_labels": n_mentions,
        },
        "measured": measured,
        "parent": None if job.init is None else job.init.fingerprint,
        "versions": {"ramctl": __version__} | {name: version(name) for name in ("torch", "timm")},
    }


def _model_card(name: str, preset: Preset, labels: LabelSystem, provenance: JsonObject) -> str:
    text = (files("ramctl.training") / "model_card.txt").read_text("utf-8")
    card = Template(text, trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    kinds = Counter(label.kind for label in labels).most_common()
    versions = provenance["versions"].items()
    facts = provenance | {
        "kinds": ", ".join(f"{number} {kind}" for kind, number in kinds),
        "versions": ", ".join(f"{part} {number}" for part, number in versions),
    }
    return card.render(facts, name=name, preset=preset, labels=labels)
