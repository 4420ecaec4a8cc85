"""`ramctl convert`: checkpoints to bundles, bundles to ONNX graphs, the card of a bundle.

It is not part of `checkpoints` because an int8 graph is judged as `training` judges a model, and
labels have the kinds that `parsing` gives them.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.calibration import NEVER, Judged
from ramctl.checkpoints.bundle import (
    CALIBRATION,
    CARD,
    GRAPH,
    INT8_GRAPH,
    INT8_THRESHOLDS,
    META,
    TEXT_FOLDER,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    BundleWriter,
    file_sha256,
    require_bundle,
    resolve_model,
    write_meta,
)
from ramctl.checkpoints.load import load_model, write_model
from ramctl.checkpoints.official import Architecture, convert_official, read_official
from ramctl.checkpoints.onnx_graph import export_graph, export_int8_graph
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.evaluation.metrics import POSITIVE, UNKNOWN
from ramctl.labels import LABELS, LabelSystem, read_thresholds
from ramctl.model.caption_tokenizer import CaptionTokenizer, bert_tokenizer
from ramctl.model.config import CaptioningConfig
from ramctl.model.preprocess import Preprocess
from ramctl.parsing.closed_mode import label_kinds
from ramctl.parts import __version__
from ramctl.photos.decoding import record_photo
from ramctl.photos.finding import PhotoInputs, read_photo_inputs
from ramctl.pretrained.hub import local_path
from ramctl.records.files import read_lines
from ramctl.records.inputs import read_inputs
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, Record
from ramctl.records.report import Report
from ramctl.tagging.scorers import BundleScorer, TaggerOptions
from ramctl.text.clip import ClipTextEncoder
from ramctl.training.data.targets import Targets, read_annotation
from ramctl.training.validation import Scored, choose_thresholds, score_blocks, truth_of

CLIP = "hf://openai/clip-vit-base-patch16"  # the authors' label queries come from it
THRESHOLD = 0.68  # the authors' class_threshold where no file says otherwise

# Tag2Text's own list: things and scenes first, then actions, then attributes (the authors' issue
# 150), and the authors' thresholds by id (tag2text.py).
TAG2TEXT_LABELS = 3429
_ACTIONS, _ATTRIBUTES = range(3012, 3252), range(3252, 3429)
_CAREFUL = {2701: 0.7, 2828: 0.7, 1167: 0.7}  # person, man, woman
# quarter, back, numbers: the authors never give them, because they spoil captions
_NEVER = (127, 2961, 3351, 3265, 3338, 3355, 3359)

CALIBRATION_PHOTOS = 128  # give the ranges of an int8 graph
CALIBRATION_BATCH = 4
MOST_LOST = 0.003  # mAP; an int8 graph that loses less becomes the default
DIGITS = 4
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What `ramctl convert` is asked for; a file may be named `hf://owner/name:file`."""

    source: str  # the authors' checkpoint, or a bundle
    arch: Architecture | None = None
    tags: str | None = None
    thresholds: str | None = None
    vocab: str | None = None  # of the captioning branch
    translations: str | None = None  # Chinese names, one per line in id order
    text_encoder: str = CLIP  # what embeds new words: a folder, or hf://owner/name
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
    elif options.dtype == "int8" or options.target is not None:
        bundle = Bundle.open(resolve_model(options.source))
        if options.dtype == "int8":
            bundle, graph = _add_int8_graph(bundle, options, report), INT8_GRAPH
        else:
            bundle, graph = add_graph(bundle, options.out), GRAPH
        size = bundle.file_sizes[graph] / 1e6
        report.say(f"{bundle.path}: wrote {graph} ({size:.1f} MB besides the shared weights)")
    else:
        bundle = convert_checkpoint(options)
        model = bundle.preset.model
        report.say(f"{bundle.path}: {len(bundle.labels)} labels, {model.encoder.backbone}")
        if model.captioning is None and (options.arch != "ram-plus" or options.vocab):
            report.say("the checkpoint has no captioning branch: the bundle writes no captions")
        elif model.captioning is not None and not bundle.has(TOKENIZER):
            effect = "without --vocab the bundle writes no captions"
            report.say(f"its vocabulary is not BERT's: {effect}")
    return report


