"""`ramctl tag`: photos to tags."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import click

from ramctl.commands import options, tag_options
from ramctl.commands.base import RamctlCommand

HELP = """Turn photos into tags.

Examples:
  ramctl tag photo.jpg
  find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
"""

EPILOG = """
Inputs: photos, folders (-R), *.tar, *.jsonl[.gz] with image; on - a line that starts with { is a
record, any other a path. Writes tags by falling score, scores, dense, boxes, generated_captions.
Exit: 0 all done, 3 some rejected, 1 failed, 2 usage. Streams: output is flushed a batch at a time.
"""

_TAGGER_OPTIONS = (
    *("labels", "threshold", "dense", "runtime", "device", "dtype", "batch", "threads"),
    *("max_pixels", "boxes", "caption"),
)


_RARE = (
    "by_content", "max_pixels", "root", "xmp_name", "txt_existing", "dry_run", "retry_rejects",
    "strict", "stats", "progress", "verbose", "lock", "dtype", "batch", "threads", "runtime",
    "lang", "rename", "leaf", "show_config", "max_time", "xmp_prefix", "xmp_remove", "quiet",
    "help", "txt", "top",
)  # fmt: skip


@click.command("tag", cls=RamctlCommand, help=HELP, epilog=EPILOG, rare=_RARE)
@options.inputs
@tag_options.input_options
@options.root
@tag_options.output_options
@options.stream
@options.model
@tag_options.model_options
@tag_options.run_options
@tag_options.device
@options.dtype
@options.batch
@options.threads
def command(inputs: tuple[str, ...], **given: Any) -> int:
    """Tag the photos; returns the exit code."""
    from ramctl.photos.finding import PhotoInputs, read_photo_inputs
    from ramctl.records.files import locked
    from ramctl.records.inputs import named_or_stdin
    from ramctl.records.report import Report
    from ramctl.tagging.formats import require_resumable

    require_resumable(given["form"], resume=given["resume"])
    report = Report("tag", quiet=given["quiet"], unit="images")
    photos = PhotoInputs(
        named_or_stdin(inputs, "photos"),
        given["root"],
        given["recursive"],
        given["null"],
        given["by_content"],
    )
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # A damaged photo is told once, in our words.
        warnings.filterwarnings("ignore", module="PIL")
        if given["lock"]:
            stack.enter_context(locked(given["lock"]))
        run = _remove if given["xmp_remove"] else _tag
        run(read_photo_inputs(photos), given, report, stack)
    return report.exit_code


def _tag(source: Any, given: dict[str, Any], report: Any, stack: ExitStack) -> None:
    from ramctl.records.stream import run_stream, watched, with_root_check
    from ramctl.tagging.formats import naming_labels_once, output_format

    tagger = _load(given, report)
    stage = with_root_check(tagger.stage)
    for notice in _notices(given, report, stack):
        stage = watched(stage, notice)
    stream = options.stream_options(given, batch=tagger.batch)
    form = output_format(
        given["form"],
        labels=tagger.labels.tags,
        prefix=given["xmp_prefix"],
        caption=given["caption"],
    )
    encode = form.encode
    if given["dense"] and not stream.continues:
        encode = naming_labels_once(encode, tagger.labels.tags)
    run_stream(
        report,
        source,
        stage,
        stream,
        fingerprint=tagger.fingerprint | {"form": given["form"], "sidecars": _sidecars(given)},
        encode=encode,
        header=form.header,
        footer=form.footer,
    )


def _sidecars(given: dict[str, Any]) -> str:
    """What is written beside the photos: done photos would not get it on resuming."""
    xmp = f"xmp {given['xmp_prefix']}" if given["xmp"] else ""
    return f"{xmp} {'txt' if given['txt'] else ''}".strip()


def _notices(given: dict[str, Any], report: Any, stack: ExitStack) -> list[Any]:
    """What happens to each tagged photo before its record is written."""
    notices: list[Any] = []
    if given["form"] == "kohya":
        from ramctl.tagging.sidecars import add_photo_size

        notices.append(add_photo_size)
    if given["xmp"] or given["txt"]:
        notices.append(_sidecar_writer(given, report))
    if given["gallery"]:
        from ramctl.pages.gallery import open_gallery

        notices.append(stack.enter_context(open_gallery(given["gallery"], add=given["resume"])))
    return notices


def _remove(source: Any, given: dict[str, Any], report: Any, stack: ExitStack) -> None:
    from ramctl.errors import UsageProblem
    from ramctl.records.stream import each, run_stream

    if not given["xmp_prefix"]:
        raise UsageProblem("--xmp-remove finds machine tags by --xmp-prefix, which is empty")
    stage = each(_sidecar_writer(given, report).remove)
    run_stream(report, source, stage, options.stream_options(given, batch=64))


def _sidecar_writer(given: dict[str, Any], report: Any) -> Any:
    from ramctl.tagging.sidecars import SidecarOptions, SidecarWriter

    wanted = SidecarOptions(
        xmp=given["xmp"],
        prefix=given["xmp_prefix"],
        style=given["xmp_name"],
        text=given["txt"],
        existing_text=given["txt_existing"],
        dry_run=given["dry_run"],
    )
    return SidecarWriter(wanted, report.say)


def _load(given: dict[str, Any], report: Any) -> Any:
    from ramctl.tagging.selection import unknown_tags
    from ramctl.tagging.tagger import Tagger

    choice = _choice(given)
    wanted = {name: given[name] for name in _TAGGER_OPTIONS}
    tagger = Tagger.load(
        given["model"], choice=choice, workers=given["jobs"], say=report.say, **wanted
    )
    report.device = tagger.description
    _tell(report, unknown_tags(tagger.labels, choice), "named tags are not in the label system")
    _tell(report, tagger.scorer.unknown, f"labels score 0: {given['model']} did not learn them")
    return tagger


def _tell(report: Any, names: Sequence[str], what: str) -> None:
    if names:
        named = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        report.say(f"{len(names)} {what}: {named}")


def _choice(given: dict[str, Any]) -> Any:
    from ramctl.tagging.selection import SelectionOptions, read_renames, read_tag_list

    include, exclude, rename = given["include"], given["exclude"], given["rename"]
    return SelectionOptions(
        top=given["top"],
        include=read_tag_list(include) if include else None,
        exclude=read_tag_list(exclude) if exclude else (),
        rename=read_renames(rename) if rename else {},
        leaf=given["leaf"],
        language=given["lang"],
    )
