"""`ramctl tag`: photos to tags."""

from pathlib import Path
from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand, option

FORMATS = ("jsonl", "text", "csv", "tsv")

HELP = """Turn photos into tags.

Examples:
  ramctl tag photo.jpg
  find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
"""

EPILOG = """
Inputs: photos, folders (-R), *.tar, *.jsonl[.gz] with image; on - a line that starts with { is a
record, any other a path. Writes tags and scores (and dense), by falling score.
Exit: 0 all done, 3 some rejected, 1 failed, 2 usage. Streams: output is flushed a batch at a time.
"""

_TAGGER_OPTIONS = (
    "labels", "threshold", "dense", "runtime", "device", "dtype", "batch", "threads",
)  # fmt: skip
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("tag", cls=RamctlCommand, help=HELP, epilog=EPILOG)
@options.inputs
@option("-R", "--recursive", is_flag=True, group="input", help="Take the photos in folders.")
@option("-0", "--null", is_flag=True, group="input", help="Names on stdin end with NUL.")
@option(
    "--by-content",
    is_flag=True,
    group="input",
    help="--resume knows a photo by content, not by size and time.",
)
@option(
    "--max-pixels",
    type=click.IntRange(1),
    metavar="N",
    group="input",
    help="Reject larger photos [default: 200000000].",
)
@options.root
@option(
    "-f",
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="jsonl",
    show_default=True,
    group="output",
    help="Form of the output.",
)
@option("--dense", is_flag=True, group="output", help="Add the scores of all labels.")
@options.stream
@options.model
@option(
    "--labels",
    metavar="FILE",
    group="model",
    help="Words to look for instead of the model's; +FILE: besides them.",
)
@option(
    "--threshold",
    metavar="NUMBER|FILE",
    group="model",
    help="Give tags above this [default: the model's, per tag].",
)
@option("--top", type=click.IntRange(1), metavar="N", group="model", help="The N best of them.")
@option("--include", type=_file, metavar="FILE", group="model", help="Give only these tags.")
@option("--exclude", type=_file, metavar="FILE", group="model", help="Never give these tags.")
@option("--rename", type=_file, metavar="FILE", group="model", help="Lines of tag<TAB>name.")
@option(
    "--leaf", is_flag=True, group="model", help="Drop a general tag where its special one is given."
)
@option("--lang", metavar="CODE", group="model", help="Tags in this language, where known.")
@option(
    "--runtime",
    type=click.Choice(["auto", "onnx", "torch"]),
    default="auto",
    show_default=True,
    help="What runs the model.",
)
@options.device
@options.dtype
@option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Photos are decoded by N workers [default: cores].",
)
@options.batch
@options.threads
def command(inputs: tuple[str, ...], **given: Any) -> int:
    """Tag the photos; returns the exit code."""
    from ramctl.io.formats import encoder, naming_labels_once
    from ramctl.io.paths import named_or_stdin, with_root_check
    from ramctl.io.photos import PhotoInputs, read_photo_inputs
    from ramctl.io.stream import run_stream
    from ramctl.report import Report

    names = named_or_stdin(inputs, "photos")
    report = Report("tag", quiet=given["quiet"], unit="images")
    tagger = _load(given, report)
    photos = PhotoInputs(
        names, given["root"], given["recursive"], given["null"], given["by_content"]
    )
    stream = options.stream_options(given, batch=tagger.batch)
    header, encode = encoder(given["output_format"])
    if given["dense"] and not stream.continues:
        encode = naming_labels_once(encode, tagger.label_set.labels.tags)
    run_stream(
        report,
        read_photo_inputs(photos),
        with_root_check(tagger.stage),
        stream,
        fingerprint=tagger.fingerprint | {"format": given["output_format"]},
        encode=encode,
        header=header,
    )
    return report.exit_code


def _load(given: dict[str, Any], report: Any) -> Any:
    from ramctl.io.images import MAX_PIXELS
    from ramctl.tagging.choice import unknown_tags
    from ramctl.tagging.tagger import Tagger

    choice = _choice(given)
    tagger = Tagger.load(
        given["model"],
        choice=choice,
        workers=given["jobs"],
        max_pixels=given["max_pixels"] or MAX_PIXELS,
        **{name: given[name] for name in _TAGGER_OPTIONS},
    )
    report.device = tagger.description
    unknown = unknown_tags(tagger.label_set.labels, choice)
    if unknown:
        named = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        report.say(f"{len(unknown)} named tags are not in the label system: {named}")
    return tagger


def _choice(given: dict[str, Any]) -> Any:
    from ramctl.tagging.choice import ChoiceOptions, read_renames, read_tag_list

    include, exclude, rename = given["include"], given["exclude"], given["rename"]
    return ChoiceOptions(
        top=given["top"],
        include=read_tag_list(include) if include else None,
        exclude=read_tag_list(exclude) if exclude else (),
        rename=read_renames(rename) if rename else {},
        leaf=given["leaf"],
        language=given["lang"],
    )
