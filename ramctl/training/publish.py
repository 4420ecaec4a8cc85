"""Validation of a model, and its bundle: weights, calibrated labels, graphs and model card.

Photos are scored as in tagging, without changes, by the first process. N photos, L labels.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jinja2 import StrictUndefined, Template
from numpy.typing import NDArray
from torch import Tensor

from ramctl import __version__
from ramctl.checkpoints.bundle import AXES, CARD, TEXT_FOLDER, Bundle, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.checkpoints.onnx_graph import export_graphs
from ramctl.checkpoints.static_table import TextEncoder
from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RecordProblem
from ramctl.evaluation.metrics import POSITIVE, mean_average_precision
from ramctl.inference.calibration import MIN_PHOTOS, Judged, Mentioned, calibrate, open_curve
from ramctl.inference.embedding import SAMPLE, write_axes
from ramctl.inference.log_odds import Probabilities
from ramctl.inference.vocabulary import borrowed
from ramctl.model.device import Runtime
from ramctl.model.preset import Preset
from ramctl.model.ram import RAM
from ramctl.records.labels import LABELS, Labels
from ramctl.records.record import JsonObject, shown_name
from ramctl.records.report import Rejects
from ramctl.training.annotations import Ids
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.data import TrainingSet, main_things, mentions
from ramctl.training.start import rows_in

MAX_VALIDATED = 20_000  # photos whose logits are held in memory
MAX_SHOWN = 5000  # photos of those trained on, whose scores fit salience and the axes
MAX_READ = 20_000  # records in which captions are looked for
PHOTOS_AT_ONCE = 32
HEADROOM_QUANTILE = 0.99
CALIBRATED = ("precisions", "salience", "open_set", "thresholds")  # of bundle.json
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of a run that its bundle is made of."""

    out: Path
    command: str
    preset: Preset
    init: Bundle | None  # that it started from
    model: RAM
    encoder: TextEncoder | None
    data: TrainingSet
    validation: TrainingSet
    held_out: str  # the origin of the validation photos
    evidence: Flags  # (L,) whether enough photos or a teacher show the label
    learnt: Flags  # (L,) whether the label was trained, in this run or before it
    runtime: Runtime
    rejects: Rejects
    is_main: bool


class Scored(NamedTuple):
    """Logits and truth (1, 0, -1: unknown), both (N, L), of the records `ids` (N,)."""

    logits: NDArray[np.float32]
    truth: NDArray[np.int8]
    ids: Ids


def score(
    run: Run, data: TrainingSet, ids: Ids, runtime: Runtime,
    logits_of: Callable[[RAM, Tensor], Tensor] | None = None,
) -> Scored:  # fmt: skip
    """The photos that can be read, by all logits of the model or by `logits_of`."""
    model, blocks = run.model.eval(), np.split(ids, range(PHOTOS_AT_ONCE, len(ids), PHOTOS_AT_ONCE))
    logits = [np.zeros((0, len(data.targets.labels)), np.float32)]
    problems: dict[int, RecordProblem] = {}
    for batch in data.batches((0, block) for block in blocks):
        problems |= dict(batch.rejected)
        if batch.is_real:
            with torch.inference_mode(), runtime.precision():
                photos = batch.photos.to(runtime.device)
                found = logits_of(model, photos) if logits_of else model(photos).logits.total
            logits.append(found.float().cpu().numpy())
    data.records.reject(problems, run.rejects)
    ids = ids[~np.isin(ids, list(problems))]
    truth = [data.targets.truth(data.records[index]) for index in ids.tolist()]
    return Scored(np.concatenate(logits), np.array(truth).reshape(-1, logits[0].shape[1]), ids)


def validate(run: Run, runtime: Runtime, step: int) -> tuple[Scored, JsonObject]:
    """The scored validation photos, and the mAP over the labels with evidence that they show.

    None, and nothing, where no photo can be used, and in all processes but the first.
    """
    ids, report = run.validation.ids[: MAX_VALIDATED * run.is_main], run.rejects.report
    scored = score(run, run.validation, ids, runtime)
    occurring = run.evidence & (scored.truth == POSITIVE).any(0)
    if not occurring.any():
        if len(ids):
            report.notify(f"none of {len(ids)} validation photos shows a trained label")
        return Scored(scored.logits[:0], scored.truth[:0], scored.ids[:0]), {}
    logits = scored.logits[:, occurring].astype(np.float64)
    value = mean_average_precision(logits, scored.truth[:, occurring])
    facts = {"map": value, "labels": int(occurring.sum()), "photos": len(scored.ids)}
    words = f"mAP {value:.4f} over {facts['labels']} labels, {facts['photos']} validation photos"
    report.notify(f"step {step}: {words}")
    return scored, facts