def convert_checkpoint(options: ConvertOptions) -> Bundle:
    """The bundle of an authors' checkpoint, written to `out`.

    Tags keep their spelling, order and duplicates. Raises RunProblem that names the file and key
    that do not fit.
    """
    arch, tags, out = options.arch, options.tags, options.out
    if arch is None or tags is None or out is None:
        named = {"--arch": arch, "--tags": tags, "--out": out}
        missing = ", ".join(name for name, value in named.items() if value is None)
        raise UsageProblem(f"a checkpoint needs {missing}; a bundle --to onnx or --info")
    checkpoint = local_path(options.source)
    require_bundle(out)
    labels = read_official_labels(arch, local_path(tags), options.thresholds, options.translations)
    preset, model = convert_official(arch, read_official(checkpoint), len(labels))
    tokenizer = _tokenizer(options.vocab, preset.model.captioning)
    with BundleWriter(out) as writer:
        labels.write(writer.path / LABELS)
        if arch != "tag2text":  # its queries are learnt, not embedded
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
        card = f"""# {checkpoint.stem}

{preset.description}. Converted from the authors' checkpoint `{checkpoint.name}`
(github.com/xinyu1205/recognize-anything, Apache-2.0); {len(labels)} labels in the authors' order,
photos of {preset.preprocess.size} px. Training data, intended use and limits are those of the
original; the paper names counting, fine-grained classes and the bias of its data as limits.
"""
        (writer.path / CARD).write_text(card, "utf-8")
    return Bundle.open(out)


def read_official_labels(
    arch: Architecture, tags: Path, thresholds: str | None = None, translations: str | None = None
) -> LabelSystem:
    """The authors' tag list, with kinds, thresholds and Chinese names where they are known."""
    listed = LabelSystem.read(tags)
    labels = list(listed.labels)
    if all(label.kind == "object" for label in labels):  # a plain list
        judged = zip(labels, label_kinds(listed), strict=True)
        labels = [replace(label, kind=kind) for label, kind in judged]
    if arch == "tag2text" and len(labels) == TAG2TEXT_LABELS:
        for index, label in enumerate(labels):
            # Its order tells the kind, where a double is another meaning.
            kind = "scene" if label.kind == "scene" else "object"
            if index in _ACTIONS or index in _ATTRIBUTES:
                kind = "action" if index in _ACTIONS else "attribute"
            labels[index] = replace(label, kind=kind)
        if thresholds is None:
            for index, threshold in (_CAREFUL | dict.fromkeys(_NEVER, 1.0)).items():
                labels[index] = replace(labels[index], threshold=threshold)
    if thresholds is not None:
        values = read_thresholds(local_path(thresholds), LabelSystem(labels), THRESHOLD)
        pairs = zip(labels, values, strict=True)
        labels = [replace(label, threshold=value) for label, value in pairs]
    if translations is not None:
        names = [line.strip() for line in read_lines(local_path(translations))]
        if len(names) != len(labels):
            raise RunProblem(f"{translations}: {len(names)} lines for {len(labels)} tags")
        named = zip(labels, names, strict=True)
        labels = [replace(label, names={"zh": name}) for label, name in named]
    return LabelSystem(labels)


def _tokenizer(vocab: str | None, captioning: CaptioningConfig | None) -> CaptionTokenizer | None:
    if captioning is None:
        return None
    vocabulary = None if vocab is None else local_path(vocab)
    tokenizer = CaptionTokenizer(bert_tokenizer(vocabulary), captioning)
    if len(tokenizer) == captioning.vocabulary:
        return tokenizer
    if vocabulary is None:  # not the model as published
        return None
    raise RunProblem(
        f"{vocabulary}: {len(tokenizer)} tokens with [DEC] and [ENC], "
        f"the checkpoint has {captioning.vocabulary}"
    )


def add_graph(bundle: Bundle, out: Path | None = None) -> Bundle:
    """The bundle with `model.onnx`, in place or at `out`; its files are linked, not copied."""
    target = bundle.path if out is None else out
    require_bundle(target)
    model = load_model(bundle, captioning=False)
    size = bundle.preprocess.size
    with BundleWriter(target) as writer:
        writer.link_files(bundle, without={GRAPH})
        export_graph(model, size, writer.path / GRAPH, weights=writer.path / WEIGHTS)
    return Bundle.open(target)


