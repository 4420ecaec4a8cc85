"""`ramctl convert`: checkpoints to bundles, bundles to ONNX graphs.

It stands above `checkpoints` because it needs `training` to validate an int8 graph, and `parsing`
for the kinds of labels.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    CALIBRATION,
    CARD,
    GRAPH,
    INT8_GRAPH,
    INT8_THRESHOLDS,
    TEXT_FOLDER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    BundleWriter,
    embedded_bundle,
    file_sha256,
    missing_model,
    model_shelf,
    require_bundle,
    resolve_model,
    write_meta,
)
from ramctl.checkpoints.load import load_model, write_model
from ramctl.checkpoints.official import Architecture, convert_official, read_official
from ramctl.checkpoints.onnx_graph import export_graph, export_int8_graph
from ramctl.config import given_options
from ramctl.decide.calibration import NEVER
from ramctl.decide.fitting import Judged, choose_thresholds
from ramctl.decide.thresholds import read_thresholds
from ramctl.engine.runner import ModelPhoto
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.caption_tokenizer import CaptionTokenizer, bert_tokenizer
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import CaptioningConfig
from ramctl.parsing.closed_mode import label_kinds
from ramctl.parts import __version__
from ramctl.photos.decoding import record_photo
from ramctl.photos.finding import PhotoInputs, unread_photo_inputs
from ramctl.pretrained.hub import HUB, download, fetch_folder, local_path
from ramctl.pretrained.known import KNOWN
from ramctl.records.files import output_lock, remove_folder
from ramctl.records.inputs import read_inputs
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, Record
from ramctl.records.report import Report
from ramctl.tagging.tagger import open_runner
from ramctl.tagging.tagger_options import TaggerOptions
from ramctl.text.clip import ClipTextEncoder
from ramctl.training.data.targets import Targets, read_annotation
from ramctl.training.validation import PhotoScores, Scored, truth_of

CLIP = "hf://openai/clip-vit-base-patch16"  # embeds the authors' label queries
THRESHOLD = 0.68  # the authors' class_threshold, for labels without their own

# The authors' tags (their repository, Apache-2.0) with their thresholds, RAM's with Chinese names.
# Tag2Text's are things and scenes, then actions, then attributes (the authors' issue 150). Tags of
# threshold 1 are never predicted, because they spoil captions (tag2text.py).
LISTS = Path(str(files("ramctl.checkpoints") / "labels"))

OF_CHECKPOINT = ("arch", "tags", "thresholds", "vocab", "text_encoder")  # options
CALIBRATION_PHOTOS = 128  # to measure the ranges of an int8 graph on
CALIBRATION_BATCH = 4
MAX_LOSS = 0.003  # mAP; an int8 graph that loses less becomes the default
DIGITS = 4
Result = TypeVar("Result")


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
    dtype: str = "fp32"  # of the graph
    calibrate: str | None = None
    val: str | None = None
    root: str | None = None
    quiet: bool = False
    argv: tuple[str, ...] = ()  # the command line, for the bundle's provenance
    inherited: Collection[str] = ()  # fields that the command line leaves out


def run(options: ConvertOptions) -> Report:
    """Convert, or add a graph; return the report of the run."""
    report = Report("convert", quiet=options.quiet)
    if options.dtype != "int8" and (options.calibrate or options.val):
        raise UsageProblem("--calibrate and --val need --to onnx --dtype int8")
    has_graph = options.dtype == "int8" or options.target is not None
    if has_graph and (idle := given_options(options, OF_CHECKPOINT)):
        raise UsageProblem(f"{idle[0]}: not with --to onnx")
    if has_graph:
        bundle = Bundle.open(resolve_model(options.source))
        if options.out is None and bundle.path == embedded_bundle():
            raise UsageProblem("the embedded model is part of this program: give --out DIR")
        if options.dtype == "int8":
            bundle, graph = _add_int8_graph(bundle, options, report), INT8_GRAPH
        else:
            bundle, graph = add_graph(bundle, options.out), GRAPH
        size = bundle.file_sizes[graph] / 1e6
        report.notify(f"{bundle.path}: wrote {graph} ({size:.1f} MB without the shared weights)")
    elif options.arch is None and options.source in KNOWN:
        install(options, report)
    else:
        bundle = convert_checkpoint(options)
        model = bundle.preset.model
        report.notify(f"{bundle.path}: {len(bundle.labels)} labels, {model.encoder.backbone}")
        if model.captioning is None and (options.arch != "ram-plus" or options.vocab):
            report.notify("no captions: the checkpoint has no captioning branch")
        elif model.captioning is not None and not bundle.has(TOKENIZER):
            report.notify("no captions: the vocabulary is not BERT's; name it by --vocab FILE")
    return report


def convert_checkpoint(options: ConvertOptions) -> Bundle:
    """Convert an authors' checkpoint to a bundle at `out`.

    Tags keep their spelling, order and duplicates. RunProblem names the file and key that do not
    fit.
    """
    arch, out = options.arch, options.out
    if arch is None or out is None:
        missing = "--arch" if out else "--out" if arch else "--arch, --out"
        raise UsageProblem(f"add {missing} to convert a checkpoint, or --to onnx for a bundle")
    checkpoint = local_path(options.source)
    require_bundle(out)
    labels = read_official_labels(options.tags, arch, options.thresholds)
    preset, model = convert_official(arch, read_official(checkpoint), len(labels))
    tokenizer = _tokenizer(options.vocab, preset.model.captioning)
    with BundleWriter(out) as writer:
        labels.write(writer.path / LABELS)
        if arch != "tag2text":  # whose queries are learnt, not embedded
            ClipTextEncoder(options.text_encoder, arch).save(writer.path / TEXT_FOLDER)
        writer.meta = write_model(writer.path, preset, model, tokenizer) | {
            "thresholds": {"threshold": THRESHOLD, "open_set_threshold": preset.open_set_threshold},
            "provenance": {
                "command": ["ramctl", *options.argv],
                "checkpoint": {
                    "name": checkpoint.name,
                    "bytes": checkpoint.stat().st_size,
                    "sha256": file_sha256(checkpoint),
                },
                "versions": {"ramctl": __version__},
            },
        }
        card = f"""---
