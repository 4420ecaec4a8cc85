"""`ramctl parse`: captions to tags, and captions to a label system."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ramctl.commands.base import RamctlCommand, option
from ramctl.commands.options import batch, inputs, jobs, root, stream, stream_options
from ramctl.errors import UsageProblem
from ramctl.labels import LabelSystem
from ramctl.readers.detect import FORMATS, read_any
from ramctl.readers.grouping import group_by_image
from ramctl.records.inputs import named_or_stdin, require_files
from ramctl.records.record import Record, Reject
from ramctl.records.report import Report
from ramctl.records.stream import run_stream

HELP = """\
Turn captions into tags, or captions into a label system.

Without --labels any visible thing, place, property or doing may be a tag; with it, the
labels of the system. Input formats are recognised; --from forces one.

Examples:
  ramctl parse captions.jsonl > tagged.jsonl
  ramctl parse --build-labels labels.jsonl --review labels.tsv captions.jsonl
  ramctl parse --labels labels.jsonl --from coco --group captions_val2017.json
"""
EPILOG = """\
Reads captions (or caption); writes tags, caption_tags, kinds, sources; --explain: explain.
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 some records rejected; 130, 143 stopped.
Streams; --build-labels holds four bytes a mention, --group spools text to temporary files.
"""
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=RamctlCommand, name="parse", help=HELP, epilog=EPILOG)
@inputs
@root
@option(
    "--from", "source_format", type=click.Choice(FORMATS), metavar="FORMAT", group="input",
    help=f"Input format [default: recognised]: {', '.join(FORMATS)}.",
)  # fmt: skip
@option("--group", is_flag=True, group="input", help="Join the captions of each image.")
@option(
    "--labels", type=click.Path(path_type=Path), metavar="FILE", group="model",
    help="Label system: labels.jsonl, a bundle or a word list.",
)  # fmt: skip
@option(
    "--build-labels", type=FILE, metavar="FILE", group="output",
    help="Write a label system of all captions to FILE, and no records.",
)  # fmt: skip
@option(
    "--review", type=FILE, metavar="FILE", group="output",
    help="With --build-labels: table of all decisions; edited ones win next time.",
)  # fmt: skip
@option(
    "--to", "target_format", type=click.Choice(["jsonl", "ram"]), default="jsonl",
    show_default=True, group="output", help="ram: the RAM authors' training JSON (--labels).",
)  # fmt: skip
@option(
    "--keep-tags", is_flag=True, group="output",
    help="Keep the tags that come with captions, as human ones.",
)  # fmt: skip
@option(
    "--explain", is_flag=True, group="output",
    help="Say which words and which rule gave each tag.",
)  # fmt: skip
@stream
@jobs
@batch
def command(**options: Any) -> int:
    _check(options)
    report = Report("parse", quiet=options["quiet"])
    labels = LabelSystem.read(options["labels"]) if options["labels"] else None
    named = named_or_stdin(options["inputs"], "captions")
    require_files(named)
    items: Iterator[Record | Reject] = read_any(
        named,
        options["root"],
        "parse",
        form=options["source_format"],
        tag_list=labels.tags if labels else (),
    )
    if options["group"]:
        items = group_by_image(items)
    if options["build_labels"]:
        return _build(items, report, options)
    return _parse(items, report, labels, options)


def _check(options: dict[str, Any]) -> None:
    if options["review"] and not options["build_labels"]:
        raise UsageProblem("--review goes with --build-labels")
    if options["build_labels"] and options["labels"]:
        raise UsageProblem("--build-labels makes a label system; it does not go with --labels")
    if options["target_format"] == "ram":
        if not options["labels"]:
            raise UsageProblem("--to ram needs --labels: the tag list that its ids refer to")
        if options["resume"]:
            raise UsageProblem("--to ram writes one JSON list; --resume goes with JSONL")


def _parse(
    items: Iterator[Record | Reject],
    report: Report,
    labels: LabelSystem | None,
    options: dict[str, Any],
) -> int:
    from ramctl.parsing.stage import BATCH, ParseOptions, ParseStage, ram_encoder

    to_ram = options["target_format"] == "ram"
    settings = ParseOptions(
        labels, options["jobs"], options["keep_tags"], options["explain"], needs_image=to_ram
    )
    stage = ParseStage(settings)
    form: dict[str, Any] = {}
    if to_ram and labels is not None:
        form = {"encode": ram_encoder(labels), "header": b"[\n", "footer": b"\n]\n"}
    fingerprint = {"labels": labels.sha256} if labels else {}
    report.extra = stage.stats
    stream_settings = stream_options(options, batch=BATCH)
    run_stream(report, items, stage, stream_settings, fingerprint=fingerprint, **form)
    return report.exit_code


def _build(items: Iterator[Record | Reject], report: Report, options: dict[str, Any]) -> int:
    from ramctl.parsing.stage import build_label_file

    built = build_label_file(
        items,
        report,
        options["build_labels"],
        review=options["review"],
        jobs=options["jobs"],
        strict=options["strict"],
        progress=False if options["quiet"] else options["progress"],
    )
    report.say(f"{len(built.labels)} labels in {options['build_labels']}")
    report.finish(options["stats"])
    return report.exit_code
