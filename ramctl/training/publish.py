"""A trained model as a bundle: weights, labels with thresholds, graph and model card."""

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from ramctl import __version__
from ramctl.checkpoints.bundle import CARD, GRAPH, TEXT_FOLDER, WEIGHTS, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.checkpoints.onnx_graph import export_graph
from ramctl.checkpoints.weights import weights_of
from ramctl.inference.label_set import borrowed
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.caption_tokenizer import CaptionTokenizer
from ramctl.model.config import Preset
from ramctl.model.ram import RAM
from ramctl.records.record import JsonObject
from ramctl.text.encoder import TextEncoder

Say = Callable[[str], None]
THRESHOLD_DIGITS = 4
LIMITS = """\
- It names what its captions named: no counting, no fine-grained classes (breeds, makes, species),
  no text in the photo.
- It inherits the bias of its photos and captions: whom and what they show, and how people are
  described.
- A tag that is missing from the captions of photos that show it was learnt as absent.
- Scores of words outside the label system rest on the text embedding alone and are less sure.
"""


@dataclass(frozen=True, slots=True)
class Product:
    """What goes into a bundle."""

    preset: Preset
    model: RAM
    labels: LabelSystem
    tokenizer: CaptionTokenizer | None
    encoder: TextEncoder | None
    thresholds: list[float]
    threshold: float
    commands: list[str]
    data: JsonObject  # counts of records, captions, tags
    measured: JsonObject  # what validation gave
    parent: str | None  # fingerprint of the bundle that training started from


def round_weights(model: RAM) -> None:
    """Round the weights as a bundle stores them, so that validation measures what is published."""
    with torch.no_grad():
        for tensor in weights_of(model).values():
            if tensor.dim() > 1 and tensor.is_floating_point():
                tensor.copy_(tensor.half())


def fill_untrained_labels(model: RAM, trained: torch.Tensor | None) -> None:
    """Give labels too rare to train what new words get: a mixture of their neighbours' vectors.

    `trained` (L,) tells which labels were trained; None if all were.
    """
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
    """Write the bundle; an older one at `out` is replaced only when the new one is complete."""
    model, preset = product.model.cpu().eval(), product.preset
    with BundleWriter(out) as writer:
        writer.meta = write_model(writer.path, preset, model, product.tokenizer, half=True)
        labels = _with_thresholds(product)
        labels.write(writer.path / LABELS)
        if product.encoder is not None:
            product.encoder.save(writer.path / TEXT_FOLDER)
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
        card = _model_card(out.name, preset, labels, writer.meta["provenance"])
        (writer.path / CARD).write_text(card, encoding="utf-8")


def _with_thresholds(product: Product) -> LabelSystem:
    shared = round(product.threshold, THRESHOLD_DIGITS)
    labels = []
    for label, threshold in zip(product.labels, product.thresholds, strict=True):
        own = round(threshold, THRESHOLD_DIGITS)
        labels.append(replace(label, threshold=None if own == shared else own))
    return LabelSystem(labels)


def _provenance(product: Product) -> JsonObject:
    return {
        "commands": product.commands,
        "seed": product.preset.training.data.seed,
        "data": product.data,
        "measured": product.measured,
        "parent": product.parent,
        "versions": {"ramctl": __version__} | {name: version(name) for name in ("torch", "timm")},
    }


def _model_card(name: str, preset: Preset, labels: LabelSystem, provenance: JsonObject) -> str:
    """Markdown: how the model was made, from what, what was measured, what it cannot do."""
    kinds = Counter(label.kind for label in labels)
    counts = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    commands = "\n".join(f"$ {command}" for command in provenance["commands"])
    versions = ", ".join(f"{part} {number}" for part, number in provenance["versions"].items())
    return f"""\
# {name}

An image tagger in the manner of RAM (Recognize Anything): {preset.description}.

## Labels

{len(labels)} labels ({counts}), stored in `labels.jsonl` with their thresholds.

## Data

{_bullets(provenance["data"])}

The photos and captions keep the licences of their origin; see where the data came from.

## Made by

```console
{commands}
```

Seed {provenance["seed"]}; {versions}.

## Measured

{_bullets(provenance["measured"])}

## Limits

{LIMITS}"""


def _bullets(facts: JsonObject) -> str:
    return "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in facts.items())


def command_line(argv: list[str]) -> str:
    """The command line, quoted so that it can be pasted into a shell."""
    return shlex.join(["ramctl", *argv])
