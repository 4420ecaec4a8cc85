"""`ramctl convert`: checkpoints to bundles, bundles to ONNX graphs.

It stands above `checkpoints` because it needs `parsing` for the kinds of labels.
"""

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import cast

from ramctl import __version__
from ramctl.checkpoints.bundle import (
    CARD,
    LABEL_GRAPH,
    PHOTO_GRAPH,
    TEXT_FOLDER,
    TOKENIZER,
    Bundle,
    BundleWriter,
    embedded_bundle,
    file_sha256,
    model_shelf,
    require_bundle,
    resolve_model,
)
from ramctl.checkpoints.clip import ClipTextEncoder
from ramctl.checkpoints.hub import HUB, KNOWN, local_path
from ramctl.checkpoints.load import load_model, write_model
from ramctl.checkpoints.official import Architecture, convert_official, read_official
from ramctl.checkpoints.onnx_graph import export_graphs
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.thresholds import read_thresholds
from ramctl.model.caption_tokenizer import CaptionTokenizer, bert_tokenizer
from ramctl.model.preset import CaptioningConfig
from ramctl.parsing.closed_mode import label_kinds
from ramctl.records.labels import LABELS, Labels
from ramctl.records.report import Report

CLIP = "hf://openai/clip-vit-base-patch16"  # embeds the authors' label queries
THRESHOLD = 0.68  # the authors' class_threshold, for labels without their own

# The authors' tags (their repository, Apache-2.0) with their thresholds, RAM's with Chinese names.
# Tag2Text's are things and scenes, then actions, then attributes (the authors' issue 150). Tags of
# threshold 1 are never predicted, because they spoil captions (tag2text.py).
LISTS = Path(str(files("ramctl.checkpoints") / "labels"))

CARD_TEXT = """---
library_name: ramctl
pipeline_tag: image-classification
tags: [image-tagging, recognize-anything]
license: apache-2.0
---
# {title}

{description}. Converted from the authors' checkpoint `{checkpoint}`
(github.com/xinyu1205/recognize-anything, Apache-2.0); {n_labels} labels in the authors' order,
photos of {size} px. Training data, intended use and limits are those of the original; the paper
names counting, fine-grained classes and the bias of its data as limits.
"""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """The options of `ramctl convert`; a file may be `hf://owner/name:file`."""

    source: str  # the authors' checkpoint, a bundle, or the name of a known model
    arch: Architecture | None = None
    tags: str | None = None  # None: the authors', with their thresholds and Chinese names
    thresholds: str | None = None
    vocab: str | None = None  # of the captioning branch
    text_encoder: str = CLIP  # embeds new words: a folder, or hf://owner/name
    out: Path | None = None
    target: str | None = None  # `onnx`: add a graph to a bundle
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance


def run(options: ConvertOptions) -> Report:
    """Convert, or add a graph; return the report of the run."""
    report = Report("convert")
    if options.target:
        source = Bundle.open(resolve_model(options.source))
        if options.out is None and source.path == embedded_bundle():
            raise UsageProblem("the embedded model is part of this program: give --out DIR")
        bundle = add_graph(source, options.out)
        report.notify(f"{bundle.path}: wrote {PHOTO_GRAPH} and {LABEL_GRAPH}")
        return report
    if options.arch is None and options.source in KNOWN:
        options = _downloaded(options, report)
    bundle = convert_checkpoint(options)
    report.notify(f"{bundle.path}: {len(bundle.labels)} labels; use --model {bundle.path}")
    if not bundle.has(TOKENIZER):
        reason = "the vocabulary is not BERT's; name it by --vocab FILE"
        if bundle.preset.model.captioning is None:
            reason = "the checkpoint has no captioning branch"
        report.notify(f"no captions: {reason}")
    return report


