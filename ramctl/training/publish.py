"""A trained model as a bundle: weights, calibrated labels, graphs and model card. L labels."""

import shlex
import shutil
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import files

import numpy as np
import torch
from jinja2 import StrictUndefined, Template
from numpy.typing import NDArray
from torch import Tensor

from ramctl import __version__
from ramctl.checkpoints.bundle import AXES, CARD, TEXT_FOLDER, Bundle, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.checkpoints.onnx_graph import export_graphs
from ramctl.checkpoints.weights import weights_of
from ramctl.inference.calibration import MIN_PHOTOS, Judged, Mentioned, calibrate, open_curve
from ramctl.inference.embedding import SAMPLE, write_axes
from ramctl.inference.log_odds import Probabilities
from ramctl.inference.vocabulary import borrowed
from ramctl.model.device import Runtime
from ramctl.model.preset import Preset
from ramctl.model.ram import RAM
from ramctl.records.labels import DEFAULT_THRESHOLD, LABELS, Labels
from ramctl.records.record import JsonObject, shown_name
from ramctl.training.annotations import Ids
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.data import main_things, mentions
from ramctl.training.job import Examples, Job, Run
from ramctl.training.start import rows_in
from ramctl.training.validation import Scored, score, validate

MAX_PHOTOS = 5000  # of those trained on, whose scores fit salience and the axes
MAX_READ = 20_000  # records in which captions are looked for
HEADROOM_QUANTILE = 0.99
CALIBRATED = ("precisions", "salience", "open_set", "thresholds")  # of bundle.json


def publish(run: Run, job: Job) -> JsonObject:
    """Write the job's bundle, and return what was measured for its card."""
    preset, init, out, model = run.preset, run.init, run.options.out, job.model
    if job.trainer.task.trained is not None:
        fill_untrained_labels(model, job.examples.trained | job.examples.known)
    round_weights(model)
    # Scores in fp32 are calibrated, which most users' machines compute.
    runtime = Runtime(run.runtime.device)
    scored, facts = validate(run, job, runtime)
    held_out = run.options.val or "photos held out of the records, never trained on"
    measured = {"validation": shown_name(held_out) if facts else "none"}
    measured |= {f"validation_{name.replace('map', 'mAP')}": x for name, x in facts.items()}
    whole = TrainingPhoto(preset.preprocess, UNCHANGED)
    data = replace(
        job.data, photo=whole, targets=job.validation.targets, tokenizer=None, texts=None
    )
    shown = score(run, job, data, _shown_ids(job.examples), runtime)
    labels, meta = _calibrated(run, job, scored, shown, runtime)
    prior = preset.model.prior
    if prior and prior.similarity and prior.class_sharpness and preset.model.labels.own_width:
        branch = score(run, job, data, shown.ids[:SAMPLE], runtime, branch_logits).logits
        added = np.quantile(shown.logits[:SAMPLE] - branch, HEADROOM_QUANTILE, axis=0)
        labels = labels.with_numbers("headroom", added, 2)
    provenance = _provenance(run, job, measured)
    with BundleWriter(out) as writer:
        if init is not None and init.has(AXES) and init.labels.tags == labels.tags:
            shutil.copy(init.path / AXES, writer.path / AXES)  # photos that were embedded are found
        else:
            write_axes(writer.path / AXES, Probabilities(labels)(shown.logits[:SAMPLE]))
        writer.meta = write_model(writer.path, preset, model.cpu(), job.tokenizer, half=True)
        writer.meta |= meta | {"provenance": provenance}
        labels.write(writer.path / LABELS)
        if job.encoder is not None:
            job.encoder.save(writer.path / TEXT_FOLDER)
        export_graphs(model, preset.preprocess.size, writer.path)
        card = _model_card(out.name, preset, labels, provenance)
        (writer.path / CARD).write_text(card, encoding="utf-8")
    return measured


