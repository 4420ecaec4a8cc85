"""A trained model as a bundle: weights, labels with thresholds, graph, model card."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ramctl import __version__
from ramctl.checkpoints.bundle import GRAPH, LABELS, WEIGHTS, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.checkpoints.onnx_graph import export_graph
from ramctl.checkpoints.weights import weights_of
from ramctl.inference.borrowing import borrowed
from ramctl.labels import LabelSystem
from ramctl.model.caption_tokenizer import CaptionTokenizer
from ramctl.model.config import Preset
from ramctl.model.ram import RAM
from ramctl.text.spaces import TEXT_FOLDER, TextSpace
from ramctl.training.card import model_card

Say = Callable[[str], None]
THRESHOLD_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Product:
    """What goes into a bundle."""

    preset: Preset
    model: RAM
    labels: LabelSystem
    tokenizer: CaptionTokenizer | None
    space: TextSpace | None
    thresholds: list[float]
    threshold: float
    commands: list[str]
    data: dict[str, Any]  # counts of records, captions, tags
    measured: dict[str, Any]  # what validation gave
    parent: str | None  # fingerprint of the bundle that training started from


def round_weights(model: RAM) -> None:
    """Round the weights to what a bundle stores, so that what is measured is what is shipped."""
    with torch.no_grad():
        for tensor in weights_of(model).values():
            if tensor.dim() > 1 and tensor.is_floating_point():
                tensor.copy_(tensor.half())


def lend_to_untrained(model: RAM, trained: torch.Tensor | None) -> None:
    """Give labels that were not trained what unknown words get: a share of their neighbours'."""
    labels = model.labels
    if trained is None or labels.described:
        return
    words = (~trained).nonzero()[:, 0].cpu()
    known = trained.nonzero()[:, 0].cpu()
    with torch.no_grad():
        text = labels.text.cpu()
        for part in (labels.own, labels.bias):
            owned = part.cpu()[known].numpy()
            if owned.shape[1]:
                rows = borrowed(text[words].numpy(), text[known].numpy(), owned)
                part[words.to(part.device)] = torch.from_numpy(rows).to(part.device)


def publish(out: Path, product: Product, say: Say) -> None:
    """Write the bundle, whole or not at all; an older one is replaced when it is complete."""
    model, preset = product.model.cpu().eval(), product.preset
    with BundleWriter(out) as writer:
        writer.meta = write_model(writer.path, preset, model, product.tokenizer, half=True)
        labels = _with_thresholds(product)
        labels.write(writer.path / LABELS)
        if product.space is not None:
            product.space.save(writer.path / TEXT_FOLDER)
        writer.meta["thresholds"] = {
            "threshold": round(product.threshold, THRESHOLD_DIGITS),
            "open_set_threshold": preset.open_set_threshold,
        }
        writer.meta["provenance"] = _provenance(product)
        if find_spec("onnx"):
            export_graph(
                model, preset.preprocess.size, writer.path / GRAPH, weights=writer.path / WEIGHTS
            )
        else:
            say("no model.onnx written: it needs the extra [onnx] (ramctl convert adds it later)")
        card = model_card(out.name, preset, labels, writer.meta)
        (writer.path / "README.md").write_text(card, encoding="utf-8")


def _with_thresholds(product: Product) -> LabelSystem:
    shared = round(product.threshold, THRESHOLD_DIGITS)
    labels = []
    for label, threshold in zip(product.labels, product.thresholds, strict=True):
        own = round(threshold, THRESHOLD_DIGITS)
        labels.append(replace(label, threshold=None if own == shared else own))
    return LabelSystem(labels)


def _provenance(product: Product) -> dict[str, Any]:
    return {
        "commands": product.commands,
        "seed": product.preset.training.seed,
        "data": product.data,
        "measured": product.measured,
        "parent": product.parent,
        "versions": {"ramctl": __version__} | {name: version(name) for name in ("torch", "timm")},
    }


def command_line(argv: list[str]) -> str:
    """A command line as it can be pasted into a shell."""
    return shlex.join(["ramctl", *argv])
