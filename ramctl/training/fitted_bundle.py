"""A bundle whose labels were fitted to a collection: what changes is added to its tensors.

C channels of the pooled features, L labels, R directions of the change.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ramctl.checkpoints.bundle import (
    AXES,
    CALIBRATION,
    CARD,
    GRAPH,
    HEADROOM,
    INT8_GRAPH,
    LABEL_QUERIES,
    WEIGHTS,
    Bundle,
    BundleWriter,
    write_meta,
)
from ramctl.checkpoints.load import load_model
from ramctl.checkpoints.onnx_graph import STORED, export_graph, require_onnx, share_weights
from ramctl.inference.calibration import Calibration
from ramctl.inference.label_rows import Rows
from ramctl.inference.log_odds import Floats
from ramctl.labels import LABELS, Labels
from ramctl.model.preset import change_preset, preset_to_meta
from ramctl.records.record import JsonObject
from ramctl.training.label_vectors import Fitted

REWRITTEN = {WEIGHTS, GRAPH, INT8_GRAPH, CALIBRATION, CARD, LABELS, AXES, HEADROOM}
DIGITS = 4  # of thresholds
MAX_RANK = 128  # of the change of the labels' vectors
KEPT_ENERGY = 0.995  # of the change


def _in_fewer(fitted: Fitted, slopes: Floats) -> tuple[Floats, Floats]:
    """The change of the logits as a product (C, R) (R, L), of as few directions as it needs."""
    change = fitted.weight.double().numpy() / slopes
    left, sizes, right = np.linalg.svd(change, full_matrices=False)
    energy = np.cumsum(sizes**2) / (sizes**2).sum()
    rank = min(int(np.searchsorted(energy, KEPT_ENERGY)) + 1, MAX_RANK)
    root = np.sqrt(sizes[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def write_fitted(
    out: Path, argv: Sequence[str], bundle: Bundle, labels: Labels, rows: Rows,
    calibration: Calibration, thresholds: Floats, shifts: Floats, fitted: Fitted,
    scaling: tuple[Floats, Floats], figures: JsonObject,
) -> None:  # fmt: skip
    """Write a bundle with fitted labels to `out`; other files are those of `bundle`.

    `rows` are the labels' rows before the fit, `shifts` (L,) are added to their biases; `scaling`
    is the deviation and mean (C,) of the pooled features, and `figures` go into provenance and
    card.
    """
    spread, mean = scaling
    tensors = load_file(bundle.path / WEIGHTS)
    n = len(labels)
    fitted_bias = fitted.bias.double().numpy()
    directions, vectors = _in_fewer(fitted, calibration.slopes)
    projection = (directions / spread[:, None]).T  # (R, C)
    own_weight, own_bias = (tensors[f"prior.own_projection.{x}"] for x in ("weight", "bias"))
    sizes = [tensors[name].shape[1] for name in ("labels.text", "labels.own", "labels.head")]
    text, own, head, bias = np.split(rows.astype(np.float64), np.cumsum(sizes), axis=1)
    changes = {
        "labels.text": text,
        "labels.own": np.hstack([own, vectors.T]),
        "labels.head": head,
        "labels.bias": bias + (fitted_bias / calibration.slopes + shifts)[:, None],
        "labels.counts": np.ones(n, np.int64),
        "prior.own_projection.weight": np.vstack([own_weight, projection]),
        "prior.own_projection.bias": np.hstack([own_bias, -projection @ mean]),
    }
    tensors |= {name: value.astype(tensors[name].dtype) for name, value in changes.items()}
    preset = change_preset(
        bundle.preset, {"model": {"labels": {"own_width": changes["labels.own"].shape[1]}}}
    )
    with BundleWriter(out) as writer:
        writer.copy_files(bundle, without=REWRITTEN)
        save_file(tensors, writer.path / WEIGHTS, metadata={"format": "pt"})
        calibration.write(writer.path / CALIBRATION)
        shared = round(calibration.shared_threshold(figures["precision"]), DIGITS)
        evidence = ~np.isnan(calibration.offsets)
        each = zip(labels, evidence.tolist(), thresholds.tolist(), strict=True)
        Labels(
            replace(label, validated=known, threshold=round(value, DIGITS) if known else None)
            for label, known, value in each
        ).write(writer.path / LABELS)
        _write_extended(bundle, writer.path, n)
        writer.meta |= preset_to_meta(preset)
        writer.meta["thresholds"] = writer.meta["thresholds"] | {"threshold": shared}
        history = bundle.meta.get("provenance", {})
        commands = [*history.get("commands", []), shlex.join(["ramctl", *argv])]
        writer.meta["provenance"] = history | {"commands": commands, "fitted": figures}
        write_meta(writer.path, writer.meta)
        _write_graphs(bundle, writer.path)
        card = bundle.path / CARD
        before = card.read_text("utf-8") if bundle.has(CARD) else ""
        (writer.path / CARD).write_text(_card(out.name, argv, figures, before), "utf-8")


def _card(name: str, argv: Sequence[str], figures: JsonObject, before: str) -> str:
    """The model card: what the fit brought, then the card of the model that it began with."""
    before_fit, after = figures["before"], figures["after"]
    rows = [
        f"| {figure.replace('_', ' ')} | {before_fit[figure]} | {after[figure]} |"
        for figure in before_fit
    ]
    return "\n".join([
        f"# {name}", "",
        f"Labels fitted to {figures['photos']} captioned photos of a collection, with thresholds",
        f"{figures['thresholds']}. On photos of the",
        "collection that were held out of the fit, by their captions:", "",
        "| | before | after |", "|---|---|---|", *rows, "",
        f"New labels: {', '.join(figures['new_labels']) or 'none'}.", "",
        "```console", f"$ {shlex.join(['ramctl', *argv])}", "```", "",
        "The rest of this card is that of the model before the fit, with its figures.", "", before,
    ])  # fmt: skip


def _write_extended(bundle: Bundle, folder: Path, n_labels: int) -> None:
    """Write what search and the shortlist keep of each label, for new labels too."""
    if bundle.has(AXES):
        axes = load_file(bundle.path / AXES)["axes"]
        new = np.zeros((n_labels - len(axes), axes.shape[1]), axes.dtype)
        save_file({"axes": np.concatenate([axes, new])}, folder / AXES)
    if bundle.has(HEADROOM):
        headroom = bundle.array(HEADROOM)
        new = np.full(n_labels - len(headroom), np.quantile(headroom, 0.9), headroom.dtype)
        np.save(folder / HEADROOM, np.concatenate([headroom, new]))


def _write_graphs(before: Bundle, folder: Path) -> None:
    """Write the bundle's graphs; the int8 one is that of `before` with what the fit has changed."""
    bundle, weights = Bundle.open(folder), folder / WEIGHTS
    model = load_model(bundle, captioning=False)
    export_graph(model, bundle.preprocess.size, folder / GRAPH, weights=weights)
    if not before.has(INT8_GRAPH):
        return
    onnx = require_onnx()
    graph = onnx.load(before.path / INT8_GRAPH)
    changed = bundle.tensors(f"prior.own_projection.{part}" for part in ("weight", "bias"))
    for initialiser in graph.graph.initializer:
        name = initialiser.name.removeprefix("model.").removesuffix(STORED)
        if name in changed:
            initialiser.CopyFrom(onnx.numpy_helper.from_array(changed[name], initialiser.name))
    # A label's row is wider.
    widths = np.array(model.labels.widths)
    (rows,) = (entry for entry in graph.graph.input if entry.name == LABEL_QUERIES)
    rows.type.tensor_type.shape.dim[-1].dim_value = int(widths.sum())
    (split,) = (node for node in graph.graph.node if LABEL_QUERIES in node.input)
    sizes = next(node for node in graph.graph.node if split.input[1] in node.output)
    sizes.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(widths))
    del graph.graph.value_info[:]  # shapes of intermediate results, which are optional
    share_weights(graph, weights, folder)
    onnx.save(graph, folder / INT8_GRAPH)