def _shown_ids(examples: Examples) -> Ids:
    """Some of the records trained on; of those with captions, where there are any."""
    ids = examples.ids[:: -(-len(examples.ids) // MAX_READ)]
    captioned = [index for index in ids.tolist() if examples.records[index].captions]
    chosen = np.array(captioned, np.int64) if captioned else ids
    return chosen[:: -(-len(chosen) // MAX_PHOTOS)]


def _calibrated(
    run: Run, job: Job, scored: Scored | None, shown: Scored, runtime: Runtime
) -> tuple[Labels, JsonObject]:
    """The labels with their curves, and the part of the bundle's `meta` that belongs to them.

    Where there are too few photos to fit curves, those of the bundle that it began from stay.
    """
    examples, init, preset = job.examples, run.init, run.preset
    labels, evidence = examples.targets.labels, examples.evidence
    shape = 0 if scored is None else len(scored.ids), len(labels)
    is_few = shape[0] < MIN_PHOTOS
    is_same_view = init is not None and init.preprocess == preset.preprocess
    if init is not None and is_same_view and (is_few or preset.training.captions_alone):
        return _inherited(init, labels)
    if scored is None or is_few:
        words = f"{shape[0]} validation photos are too few to calibrate the scores"
        run.report.notify(f"{words}: the threshold is 0.5 (see --val)")
        marked = (replace(x, validated=bool(y)) for x, y in zip(labels, evidence, strict=True))
        return Labels(marked), {"thresholds": {"threshold": DEFAULT_THRESHOLD}}
    main = np.zeros(shape, bool)
    for row, index in zip(main, scored.ids.tolist(), strict=True):
        row[main_things(examples.held_out[index], labels)] = True
    right, known = scored.truth == 1, scored.truth >= 0
    judged = Judged(scored.logits.astype(np.float64), right, known, main)
    weights = np.stack([mentions(examples.records[i], labels) for i in shown.ids.tolist()])
    labels, meta = calibrate(
        labels, evidence, judged, Mentioned(shown.logits, weights), preset.precision
    )
    as_new = _logits_as_new(run, job, scored, runtime)
    curve = open_curve(as_new[:, evidence], right[:, evidence], known[:, evidence])
    return labels, meta | {"open_set": {"calibration": curve}}


def _inherited(init: Bundle, labels: Labels) -> tuple[Labels, JsonObject]:
    """The labels as the bundle has them; new ones have its curve of new words."""
    meta = {name: init.meta[name] for name in CALIBRATED if name in init.meta}
    curve = meta.get("open_set", {}).get("calibration")
    kept = [
        replace(label, calibration=curve) if row < 0 else init.labels[row]
        for label, row in zip(labels, rows_in(init.labels, labels), strict=True)
    ]
    return Labels(kept), meta


def _logits_as_new(run: Run, job: Job, scored: Scored, runtime: Runtime) -> NDArray[np.float64]:
    """The logits (N, L) of labels as if each were a new word, of text and borrowed vectors."""
    table = job.model.labels
    rows = table().detach().cpu().numpy()
    width = table.widths[0]
    if table.described or rows.shape[1] == width:  # labels have no vectors of their own
        return scored.logits.astype(np.float64)
    texts, trained = np.split(rows, [width], 1)
    as_new = np.concatenate([texts, borrowed(texts, texts, trained, but_own=True)], 1)
    given = torch.from_numpy(as_new).to(table.text.device)

    def logits_of(model: RAM, photos: Tensor) -> Tensor:
        return model(photos, labels=given).logits.total

    found = score(run, job, job.validation, scored.ids, runtime, logits_of)
    return found.logits.astype(np.float64)


def branch_logits(model: RAM, photos: Tensor) -> Tensor:
    """Logits (B, L) by the global branch alone, without the tag decoder."""
    encoded = model.encode(model.encoder(photos))
    by_text, by_label = model.branch_logits(encoded, model.prepare_labels(model.labels()))
    return torch.as_tensor(by_text + by_label)


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


def _provenance(run: Run, job: Job, measured: JsonObject) -> JsonObject:
    records, init = job.examples.records, run.init
    keeps_tagger = init is not None and run.preset.training.captions_alone
    before = init.meta["provenance"]["commands"] if init and keeps_tagger else []
    return {
        "commands": [*before, shlex.join(["ramctl", *run.options.argv])],
        "seed": run.preset.training.seed,
        "data": {
            "records": len(records),
            "records_trained_on": len(job.examples.ids),
            "captions": records.counts.n_captions,
            "tag_mentions": sum(records.counts.tags.values()),
        },
        "measured": measured,
        "parent": None if init is None else init.fingerprint,
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