def publish(run: Run, step: int) -> None:
    """Write the bundle of a run after its last step."""
    preset, init, model = run.preset, run.init, run.model
    fill_untrained_labels(model, run.learnt)
    round_weights(model)
    # Scores in fp32 are calibrated, which most users' machines compute.
    runtime = Runtime(run.runtime.device)
    scored, facts = validate(run, runtime, step)
    measured = {"validation": shown_name(run.held_out) if facts else "none"}
    measured |= {f"validation_{name.replace('map', 'mAP')}": x for name, x in facts.items()}
    whole = TrainingPhoto(preset.preprocess, UNCHANGED)
    data = replace(
        run.data, photo=whole, targets=run.validation.targets, tokenizer=None, texts=None
    )
    shown = score(run, data, _shown_ids(run.data), runtime)
    labels, meta = _calibrated(run, scored, shown, runtime)
    prior = preset.model.prior
    if prior and prior.similarity and prior.class_sharpness and preset.model.labels.own_width:
        branch = score(run, data, shown.ids[:SAMPLE], runtime, branch_logits).logits
        added = np.quantile(shown.logits[:SAMPLE] - branch, HEADROOM_QUANTILE, axis=0)
        labels = labels.with_numbers("headroom", added, 2)
    provenance = _provenance(run, measured)
    with BundleWriter(run.out) as writer:
        if init is not None and init.has(AXES) and init.labels.tags == labels.tags:
            shutil.copy(init.path / AXES, writer.path / AXES)  # photos that were embedded are found
        else:
            write_axes(writer.path / AXES, Probabilities(labels)(shown.logits[:SAMPLE]))
        writer.meta = write_model(writer.path, preset, model.cpu(), run.data.tokenizer, half=True)
        writer.meta |= meta | {"provenance": provenance}
        labels.write(writer.path / LABELS)
        if run.encoder is not None:
            run.encoder.save(writer.path / TEXT_FOLDER)
        export_graphs(model, preset.preprocess.size, writer.path)
        card = _model_card(run.out.name, preset, labels, provenance)
        (writer.path / CARD).write_text(card, encoding="utf-8")


def _shown_ids(data: TrainingSet) -> Ids:
    """Some of the records trained on; of those with captions, where there are any."""
    ids = data.ids[:: -(-len(data.ids) // MAX_READ)]
    captioned = [index for index in ids.tolist() if data.records[index].captions]
    chosen = np.array(captioned, np.int64) if captioned else ids
    return chosen[:: -(-len(chosen) // MAX_SHOWN)]


def _calibrated(
    run: Run, scored: Scored, shown: Scored, runtime: Runtime
) -> tuple[Labels, JsonObject]:
    """The labels with their curves, and the part of the bundle's `meta` that belongs to them.

    Where there are too few photos to fit curves, those of the bundle that it began from stay.
    """
    init, preset, labels = run.init, run.preset, run.data.targets.labels
    is_few = len(scored.ids) < MIN_PHOTOS
    is_same_view = init is not None and init.preprocess == preset.preprocess
    if init is not None and is_same_view and (is_few or preset.training.captions_alone):
        return _inherited(init, labels)
    main = np.zeros(scored.truth.shape, bool)
    for row, index in zip(main, scored.ids.tolist(), strict=True):
        row[main_things(run.validation.records[index], labels)] = True
    right, known = scored.truth == 1, scored.truth >= 0
    judged = Judged(scored.logits.astype(np.float64), right, known, main)
    mentioned = None
    if not is_few:
        weights = [mentions(run.data.records[index], labels) for index in shown.ids.tolist()]
        mentioned = Mentioned(shown.logits, np.stack(weights))
    labels, meta = calibrate(labels, run.evidence, judged, mentioned, preset.precision)
    if is_few:
        words = f"{len(scored.ids)} validation photos are too few to calibrate the scores"
        run.rejects.report.notify(f"{words}: the threshold is 0.5 (see --val)")
        return labels, meta
    as_new, evidence = _logits_as_new(run, scored, runtime), run.evidence
    curve = open_curve(as_new[:, evidence], right[:, evidence], known[:, evidence])
    return labels, meta | {"open_set": {"calibration": curve}}


def _inherited(init: Bundle, labels: Labels) -> tuple[Labels, JsonObject]:
    """The labels as the bundle has them; new ones have its curve of new words."""
    meta = {name: init.meta[name] for name in CALIBRATED if name in init.meta}
    curve = meta.get("open_set", {}).get("calibration")
    kept = [
        label.changed(calibration=curve) if row < 0 else init.labels[row]
        for label, row in zip(labels, rows_in(init.labels, labels), strict=True)
    ]
    return Labels(kept), meta


def _logits_as_new(run: Run, scored: Scored, runtime: Runtime) -> NDArray[np.float64]:
    """The logits (N, L) of labels as if each were a new word, of text and borrowed vectors."""
    table = run.model.labels
    rows = table().detach().cpu().numpy()
    width = table.widths[0]
    if table.described or rows.shape[1] == width:  # labels have no vectors of their own
        return scored.logits.astype(np.float64)
    texts, trained = np.split(rows, [width], 1)
    as_new = np.concatenate([texts, borrowed(texts, texts, trained, but_own=True)], 1)
    given = torch.from_numpy(as_new).to(table.text.device)

    def logits_of(model: RAM, photos: Tensor) -> Tensor:
        return model(photos, labels=given).logits.total

    return score(run, run.validation, scored.ids, runtime, logits_of).logits.astype(np.float64)


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


def _provenance(run: Run, measured: JsonObject) -> JsonObject:
    records, init = run.data.records, run.init
    keeps_tagger = init is not None and run.preset.training.captions_alone
    before = init.meta["provenance"]["commands"] if init and keeps_tagger else []
    return {
        "commands": [*before, run.command],
        "seed": run.preset.training.seed,
        "data": {
            "records": len(records),
            "records_trained_on": len(run.data.ids),
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
