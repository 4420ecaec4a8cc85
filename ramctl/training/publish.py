"""A trained model as a bundle: weights, labels with thresholds, graph and model card."""

import shutil
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jinja2 import StrictUndefined, Template
from numpy.typing import NDArray

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
from ramctl.inference.calibration import Calibration
from ramctl.inference.fitting import ThresholdChoice, choose_thresholds, fit_salience
from ramctl.inference.label_rows import borrowed
from ramctl.inference.log_odds import log_odds_of
from ramctl.inference.salience import Salience
from ramctl.inference.shortlist import write_headroom
from ramctl.inference.thresholds import thresholds_of
from ramctl.inference.torch_engine import TorchEngine
from ramctl.labels import LABELS, Labels
from ramctl.model.preset import Preset
from ramctl.model.ram import RAM
from ramctl.parts import __version__
from ramctl.records.record import JsonObject
from ramctl.tagging.embedding import SAMPLE, write_axes
from ramctl.training.data.augmentation import TrainingPhoto
from ramctl.training.data.targets import mentions, read_annotation
from ramctl.training.distributed import World
from ramctl.training.initial import rows_in
from ramctl.training.job import UNCHANGED, Job
from ramctl.training.label_vectors import DENSE, Mentions, style_of
from ramctl.training.validation import Scored, ValidationSet

THRESHOLD_DIGITS = 4
MAX_PHOTOS = 5000  # of those trained on, whose scores fit salience and the axes
SCALE_PHOTOS = 500  # by which the scale of scores is restored after fine-tuning


def round_weights(model: RAM) -> None:
    """Round the weights as a bundle stores them, so that validation measures what is published."""
    with torch.no_grad():
        for tensor in weights_of(model).values():
            if tensor.dim() > 1 and tensor.is_floating_point():
                tensor.copy_(tensor.half())


def fill_untrained_labels(model: RAM, learnt: NDArray[np.bool_]) -> None:
    """Give labels that were never `learnt` (L,) what new words get: their neighbours' vectors."""
    labels = model.labels
    if learnt.all() or not learnt.any() or labels.described:
        return
    words, known = (torch.from_numpy(which.nonzero()[0]) for which in (~learnt, learnt))
    with torch.no_grad():
        text = labels.text.cpu()
        for part in (labels.own, labels.bias):
            values = part.cpu()[known].numpy()
            if values.shape[1]:
                rows = borrowed(text[words].numpy(), text[known].numpy(), values)
                part[words.to(part.device)] = torch.from_numpy(rows).to(part.device)