def convert_checkpoint(options: ConvertOptions) -> Bundle:
    """Convert an authors' checkpoint to a bundle at `out`.

    Tags keep their spelling, order and duplicates. RunProblem names the file and key that do not
    fit.
    """
    arch, out = options.arch, options.out
    if arch is None or out is None:
        raise UsageProblem(
            "add --arch and --out to convert a checkpoint, or --to onnx for a bundle"
        )
    require_bundle(out)
    checkpoint = local_path(options.source)
    labels = read_official_labels(options.tags, arch, options.thresholds)
    preset, model = convert_official(arch, read_official(checkpoint), len(labels))
    tokenizer = _tokenizer(options.vocab, preset.model.captioning)
    with BundleWriter(out) as writer:
        labels.write(writer.path / LABELS)
        if arch != "tag2text":  # whose queries are learnt, not embedded
            ClipTextEncoder(options.text_encoder, arch).save(writer.path / TEXT_FOLDER)
        facts = {"name": checkpoint.name, "bytes": checkpoint.stat().st_size}
        writer.meta = write_model(writer.path, preset, model, tokenizer) | {
            "thresholds": {"threshold": THRESHOLD},
            "provenance": {
                "command": ["ramctl", *options.argv],
                "checkpoint": facts | {"sha256": file_sha256(checkpoint)},
                "versions": {"ramctl": __version__},
            },
        }
        card = CARD_TEXT.format(
            title=checkpoint.stem, description=preset.description, checkpoint=checkpoint.name,
            n_labels=len(labels), size=preset.preprocess.size,
        )  # fmt: skip
        (writer.path / CARD).write_text(card, "utf-8")
    return Bundle.open(out)


def _downloaded(options: ConvertOptions, report: Report) -> ConvertOptions:
    """The options for a known model's checkpoint, downloaded; its bundle is for `--model NAME`.

    RunProblem for a checkpoint that is not the published one.
    """
    name, known = options.source, KNOWN[options.source]
    out = options.out or model_shelf() / name
    require_bundle(out)  # before gigabytes are fetched
    report.notify(f"{name}: {known.offer}")
    checkpoint = local_path(f"{HUB}{known.repository}:{known.file}")
    if known.sha256 not in (None, file_sha256(checkpoint)):
        raise RunProblem(f"{checkpoint}: not the published file (its SHA-256 differs)")
    return replace(options, source=str(checkpoint), arch=cast(Architecture, name), out=out)


def read_official_labels(
    tags: str | None, arch: Architecture, thresholds: str | None = None
) -> Labels:
    """Read the authors' tag list, or another one, with kinds and known thresholds.

    Their plain list, named as a file, has the kinds, names and thresholds of the one shipped.
    """
    shipped = Labels.read(LISTS / f"{arch.removesuffix('-plus')}.jsonl")
    tag_list = Labels.read(local_path(tags)) if tags else shipped
    is_theirs = list(tag_list) == list(Labels.from_tags(shipped.tags))
    labels = shipped if is_theirs else tag_list
    if all(label.kind == "object" for label in labels):  # a plain list
        pairs = zip(labels, label_kinds(tag_list), strict=True)
        labels = Labels(label.changed(kind=kind) for label, kind in pairs)
    if thresholds is not None:
        values = read_thresholds(local_path(thresholds), labels, THRESHOLD)
        given = zip(labels, values, strict=True)
        labels = Labels(label.changed(threshold=value) for label, value in given)
    return labels


def _tokenizer(vocab: str | None, captioning: CaptioningConfig | None) -> CaptionTokenizer | None:
    """The tokenizer of a captioning branch; None where BERT's vocabulary is not the branch's."""
    if captioning is None:
        return None
    tokenizer = CaptionTokenizer(bert_tokenizer(local_path(vocab) if vocab else None), captioning)
    if len(tokenizer) == captioning.vocabulary:
        return tokenizer
    if vocab is None:  # the checkpoint is not a published one
        return None
    expected = f"the checkpoint has {captioning.vocabulary}"
    raise RunProblem(f"{vocab}: {len(tokenizer)} tokens with [DEC] and [ENC], {expected}")


def add_graph(bundle: Bundle, out: Path | None = None) -> Bundle:
    """Add the two graphs to the bundle, in place or at `out`."""
    target = out or bundle.path
    require_bundle(target)
    model = load_model(bundle, captioning=False)
    with BundleWriter(target) as writer:
        writer.copy_files(bundle, without={PHOTO_GRAPH, LABEL_GRAPH})
        export_graphs(model, bundle.preprocess.size, writer.path)
    return Bundle.open(target)