library_name: ramctl
pipeline_tag: image-classification
tags: [image-tagging, recognize-anything]
license: apache-2.0
---
# {checkpoint.stem}

{preset.description}. Converted from the authors' checkpoint `{checkpoint.name}`
(github.com/xinyu1205/recognize-anything, Apache-2.0); {len(labels)} labels in the authors' order,
photos of {preset.preprocess.size} px. Training data, intended use and limits are those of the
original; the paper names counting, fine-grained classes and the bias of its data as limits.
"""
        (writer.path / CARD).write_text(card, "utf-8")
    return Bundle.open(out)


def install(options: ConvertOptions, report: Report) -> None:
    """Download the known model `source`, so that `--model` finds it; nothing if it is here.

    A checkpoint becomes a bundle, at `out` or in the folder of models; a peer stays in the hub's
    cache. A stopped download continues. RunProblem for a checkpoint that is not the published one,
    which is kept under another name.
    """
    known = KNOWN[options.source]
    if missing_model(known.name) is None and options.out is None:
        report.notify(f"{known.name} is on this machine: use --model {known.name}")
        return
    report.notify(f"{known.name}: {known.offer}; if stopped, the same command continues")
    if known.peer:
        folder = fetch_folder(known.repository, known.file)
        report.notify(f"{folder}: use --model {known.name} --labels FILE")
        return
    out = options.out or model_shelf() / known.name
    require_bundle(out)  # before gigabytes are fetched
    work = out.with_name(f".{out.name}.ramctl-download")
    work.mkdir(parents=True, exist_ok=True)
    with output_lock(work, notify=report.notify):
        checkpoint = known.cached() or work / known.file
        if not checkpoint.exists():
            url = f"{HUB}{known.repository}/{known.file}"
            with report.progress(None, unit="MiB", total=known.size >> 20) as count:
                download(url, checkpoint, lambda n_bytes: count(n_bytes >> 20))
        if known.sha256 not in (None, file_sha256(checkpoint)):
            if checkpoint.parent == work:
                checkpoint = checkpoint.replace(checkpoint.with_suffix(".wrong"))
            raise RunProblem(f"{checkpoint}: not the published file (its SHA-256 differs)")
        bundle = convert_checkpoint(
            replace(options, source=str(checkpoint), arch=cast(Architecture, known.name), out=out)
        )
        remove_folder(work)
    name = known.name if options.out is None else out.absolute()
    report.notify(f"{bundle.path}: {len(bundle.labels)} labels; use --model {name}")


def read_official_labels(
    tags: str | None, arch: Architecture, thresholds: str | None = None
) -> LabelSystem:
    """Read the authors' tag list, or another one, with kinds and known thresholds.

    Their plain list, named as a file, has the kinds, names and thresholds of the one shipped.
    """
    shipped = LabelSystem.read(LISTS / f"{arch.removesuffix('-plus')}.jsonl")
    tag_list = LabelSystem.read(local_path(tags)) if tags else shipped
    is_theirs = list(tag_list) == list(LabelSystem.from_tags(shipped.tags))
    labels = list(shipped if is_theirs else tag_list)
    if all(label.kind == "object" for label in labels):  # a plain list
        pairs = zip(labels, label_kinds(tag_list), strict=True)
        labels = [replace(label, kind=kind) for label, kind in pairs]
    if thresholds is not None:
        values = read_thresholds(local_path(thresholds), LabelSystem(labels), THRESHOLD)
        labels = [
            replace(label, threshold=value) for label, value in zip(labels, values, strict=True)
        ]
    return LabelSystem(labels)


def _tokenizer(vocab: str | None, captioning: CaptioningConfig | None) -> CaptionTokenizer | None:
    if captioning is None:
        return None
    vocabulary = None if vocab is None else local_path(vocab)
    tokenizer = CaptionTokenizer(bert_tokenizer(vocabulary), captioning)
    if len(tokenizer) == captioning.vocabulary:
        return tokenizer
    if vocabulary is None:  # the checkpoint is not a published one
        return None
    raise RunProblem(
        f"{vocabulary}: {len(tokenizer)} tokens with [DEC] and [ENC], "
        f"the checkpoint has {captioning.vocabulary}"
    )


def add_graph(bundle: Bundle, out: Path | None = None) -> Bundle:
    """Add `model.onnx` to the bundle, in place or at `out`."""
    target = bundle.path if out is None else out
    require_bundle(target)
    model = load_model(bundle, captioning=False)
    size = bundle.preprocess.size
    with BundleWriter(target) as writer:
        writer.copy_files(bundle, without={GRAPH})
        export_graph(model, size, writer.path / GRAPH, weights=writer.path / WEIGHTS)
    return Bundle.open(target)


def _add_int8_graph(bundle: Bundle, options: ConvertOptions, report: Report) -> Bundle:
    """Add `model.int8.onnx` to the bundle, in place or at `out`.

    `val` chooses the graph's thresholds and the bundle's default number format.
    """
    if options.target is None or options.calibrate is None:
        raise UsageProblem("--dtype int8 needs --to onnx and --calibrate PHOTOS")
    target = bundle.path if options.out is None else options.out
    require_bundle(target)
    preprocess = Preprocess(bundle.preset.preprocess)
    size, official = preprocess.config.size, preprocess.config.loader == "official"
    inputs = PhotoInputs([options.calibrate], options.root, recursive=True, stage="convert")
    items = (make() for make in unread_photo_inputs(inputs))
    records = [item for item in items if isinstance(item, Record)]
    sample = records[:: max(1, len(records) // CALIBRATION_PHOTOS)][:CALIBRATION_PHOTOS]

    def prepare(record: Record) -> NDArray[np.uint8]:
        return preprocess.resize(record_photo(record, target=size, official=official))

    photos = list(_accepted(sample, prepare))
    if not photos:
        raise RunProblem(f"{options.calibrate}: no photo in it can be read")
    model = load_model(bundle, captioning=False)
    with BundleWriter(target) as writer:
        writer.copy_files(bundle, without={INT8_GRAPH, INT8_THRESHOLDS})
        writer.meta.pop("dtype", None)
        batches = (preprocess.normalise(np.stack(p)) for p in chunks(photos, CALIBRATION_BATCH))
        path, weights = writer.path / INT8_GRAPH, writer.path / WEIGHTS
        export_int8_graph(model, size, path, batches, weights=weights)
        if options.val is not None:
            _validate(writer, options.val, options.root, report)
    return Bundle.open(target)


def _validate(writer: BundleWriter, validation: str, root: str | None, report: Report) -> None:
    """Compare both graphs on held-out photos; write thresholds and the default number format."""
    write_meta(writer.path, writer.meta)
    bundle = Bundle.open(writer.path)
    fp32, int8 = (_score(bundle, validation, root, dtype) for dtype in ("fp32", "int8"))
    known = np.array([label.validated for label in bundle.labels])
    before, after = (scored.mean_average_precision(known) for scored in (fp32, int8))
    # Thresholds for a precision come from the calibration, which serves both graphs.
    if not (bundle.has(CALIBRATION) and bundle.preset.precision):
        right, is_known = int8.truth == POSITIVE, int8.truth != UNKNOWN
        judged = Judged(int8.scores.astype(np.float64), right, is_known)
        thresholds = np.where(
            known, choose_thresholds(judged, known, bundle.preset).thresholds, NEVER
        )
        lines = [f"{round(float(value), DIGITS)}\n" for value in thresholds]
        (writer.path / INT8_THRESHOLDS).write_text("".join(lines), encoding="utf-8")
    default = writer.meta["dtype"] = "int8" if before - after < MAX_LOSS else "fp32"
    measured = {"validation": validation, "photos": len(fp32.scores)}
    measured |= {"mAP_fp32": round(before, DIGITS), "mAP_int8": round(after, DIGITS)}
    writer.meta["provenance"] = writer.meta.get("provenance", {}) | {"int8": measured}
    report.notify(
        f"mAP on {len(fp32.scores)} photos: fp32 {before:.4f}, int8 {after:.4f}; "
        f"the default is now {default} (int8 must lose less than {MAX_LOSS})"
    )


def _score(bundle: Bundle, validation: str, root: str | None, dtype: str) -> Scored:
    options = TaggerOptions(dense=True, dtype=dtype, device="cpu")
    runner, targets = open_runner(bundle, options)[0], Targets(bundle.labels)

    def prepare(record: Record) -> tuple[ModelPhoto, NDArray[np.int8]]:
        truth = truth_of(read_annotation(record), targets)
        return runner.to_model(runner.decode(record)), truth

    def work(photos: list[tuple[ModelPhoto, NDArray[np.int8]]]) -> Iterator[PhotoScores]:
        scores, _ = runner.scores_of([photo for photo, _ in photos])
        return zip(scores, (truth for _, truth in photos), strict=True)

    items = read_inputs([validation], root, "convert")
    batches = chunks((item for item in items if isinstance(item, Record)), runner.batch)
    outcomes = chain.from_iterable(runner.run(batches, prepare, work))
    scored = [outcome for outcome in outcomes if not isinstance(outcome, RecordProblem)]
    if not scored:
        raise RunProblem(f"{validation}: no record has tags and a photo that can be read")
    return Scored.of(scored, targets)


def _accepted(records: Iterable[Item], prepare: Callable[[Record], Result]) -> Iterator[Result]:
    """The results of `prepare` for the records that it does not reject."""
    results = (attempt(prepare, record) for record in records if isinstance(record, Record))
    return (result for result in results if not isinstance(result, RecordProblem))
