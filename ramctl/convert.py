"""`ramctl convert`: checkpoints to bundles, bundles to ONNX graphs, the card of a bundle.

It is not part of `checkpoints` because an int8 graph is judged as `training` judges a model, and
labels have the kinds that `parsing` gives them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from ramctl.checkpoints.bundle import GRAPH, INT8_GRAPH, TOKENIZER, Bundle, resolve_model
from ramctl.checkpoints.convert import (
    CLIP,
    Checkpoint,
    add_graph,
    convert_checkpoint,
    describe_bundle,
)
from ramctl.checkpoints.official import Architecture
from ramctl.errors import UsageProblem
from ramctl.parsing.closed_mode import label_kinds
from ramctl.pretrained.hub import local_path
from ramctl.records.report import Report
from ramctl.training.quantise import MOST_LOST, add_int8_graph


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What `ramctl convert` is asked for; a file may be named `hf://owner/name:file`."""

    source: str  # the authors' checkpoint, or a bundle
    arch: Architecture | None = None
    tags: str | None = None
    thresholds: str | None = None
    vocab: str | None = None
    translations: str | None = None
    text_encoder: str = CLIP
    out: Path | None = None
    target: str | None = None  # `onnx`: add a graph to a bundle
    dtype: str = "fp32"  # of the graph
    calibrate: str | None = None
    val: str | None = None
    root: str | None = None
    info: bool = False
    quiet: bool = False
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance


def run(options: ConvertOptions) -> Report:
    """Convert, or print the card of a bundle on stdout; the report of the run."""
    report = Report("convert", quiet=options.quiet)
    if options.dtype != "int8" and (options.calibrate or options.val):
        raise UsageProblem("--calibrate and --val need --to onnx --dtype int8")
    if options.info:
        bundle = Bundle.open(resolve_model(options.source), verify=True)
        sys.stdout.write("\n".join(describe_bundle(bundle)) + "\n")
    elif options.dtype == "int8":
        _add_int8_graph(options, report)
    elif options.target is not None:
        bundle = add_graph(Bundle.open(resolve_model(options.source)), options.out)
        _tell_size(report, bundle, GRAPH)
    else:
        _convert(options, report)
    return report


def _add_int8_graph(options: ConvertOptions, report: Report) -> None:
    if options.target is None or options.calibrate is None:
        raise UsageProblem("--dtype int8 needs --to onnx and --calibrate PHOTOS")
    opened = Bundle.open(resolve_model(options.source))
    bundle, verdict = add_int8_graph(
        opened, options.calibrate, options.val, options.root, options.out
    )
    _tell_size(report, bundle, INT8_GRAPH)
    if verdict is not None:
        report.say(
            f"mAP on {verdict.photos} photos: fp32 {verdict.fp32:.4f}, int8 {verdict.int8:.4f}; "
            f"the default is now {bundle.dtype} (int8 must lose less than {MOST_LOST})"
        )


def _tell_size(report: Report, bundle: Bundle, graph: str) -> None:
    size = bundle.file_sizes[graph] / 1e6
    report.say(f"{bundle.path}: wrote {graph} ({size:.1f} MB besides the shared weights)")


def _convert(options: ConvertOptions, report: Report) -> None:
    arch, tags, out = options.arch, options.tags, options.out
    if arch is None or tags is None or out is None:
        named = {"--arch": arch, "--tags": tags, "--out": out}
        missing = ", ".join(name for name, value in named.items() if value is None)
        raise UsageProblem(f"a checkpoint needs {missing}; a bundle --to onnx or --info")
    checkpoint = Checkpoint(
        local_path(options.source),
        arch,
        local_path(tags),
        thresholds=_path(options.thresholds),
        vocabulary=_path(options.vocab),
        translations=_path(options.translations),
        text_encoder=options.text_encoder,
    )
    bundle = convert_checkpoint(checkpoint, out, ("ramctl", *options.argv), label_kinds)
    model = bundle.preset.model
    report.say(f"{out}: {len(bundle.labels)} labels, {model.encoder.backbone}")
    if model.captioning is None and (arch != "ram-plus" or options.vocab):
        report.say("the checkpoint has no captioning branch: the bundle writes no captions")
    elif model.captioning is not None and not bundle.has(TOKENIZER):
        report.say("its vocabulary is not BERT's: without --vocab the bundle writes no captions")


def _path(name: str | None) -> Path | None:
    return None if name is None else local_path(name)
