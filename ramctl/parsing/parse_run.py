"""`ramctl parse`: captions to tagged records, or to a label system."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ramctl.captions.caption_formats import group_by_image, read_captions_of
from ramctl.captions.source import Columns
from ramctl.errors import UsageProblem
from ramctl.parsing.stage import (
    BATCH,
    COUNTED,
    ParseStage,
    build_label_file,
    encode_tags,
    ram_encoder,
)
from ramctl.records.files import is_folder, output_lock
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.labels import Labels
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import JSONL, Format, StreamOptions, run_stream


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """The options of `ramctl parse`, with their defaults."""

    inputs: tuple[str, ...] = ()  # none or `-`: stdin
    root: str | None = None
    source_format: str | None = None  # None: recognised
    columns: Columns = field(default_factory=Columns)
    group: bool = False
    labels: Labels | None = None  # give only these
    build_labels: Path | None = None
    review: Path | None = None
    merge: tuple[Path, ...] = ()  # class lists whose names become labels
    size: int | None = None  # labels
    target_format: str = "jsonl"
    keep_tags: bool = False
    explain: bool = False
    workers: int | None = None  # all cores
    stream: StreamOptions = field(default_factory=lambda: StreamOptions(batch=BATCH))
    quiet: bool = False


def run(options: ParseOptions) -> Report:
    """Parse the captions and write records or a label system; returns the report of the run."""
    _check(options)
    report = Report("parse", quiet=options.quiet, counted=COUNTED)
    labels = options.labels
    inputs = inputs_or_stdin(options.inputs, "captions")
    require_files([name for name in inputs if not is_folder(name)])  # folders hold texts of photos
    tags = labels.tags if labels else ()
    read = partial(
        read_captions_of, root=options.root, stage="parse",
        form=options.source_format, labels=tags, columns=options.columns,
    )  # fmt: skip
    items = options.stream.shard.of(read(inputs))
    if options.group:
        items = group_by_image(items, "parse")
    if options.build_labels:
        stream = options.stream
        with (
            output_lock(options.build_labels, options.review),
            Rejects(report, stream.rejects, strict=stream.strict) as rejects,
        ):
            build_label_file(
                items, rejects, options.build_labels,
                review=options.review, merge=options.merge, size=options.size,
                jobs=options.workers,
            )  # fmt: skip
        report.finish(options.stream.stats)
        return report
    to_ram = options.target_format == "ram"
    stage = ParseStage(
        labels, options.workers, options.keep_tags, options.explain, to_ram,
        strict=options.stream.strict,
    )  # fmt: skip
    report.extra = stage.stats
    form = Format(encode=encode_tags) if options.target_format == "tags" else JSONL
    if to_ram and labels is not None:
        form = Format(b"[\n", ram_encoder(labels), lambda: (b"\n]\n",))
    fingerprint = {"labels": labels.sha256} if labels else {}
    if options.target_format == "tags":
        fingerprint["form"] = "tags"
    settings = {
        "keep_tags": options.keep_tags, "explain": options.explain,
        "image_column": options.columns.image, "caption_column": options.columns.caption,
    }  # fmt: skip
    fingerprint |= {name: str(v) for name, v in settings.items() if v}
    return run_stream(report, items, stage, options.stream, fingerprint=fingerprint, form=form)


def _check(options: ParseOptions) -> None:
    for name in ("review", "merge", "size"):
        if getattr(options, name) and not options.build_labels:
            raise UsageProblem(f"--{name} needs --build-labels")
    if options.build_labels and options.labels:
        message = "--build-labels builds a label system, --labels uses one: give one of them"
        raise UsageProblem(message)
    to_ram = options.target_format == "ram"
    whole = {"--group": options.group, "--build-labels": options.build_labels, "-f ram": to_ram}
    for name, is_given in whole.items():
        if is_given and not options.stream.shard.is_all:
            raise UsageProblem(f"{name} needs all records in one run, so not with --shard")
    if options.explain and options.target_format != "jsonl":
        raise UsageProblem(f"-f {options.target_format} has no place for what --explain adds")
    if to_ram:
        if not options.labels:
            raise UsageProblem("-f ram needs --labels: the tag list that its ids refer to")
        if options.stream.resume:
            raise UsageProblem("-f ram writes one JSON list, which --resume cannot continue")
