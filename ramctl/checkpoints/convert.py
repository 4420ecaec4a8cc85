"""Bundles made of the authors' checkpoints, a graph added to a bundle, and a bundle's summary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from ramctl import __version__
from ramctl.checkpoints.bundle import (
    CARD,
    GRAPH,
    META,
    TEXT_FOLDER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    BundleWriter,
    file_sha256,
    require_bundle,
)
from ramctl.checkpoints.load import load_model, write_model
from ramctl.checkpoints.official import Architecture, convert_official, read_official
from ramctl.checkpoints.onnx_graph import export_graph
from ramctl.errors import RunProblem
from ramctl.labels import LABELS, LabelSystem, read_thresholds
from ramctl.model.caption_tokenizer import CaptionTokenizer, bert_tokenizer
from ramctl.model.config import Preset
from ramctl.records.files import read_lines
from ramctl.text.clip import ClipTextEncoder

CLIP = "hf://openai/clip-vit-base-patch16"  # the authors' label queries come from it
THRESHOLD = 0.68  # the authors' class_threshold where no file says otherwise

KindsOf = Callable[[LabelSystem], Sequence[str]]  # a kind for each label of a list without kinds

# Tag2Text's own list: things and scenes first, then actions, then attributes (the authors' issue
# 150), and the authors' thresholds by id (tag2text.py).
TAG2TEXT_LABELS = 3429
_ACTIONS, _ATTRIBUTES = range(3012, 3252), range(3252, 3429)
_CAREFUL = {2701: 0.7, 2828: 0.7, 1167: 0.7}  # person, man, woman
# quarter, back, numbers: the authors never give them, because they spoil captions
_NEVER = (127, 2961, 3351, 3265, 3338, 3355, 3359)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The authors' files that make up one model."""

    weights: Path
    architecture: Architecture
    tags: Path
    thresholds: Path | None = None
    vocabulary: Path | None = None  # the captioning branch's vocabulary
    translations: Path | None = None  # Chinese names, one per line in id order
    text_encoder: str = CLIP  # what embeds new words: a folder, or hf://owner/name


def convert_checkpoint(
    checkpoint: Checkpoint, out: Path, command: Sequence[str], kinds_of: KindsOf
) -> Bundle:
    """The bundle of an authors' checkpoint, written to `out`.

    Tags keep their spelling, order and duplicates; `kinds_of` says their kinds. `command` is
    recorded in the bundle. Raises RunProblem that names the file and key that do not fit.
    """
    require_bundle(out)
    labels = read_official_labels(checkpoint, kinds_of)
    tensors = read_official(checkpoint.weights)
    preset, model = convert_official(checkpoint.architecture, tensors, len(labels))
    tokenizer = _tokenizer(checkpoint, preset)
    with BundleWriter(out) as writer:
        described = write_model(writer.path, preset, model, tokenizer)
        labels.write(writer.path / LABELS)
        if checkpoint.architecture != "tag2text":  # its queries are learnt, not embedded
            encoder = ClipTextEncoder(checkpoint.text_encoder, checkpoint.architecture)
            encoder.save(writer.path / TEXT_FOLDER)
        writer.meta = described | {
            "thresholds": {
                "threshold": THRESHOLD,
                "open_set_threshold": preset.open_set_threshold,
            },
            "provenance": {
                "command": list(command),
                "checkpoint": {
                    "name": checkpoint.weights.name,
                    "bytes": checkpoint.weights.stat().st_size,
                    "sha256": file_sha256(checkpoint.weights),
                },
                "versions": {"ramctl": __version__},
            },
        }
        (writer.path / CARD).write_text(_card(checkpoint, preset, labels), "utf-8")
    return Bundle.open(out)


def add_graph(bundle: Bundle, out: Path | None = None) -> Bundle:
    """The bundle with `model.onnx`, in place or at `out`; its files are linked, not copied."""
    target = bundle.path if out is None else out
    require_bundle(target)
    model = load_model(bundle, captioning=False)
    size = bundle.preprocess.size
    with BundleWriter(target) as writer:
        writer.link_files(bundle, without={GRAPH})
        graph = writer.path / GRAPH
        export_graph(model, size, graph, weights=writer.path / WEIGHTS)
    return Bundle.open(target)


