"""`ramctl tag`: photos in, records out."""

import sys
from dataclasses import dataclass, field, replace

from ramctl.errors import UsageProblem
from ramctl.inference.tagger import TaggerOptions
from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.inputs import inputs_or_stdin
from ramctl.records.output_formats import line_format
from ramctl.records.report import Report
from ramctl.records.stream import StreamOptions, run_stream


@dataclass(frozen=True, slots=True)
class TagOptions:
    """The options of `ramctl tag`."""

    inputs: tuple[str, ...] = ()  # photos, folders, archives, records; none or `-`: stdin
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    model: str = "mini"
    tagger: TaggerOptions = field(default_factory=TaggerOptions)
    format: str = ""  # of FORMATS; empty: what suits the output
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: TagOptions) -> Report:
    """Tag the photos; the report of the run."""
    stream = options.stream
    on_terminal = stream.output is None and sys.stdout is not None and sys.stdout.isatty()
    needs_fields = options.tagger.dense or options.tagger.embedding or options.tagger.boxes
    form = options.format or ("table" if on_terminal and not needs_fields else "jsonl")
    if needs_fields and form not in ("jsonl", "parquet"):
        raise UsageProblem(f"--dense, --embedding and --boxes need -f jsonl or parquet, not {form}")
    if options.tagger.caption and form == "text":
        raise UsageProblem("--caption needs -f jsonl, parquet, csv or table, not text")
    if form == "parquet" and (stream.resume or on_terminal):
        raise UsageProblem("-f parquet needs -o FILE, whose end cannot be continued by --resume")
    report = Report("tag", quiet=options.quiet, unit="images")
    names = inputs_or_stdin(options.inputs, "photos")
    photos = replace(options.photos, names=names, skipped=report.counts)
    source = stream.shard.of(photo_items(photos))
    from ramctl.inference.tagger import Tagger  # after the checks, as it takes a while

    tagger = Tagger.open(options.model, replace(options.tagger, notify=report.notify))
    report.device = tagger.description
    written = line_format(form, caption=options.tagger.caption)
    # Of dense scores only the first line names the labels: they are as long as the scores.
    lists_labels = options.tagger.dense and form in ("jsonl", "parquet")
    header = iter([{"label_names": tagger.vocabulary.columns[0]}] if lists_labels else [])
    return run_stream(
        report, source, tagger.stage, replace(stream, batch=tagger.batch),
        fingerprint=tagger.fingerprint | {"-f": form},
        form=written._replace(encode=lambda fields: written.encode(fields | next(header, {}))),
    )  # fmt: skip