def _add_int8_graph(bundle: Bundle, options: ConvertOptions, report: Report) -> Bundle:
    """The bundle with `model.int8.onnx`, in place or at `out`.

    With `val`, thresholds are picked for this graph and the bundle names the default number format;
    without it both stay.
    """
    if options.target is None or options.calibrate is None:
        raise UsageProblem("--dtype int8 needs --to onnx and --calibrate PHOTOS")
    target = bundle.path if options.out is None else options.out
    require_bundle(target)
    preprocess = Preprocess(bundle.preset.preprocess)
    size, official = preprocess.config.size, preprocess.config.loader == "official"
    inputs = PhotoInputs([options.calibrate], options.root, recursive=True, stage="convert")
    records = [item for item in read_photo_inputs(inputs) if isinstance(item, Record)]
    some = records[:: max(1, len(records) // CALIBRATION_PHOTOS)][:CALIBRATION_PHOTOS]

    def prepare(record: Record) -> NDArray[np.uint8]:
        return preprocess.resize(record_photo(record, target=size, official=official))

    photos = list(_good(some, prepare))
    if not photos:
        raise RunProblem(f"{options.calibrate}: none of its photos can be read")
    model = load_model(bundle, captioning=False)
    with BundleWriter(target) as writer:
        writer.link_files(bundle, without={INT8_GRAPH, INT8_THRESHOLDS})
        writer.meta.pop("dtype", None)
        batches = (preprocess.normalise(np.stack(p)) for p in chunks(photos, CALIBRATION_BATCH))
        path, weights = writer.path / INT8_GRAPH, writer.path / WEIGHTS
        export_int8_graph(model, size, path, batches, weights=weights)
        if options.val is not None:
            _judge(writer, options.val, options.root, report)
    return Bundle.open(target)


def _judge(writer: BundleWriter, validation: str, root: str | None, report: Report) -> None:
    """Score held-out photos by both graphs; write thresholds and the better one to the bundle."""
    write_meta(writer.path, writer.meta)
    bundle = Bundle.open(writer.path)
    fp32, int8 = (_score(bundle, validation, root, dtype) for dtype in ("fp32", "int8"))
    known = np.array([label.validated for label in bundle.labels])
    before, after = (scored.mean_average_precision(known) for scored in (fp32, int8))
    # Thresholds for a precision come from the calibration, which is told of both graphs.
    if not (bundle.has(CALIBRATION) and bundle.preset.precision):
        right, is_known = int8.truth == POSITIVE, int8.truth != UNKNOWN
        judged = Judged(int8.scores.astype(np.float64), right, is_known)
        thresholds = np.where(known, choose_thresholds(judged, known, bundle.preset).own, NEVER)
        lines = [f"{round(float(value), DIGITS)}\n" for value in thresholds]
        (writer.path / INT8_THRESHOLDS).write_text("".join(lines), encoding="utf-8")
    default = writer.meta["dtype"] = "int8" if before - after < MOST_LOST else "fp32"
    measured = {"validation": validation, "photos": len(fp32.scores)}
    measured |= {"mAP_fp32": round(before, DIGITS), "mAP_int8": round(after, DIGITS)}
    writer.meta["provenance"] = writer.meta.get("provenance", {}) | {"int8": measured}
    report.say(
        f"mAP on {len(fp32.scores)} photos: fp32 {before:.4f}, int8 {after:.4f}; "
        f"the default is now {default} (int8 must lose less than {MOST_LOST})"
    )


def _score(bundle: Bundle, validation: str, root: str | None, dtype: str) -> Scored:
    scorer = BundleScorer(bundle, TaggerOptions(dense=True, dtype=dtype, device="cpu"))
    targets = Targets(bundle.labels)

    def prepare(record: Record) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        truth = truth_of(read_annotation(record), targets)
        photo = record_photo(record, target=scorer.target, official=scorer.official)
        return scorer.prepare(photo), truth

    photos = _good(read_inputs([validation], root, "convert"), prepare)
    scored = score_blocks(photos, scorer.scores, scorer.batch, len(targets))
    if not len(scored.scores):
        raise RunProblem(f"{validation}: no record has tags and a photo that can be read")
    return scored


def _good(records: Iterable[Item], prepare: Callable[[Record], Result]) -> Iterator[Result]:
    """What `prepare` makes of the records that it does not reject."""
    tried = (attempt(prepare, record) for record in records if isinstance(record, Record))
    return (made for made in tried if not isinstance(made, RecordProblem))


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