def read_official_labels(checkpoint: Checkpoint, kinds_of: KindsOf) -> LabelSystem:
    """The authors' tag list, with kinds, thresholds and Chinese names where they are known."""
    listed = LabelSystem.read(checkpoint.tags)
    labels = list(listed.labels)
    if all(label.kind == "object" for label in labels):  # a plain list
        judged = zip(labels, kinds_of(listed), strict=True)
        labels = [replace(label, kind=kind) for label, kind in judged]
    if checkpoint.architecture == "tag2text" and len(labels) == TAG2TEXT_LABELS:
        numbered = enumerate(labels)
        labels = [replace(label, kind=_tag2text_kind(i, label.kind)) for i, label in numbered]
        if checkpoint.thresholds is None:
            for index, threshold in (_CAREFUL | dict.fromkeys(_NEVER, 1.0)).items():
                labels[index] = replace(labels[index], threshold=threshold)
    if checkpoint.thresholds is not None:
        values = read_thresholds(checkpoint.thresholds, LabelSystem(labels), THRESHOLD)
        pairs = zip(labels, values, strict=True)
        labels = [replace(label, threshold=value) for label, value in pairs]
    if checkpoint.translations is not None:
        names = [line.strip() for line in read_lines(checkpoint.translations)]
        if len(names) != len(labels):
            counts = f"{len(names)} lines for {len(labels)} tags"
            raise RunProblem(f"{checkpoint.translations}: {counts}")
        named = zip(labels, names, strict=True)
        labels = [replace(label, names={"zh": name}) for label, name in named]
    return LabelSystem(labels)


def _tag2text_kind(index: int, kind: str) -> str:
    """The kind that Tag2Text's list tells by its order, where a double is another meaning."""
    if index in _ACTIONS:
        return "action"
    if index in _ATTRIBUTES:
        return "attribute"
    return "scene" if kind == "scene" else "object"


def _tokenizer(checkpoint: Checkpoint, preset: Preset) -> CaptionTokenizer | None:
    captioning = preset.model.captioning
    if captioning is None:
        return None
    tokenizer = CaptionTokenizer(bert_tokenizer(checkpoint.vocabulary), captioning)
    if len(tokenizer) != captioning.vocabulary:
        if checkpoint.vocabulary is None:  # not the model as published
            return None
        raise RunProblem(
            f"{checkpoint.vocabulary}: {len(tokenizer)} tokens with [DEC] and [ENC], "
            f"the checkpoint has {captioning.vocabulary}"
        )
    return tokenizer


def _card(checkpoint: Checkpoint, preset: Preset, labels: LabelSystem) -> str:
    return f"""# {checkpoint.weights.stem}

{preset.description}. Converted from the authors' checkpoint `{checkpoint.weights.name}`
(github.com/xinyu1205/recognize-anything, Apache-2.0); {len(labels)} labels in the authors' order,
photos of {preset.preprocess.size} px. Training data, intended use and limits are those of the
original; the paper names counting, fine-grained classes and the bias of its data as limits.
"""


def describe_bundle(bundle: Bundle) -> list[str]:
    """A summary of the bundle, line by line: labels, thresholds, sizes, provenance."""
    preset = bundle.preset
    n_own = sum(label.threshold is not None for label in bundle.labels)
    kinds = [label.kind for label in bundle.labels]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    captions = "with captions" if bundle.has(TOKENIZER) else "no captions"
    encoder = preset.model.encoder
    window = f", window {encoder.window_size}" if encoder.window_size else ""
    lines = [
        f"{bundle.path}: {preset.name}, {preset.description}",
        f"labels      {len(bundle.labels)} ({counts})",
        f"thresholds  {bundle.threshold:g}, {n_own} labels have their own; "
        f"open set {bundle.open_set_threshold:g}",
        f"photos      {preset.preprocess.size} px, {preset.preprocess.interpolation}, "
        f"{preset.preprocess.fit}, {preset.preprocess.loader} loader",
        f"encoder     {encoder.backbone}{window}",
        f"decoder     {preset.model.tag_decoder.layers} layers of width "
        f"{preset.model.tag_decoder.width}, {captions}",
        f"fingerprint {bundle.fingerprint}",
    ]
    sizes = bundle.file_sizes
    total = sum(sizes.values()) + (bundle.path / META).stat().st_size
    lines += [f"file        {size / 1e6:9.2f} MB  {name}" for name, size in sizes.items()]
    lines.append(f"in all      {total / 1e6:9.2f} MB")
    for key, value in bundle.meta.get("provenance", {}).items():
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        lines.append(f"from        {key}: {text}")
    return lines