def publish(out: Path, model: RAM, job: Job, scored: Scored | None, measured: JsonObject) -> None:
    """Write the job's model; an older bundle at `out` is replaced only when the new is complete.

    `scored` are the validation photos, which choose the thresholds, and `measured` are the
    figures for the model card.
    """
    preset = job.plan.preset
    parent = job.init if preset.training.captions_alone else None
    known, by_branch = (None, None) if scored is None else _known_photos(model.eval(), job, parent)
    salience = None if scored is None else _salience(job, parent, known)
    model = model.cpu()
    provenance = _provenance(job, measured)
    if parent is not None:  # the tagger is its parent's
        history = parent.meta["provenance"]
        commands = [*history["commands"], *provenance["commands"]]
        provenance |= {"data": history["data"], "commands": commands}
    if parent is not None and parent.preprocess == preset.preprocess:
        decision = Decision(parent.labels, parent.threshold, Calibration.if_known(parent))
    else:  # a tagger that sees photos at another size has other scores
        judged = None if scored is None else job.validation.judged(scored)
        choice = choose_thresholds(judged, job.evidence, preset, salience)
        if choice.calibration is not None and known is not None:
            choice = replace(choice, calibration=_with_rates(choice.calibration, job, known))
        if (init := _threshold_source(job, choice)) is not None:
            job.context.notify(f"thresholds: those of {init.path} stay as they are")
            _restore_scale(model, job, init)
            decision = _kept_decision(job.targets.labels, init, choice)
        else:
            if choice.note:
                job.context.notify(f"thresholds: {choice.note}")
            choice = _shift_biases(model, choice, preset.precision, parent)
            decision = _new_decision(job, choice)
    with BundleWriter(out) as writer:
        if parent is not None:
            for name in filter(parent.has, (AXES, HEADROOM)):
                shutil.copy(parent.path / name, writer.path / name)
        elif known is None and job.init and decision.labels.tags == job.init.labels.tags:
            for name in filter(job.init.has, (AXES,)):  # so that photos can be searched
                shutil.copy(job.init.path / name, writer.path / name)
        if known is not None:
            sample = known.scores[:: -(-len(known.scores) // SAMPLE)]
            write_axes(writer.path / AXES, sample)
            if by_branch is not None:
                write_headroom(writer.path / HEADROOM, sample, by_branch)
        if decision.calibration is not None:
            decision.calibration.write(writer.path / CALIBRATION)
        writer.meta = write_model(writer.path, preset, model, job.tokenizer, half=True)
        decision.labels.write(writer.path / LABELS)
        if job.encoder is not None:
            job.encoder.save(writer.path / TEXT_FOLDER)
        writer.meta["thresholds"] = {
            "threshold": decision.threshold, "open_set_threshold": preset.open_set_threshold
        }  # fmt: skip
        writer.meta["provenance"] = provenance
        if find_spec("onnx"):
            graph, weights = writer.path / GRAPH, writer.path / WEIGHTS
            export_graph(model, preset.preprocess.size, graph, weights=weights)
        else:
            reason = "it needs the extra [onnx] (ramctl convert adds it later)"
            job.context.notify(f"no model.onnx written: {reason}")
        card = _model_card(out.name, preset, decision.labels, provenance)
        (writer.path / CARD).write_text(card, encoding="utf-8")


class Decision(NamedTuple):
    """The part of a bundle that decides which tags are given."""

    labels: Labels  # some of them with thresholds
    threshold: float  # of the others
    calibration: Calibration | None


def _threshold_source(job: Job, choice: ThresholdChoice) -> Bundle | None:
    """The bundle whose thresholds the new one keeps; None where new ones are chosen.

    Captions leave out most of what is on a photo: thresholds chosen by few of them are too high.
    """
    has_new = choice.calibration and (job.plan.val or job.plan.command != "finetune")
    if job.init is None or job.init.preprocess != job.plan.preset.preprocess or has_new:
        return None
    return job.init


def _shift_biases(
    model: RAM, choice: ThresholdChoice, precision: float, parent: Bundle | None
) -> ThresholdChoice:
    """Add shifts to the labels' biases, so that all labels have one threshold; the choice for it.

    Equal scores then mean the same for all labels. The model may be a `parent`'s, whose biases
    have shifts already. Without a calibration, or biases, nothing changes.
    """
    if not (choice.calibration and choice.is_calibrated and model.labels.bias.shape[1]):
        return choice
    shifts = choice.calibration.shifts_for(precision)
    _add_to_biases(model, shifts)
    calibration = choice.calibration.with_shifts(shifts)
    if parent is not None and (inherited := Calibration.if_known(parent)):
        calibration = replace(calibration, shifts=calibration.shifts + inherited.shifts)
    return ThresholdChoice.for_precision(calibration, precision)


def _add_to_biases(model: RAM, shifts: NDArray[np.float64]) -> None:
    with torch.no_grad():
        model.labels.bias.add_(torch.from_numpy(shifts)[:, None])


def _new_decision(job: Job, choice: ThresholdChoice) -> Decision:
    """The job's labels with the chosen thresholds."""
    shared = round(choice.shared, THRESHOLD_DIGITS)
    rounded = (round(float(threshold), THRESHOLD_DIGITS) for threshold in choice.thresholds)
    labels = Labels(
        replace(
            label, validated=bool(known), threshold=None if not known or value == shared else value
        )
        for label, value, known in zip(job.targets.labels, rounded, job.evidence, strict=True)
    )
    return Decision(labels, shared, choice.calibration)


def _kept_decision(labels: Labels, init: Bundle, choice: ThresholdChoice) -> Decision:
    """The labels with the thresholds of `init`; new ones have those that were chosen."""
    rows = rows_in(init.labels, labels)
    kept = [
        replace(label, validated=init.labels[row].validated, threshold=init.labels[row].threshold)
        if row >= 0
        else replace(label, threshold=round(value, THRESHOLD_DIGITS))
        for label, row, value in zip(labels, rows, choice.thresholds.tolist(), strict=True)
    ]
    calibration = Calibration.if_known(init)
    ids = [None if row < 0 else row for row in rows]
    return Decision(Labels(kept), init.threshold, calibration and calibration.for_labels(ids))


def _restore_scale(model: RAM, job: Job, init: Bundle) -> None:
    """Shift the labels' biases so that the thresholds of `init` give as many tags as before.

    Fine-tuning raises all scores, because most of the tags that people judge are right. The lowest
    score of each label that was given on training photos becomes what it was before.
    """
    rows = np.array(rows_in(init.labels, job.targets.labels))
    ids = job.records.training_ids
    photos = _training_photos(job, ids[:: -(-len(ids) // SCALE_PHOTOS) or 1])
    before = load_model(init, preset=job.plan.preset, captioning=False)
    if stages := model.encoder.frozen_stages:  # whose features may be kept
        before.encoder.freeze(stages)
    device = job.context.runtime.device
    setting = Runtime(device), World(), lambda *_: None
    then = photos.score(
        before.to(device), *setting, lambda engine, arrays: engine.scores(arrays)[:, rows]
    )
    now = photos.score(model.to(device).eval(), *setting)
    model.cpu()
    if not model.labels.bias.shape[1] or not len(now.rows):
        return
    n_given = (then.scores > np.array(thresholds_of(init))[rows]).sum(0)
    last = len(now.rows) - np.clip(n_given, 1, None), np.arange(len(rows))
    was, is_now = (
        log_odds_of(np.sort(scored.scores, axis=0)[last].astype(np.float64))
        for scored in (then, now)
    )
    _add_to_biases(model, np.where(rows < 0, 0.0, was - is_now))


def _training_photos(job: Job, ids: NDArray[np.int64]) -> ValidationSet:
    data, photo = job.training_set, TrainingPhoto(job.plan.preset.preprocess, UNCHANGED)
    return ValidationSet(data.records, ids, job.targets, photo, data.features)


def _known_photos(
    model: RAM, job: Job, parent: Bundle | None
) -> tuple[Scored | None, NDArray[np.float32] | None]:
    """Scores of some training photos, with captions where there are any; None for a captioner.

    Also scores of some of these by a global branch alone, where the model has one. A captioner
    takes over what its tagger learnt from such scores.
    """
    if parent is not None and parent.has(AXES):
        return None, None
    data, ids = job.training_set, job.records.training_ids
    captioned = [i for i in ids.tolist() if read_annotation(data.records[i]).captions]
    chosen = np.array(captioned, np.int64) if captioned else ids
    chosen = chosen[:: -(-len(chosen) // MAX_PHOTOS) or 1]
    photos = _training_photos(job, chosen)
    setting = Runtime(next(model.parameters()).device), World(), lambda *_: None
    scored = photos.score(model, *setting)
    if not len(scored.rows):
        return None, None
    if not model.scores_cells:
        return scored, None
    sample = replace(photos, ids=scored.rows[:: -(-len(scored.rows) // SAMPLE)])
    return scored, sample.score(model, *setting, TorchEngine.branch_scores).scores


def _salience(job: Job, parent: Bundle | None, known: Scored | None) -> Salience | None:
    """The salience that training photos' captions give; a captioner has its tagger's."""
    if parent is not None:
        inherited = Calibration.if_known(parent)
        return None if inherited is None else inherited.salience
    if known is None:
        return None
    records, targets = job.training_set.records, job.targets
    notes = [read_annotation(records[row]) for row in known.rows.tolist()]
    if not any(any(note.captions) for note in notes):
        return None
    mentioned = np.stack([mentions(note, targets) for note in notes])
    is_dense = np.array([style_of(note) == DENSE for note in notes])
    return fit_salience(known.scores, mentioned, targets.labels, job.plan.preset.careful, is_dense)


def _with_rates(calibration: Calibration, job: Job, known: Scored) -> Calibration:
    """The calibration with the rates at which captions of training photos name their labels."""
    notes = [read_annotation(job.training_set.records[row]) for row in known.rows.tolist()]
    if not any(any(note.captions) for note in notes):
        return calibration
    usual = calibration.for_all()
    log_odds = usual.log_odds(log_odds_of(known.scores.astype(np.float64)))
    probabilities = torch.from_numpy(log_odds).float().sigmoid()
    rates = Mentions.learn(notes, job.targets.labels, probabilities).rates[DENSE]
    return replace(calibration, mention_rates=rates.double().numpy())


def _provenance(job: Job, measured: JsonObject) -> JsonObject:
    counts = job.records.counts
    n_tags, n_mentions = job.outside
    return {
        "commands": job.plan.commands,
        "seed": job.plan.preset.training.seed,
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


def _model_card(name: str, preset: Preset, labels: Labels, provenance: JsonObject) -> str:
    text = (files("ramctl.training") / "model_card.txt").read_text("utf-8")
    card = Template(text, trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    kinds = Counter(label.kind for label in labels).most_common()
    versions = provenance["versions"].items()
    facts = provenance | {
        "kinds": ", ".join(f"{number} {kind}" for kind, number in kinds),
        "versions": ", ".join(f"{part} {number}" for part, number in versions),
    }
    return card.render(facts, name=name, preset=preset, labels=labels)
