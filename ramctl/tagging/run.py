"""`ramctl tag`: photos in; records, sidecars and a gallery out."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramctl.errors import UsageProblem
from ramctl.pages.gallery import open_gallery
from ramctl.photos.finding import PhotoInputs, is_gone, require_some, unread_photo_inputs
from ramctl.records.files import require_distinct
from ramctl.records.inputs import RootCheck, named_or_stdin, unread_inputs
from ramctl.records.jsonl import MAX_LINE, dumps
from ramctl.records.locks import locked
from ramctl.records.outputs import rejects_file
from ramctl.records.ownership import LOCK, PAGE, require_ours
from ramctl.records.record import Item, Unread
from ramctl.records.report import Report
from ramctl.records.shards import countable, shard_of
from ramctl.records.state import Collection
from ramctl.records.stream import (
    Stage,
    StreamOptions,
    and_then,
    each,
    run_stream,
    unless_known,
    watched,
)
from ramctl.tagging.exports import (
    Adder,
    add_photo_content,
    add_photo_path,
    add_photo_size,
    open_label_config,
)
from ramctl.tagging.formats import (
    FormatOptions,
    output_format,
    require_lines,
)
from ramctl.tagging.results import read_results
from ramctl.tagging.scorers import TaggerOptions
from ramctl.tagging.selection import SelectionOptions, read_renames, read_tag_list, unknown_tags
from ramctl.tagging.sidecars import (
    SidecarOptions,
    SidecarWriter,
    add_photo_keywords,
)
from ramctl.tagging.text_style import (
    TextStyle,
    open_first_words,
    open_tag_counts,
    require_caption,
)

if TYPE_CHECKING:
    from ramctl.tagging.tagger import Tagger

_PHOTOS = 16  # in memory at once
_ADDED: dict[str, Adder] = {
    "kohya": add_photo_size,
    "coco": add_photo_size,
    "fiftyone": add_photo_path,
    "webdataset": add_photo_content,
    "exiftool-csv": add_photo_keywords,
}


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What `ramctl tag` is asked for; the defaults are its own."""

    inputs: tuple[str, ...] = ()  # photos, folders, archives, records; none or `-`: stdin
    recursive: bool = False
    null: bool = False
    by_content: bool = False
    prune: bool = False  # drop the records of photos that are gone
    root: str | None = None
    max_line: int = MAX_LINE  # bytes of a JSONL line
    ignore: tuple[str, ...] = ()  # patterns of what is passed over in folders
    model: str = "mini"
    tagger: TaggerOptions = field(default_factory=TaggerOptions)
    include: Path | None = None  # files for the tags and names in `tagger.choice`
    exclude: Path | None = None
    rename: Path | None = None
    form: str = ""  # of FORMATS; empty: what suits the output
    spreadsheet: bool = False  # no cell of a table is a formula
    gallery: Path | None = None
    sidecars: SidecarOptions = field(default_factory=SidecarOptions)
    xmp_remove: bool = False
    from_tags: bool = False  # the inputs are records that have tags; no model
    photos_at: str | None = None  # folder or URL at which other programs find the photos
    label_config: Path | None = None  # of Label Studio
    tag_counts: Path | None = None  # a table of how many photos have each tag
    stream: StreamOptions = field(default_factory=StreamOptions)
    lock: Path | None = None  # wait for another run that holds it
    quiet: bool = False


def loaded(options: TagOptions) -> Callable[[TagOptions], Report]:
    """`run` for several inputs with one tagger, which is loaded now where one is needed."""
    if options.from_tags or options.xmp_remove:
        return run
    return partial(run, tagger=_load(options, Report("tag", quiet=True)))


def run(options: TagOptions, tagger: "Tagger | None" = None) -> Report:
    """Tag the photos, or take machine tags out of their sidecars; the report of the run.

    `tagger` is what `loaded` has loaded; None: it is loaded. A dry run only says what it would do.
    """
    if not options.sidecars.dry_run:
        return _run(options, tagger)
    if not (options.sidecars.xmp or options.sidecars.text or options.xmp_remove):
        raise UsageProblem("--dry-run is about sidecars: it needs --xmp, --txt or --xmp-remove")
    stream = replace(options.stream, output=Path(os.devnull), resume=False, rejects=None)
    options = replace(options, stream=stream, prune=False, gallery=None, label_config=None)
    report = _run(replace(options, tag_counts=None), tagger)
    report.say(f"a dry run: {report.extra.get('sidecars', 0)} sidecars would change, none has")
    return report


def _run(options: TagOptions, tagger: "Tagger | None") -> Report:
    if options.tag_counts and options.stream.resume:
        raise UsageProblem("--tag-counts counts one run; --from-tags counts all of a result")
    options.sidecars.text_style.check()
    if options.sidecars.forget_refused and not (
        options.xmp_remove or options.sidecars.xmp or options.sidecars.text
    ):
        raise UsageProblem("--forget-refused needs --xmp, --txt or --xmp-remove")
    stream = options.stream
    is_read = stream.output is None and sys.stdout is not None and sys.stdout.isatty()
    options = replace(options, form=options.form or ("table" if is_read else "jsonl"))
    if options.prune and not (stream.resume and options.form == "jsonl"):
        raise UsageProblem("--prune needs --resume and -f jsonl")
    if options.prune and (options.from_tags or options.xmp_remove):
        raise UsageProblem(
            "--prune is for photos that are tagged, not for --from-tags, --xmp-remove"
        )
    require_lines(options.form, resume=stream.resume, shard=stream.shard)
    require_distinct(
        output=stream.output, rejects=rejects_file(stream.rejects), stats=stream.stats,
        gallery=options.gallery, lock=options.lock, label_config=options.label_config,
        tag_counts=options.tag_counts,
    )  # fmt: skip
    require_ours(options.gallery, PAGE)
    require_ours(options.lock, LOCK)
    report = Report("tag", quiet=options.quiet, unit="images")
    named = named_or_stdin(options.inputs, "photos")
    if options.prune:
        require_some(named)
    photos = PhotoInputs(
        named, options.root, options.recursive, options.null, options.by_content,
        options.max_line, options.ignore, say=cache(report.say),
    )  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # A damaged photo is reported once, in our own words.
        warnings.filterwarnings("ignore", module="PIL")
        if options.lock:
            stack.enter_context(locked(options.lock, wait=report.say))
        read: Callable[[], Iterator[Unread]] = partial(unread_photo_inputs, photos)
        if options.from_tags:
            read = partial(unread_inputs, named, options.root, report.command, options.max_line)
        source, shard = shard_of(stream.shard, named, read)
        report.count = countable(stream.shard, named, read)
        if options.xmp_remove:
            return _remove(options, source, shard, report)
        if options.from_tags:
            return _from_tags(options, source, shard, report, stack)
        tagger = tagger or _load(options, report)
        report.device = tagger.description
        return _tag(options, tagger, source, shard, report, stack)


def _tag(
    options: TagOptions,
    tagger: "Tagger",
    source: Iterator[Item],
    shard: dict[str, str],
    report: Report,
    stack: ExitStack,
) -> Report:
    labels = tagger.labels.tags
    options = replace(options, stream=replace(options.stream, batch=tagger.batch))
    depends = tagger.fingerprint | shard
    return _write(options, source, tagger.stage, labels, depends, report, stack)


def _from_tags(
    options: TagOptions,
    source: Iterator[Item],
    shard: dict[str, str],
    report: Report,
    stack: ExitStack,
) -> Report:
    """Write what an earlier run has found."""
    wanted = replace(options.tagger, choice=_selection(options))
    stage = each(read_results(wanted))
    fingerprint = {"choice of tags": f"{wanted.threshold} {wanted.choice.key}"} | shard
    if options.form == "webdataset":  # whose photos are in memory
        options = replace(options, stream=replace(options.stream, batch=_PHOTOS))
    return _write(options, source, stage, (), fingerprint, report, stack)


def _write(
    options: TagOptions,
    source: Iterator[Item],
    stage: Stage,
    labels: Sequence[str],
    fingerprint: Mapping[str, str],
    report: Report,
    stack: ExitStack,
) -> Report:
    """Run the stage, and write its records and what belongs to each."""
    stage = unless_known(stage)
    for act in _additions(options, labels, report, stack):
        stage = and_then(stage, act)
    stage = watched(stage, RootCheck().notice)
    sidecars = options.sidecars
    form = output_format(
        options.form,
        FormatOptions(
            labels, sidecars.prefix, sidecars.flat_prefix, options.tagger.caption,
            options.spreadsheet, sidecars.text_style, options.photos_at,
        ),
    )  # fmt: skip
    lead = b""
    if options.tagger.dense and options.form == "jsonl":
        # On the first line only: the names, in the order of the scores, are as long as these.
        lead = b"," + dumps({"label_names": list(labels)})[1:-2]
    # A photo that is done gets no other sidecar on resuming, so these are part of what must agree.
    flat = " flat" if sidecars.flat_prefix else ""
    xmp = f"xmp {sidecars.prefix}{flat}" if sidecars.xmp else ""
    style = "" if sidecars.text_style == TextStyle() else f" {sidecars.text_style}"
    written = f"{xmp} {f'txt{style}' if sidecars.text else ''}".strip()
    cells = " spreadsheet" if options.spreadsheet else ""
    depends = {**fingerprint, "form": options.form + cells, "sidecars": written}
    header = form.header if options.stream.shard.index == 1 else b""  # one in all shards together
    return run_stream(
        report, source, stage, options.stream, fingerprint=depends, encode=form.encode,
        header=header, lead=lead, footer=form.footer, collection=_collection(options, report),
    )  # fmt: skip


def _collection(options: TagOptions, report: Report) -> Collection | None:
    """What `--resume` looks after besides the photos that are new, where records can be read."""
    if options.form != "jsonl":
        return None
    collection = Collection(partial(is_gone, root=options.root), options.prune, options.by_content)
    if options.sidecars.xmp or options.sidecars.text:
        lacks = _sidecar_writer(options, report).lacks
        collection = replace(collection, lacks=lacks)
    return collection


def _additions(
    options: TagOptions, labels: Sequence[str], report: Report, stack: ExitStack
) -> Iterator[Adder]:
    """What is done with each tagged photo before its record is written."""
    if options.sidecars.text_style.with_caption:
        yield require_caption
    if first := options.sidecars.text_style.first:
        yield stack.enter_context(open_first_words(first, report.warn))
    if adder := _ADDED.get(options.form):
        yield adder
    if options.sidecars.xmp or options.sidecars.text:
        yield _sidecar_writer(options, report).write
    if options.gallery:
        stream = options.stream

        def is_shown(name: str) -> bool:
            is_pruned = options.prune and report.has_found
            return not (is_pruned and is_gone(name, options.root))

        gallery = open_gallery(
            options.gallery, add=stream.resume, keep=stream.output is not None, is_shown=is_shown
        )
        yield stack.enter_context(gallery)
    if options.label_config:
        yield stack.enter_context(open_label_config(options.label_config, labels))
    if options.tag_counts:
        yield stack.enter_context(open_tag_counts(options.tag_counts))


def _sidecar_writer(options: TagOptions, report: Report) -> SidecarWriter:
    return SidecarWriter(options.sidecars, partial(_plan, report), options.tagger.max_seconds)


def _remove(
    options: TagOptions, source: Iterator[Item], shard: dict[str, str], report: Report
) -> Report:
    stage = each(_sidecar_writer(options, report).remove)
    return run_stream(report, source, stage, options.stream, fingerprint=shard)


def _plan(report: Report, change: str) -> None:
    """Say, and count, what a dry run would do to a sidecar."""
    report.extra["sidecars"] = report.extra.get("sidecars", 0) + 1
    report.say(change)


def _load(options: TagOptions, report: Report) -> "Tagger":
    choice = _selection(options)
    from ramctl.tagging.tagger import Tagger

    wanted = replace(options.tagger, choice=choice, say=report.say)
    tagger = Tagger.open(options.model, wanted)
    named = unknown_tags(tagger.labels, choice)
    _tell(report, named, "tags that you named are not in the label system")
    untrained = f"labels always score 0: {options.model} was not trained on them"
    _tell(report, tagger.scorer.unknown, untrained)
    return tagger


def _selection(options: TagOptions) -> SelectionOptions:
    read: dict[str, Callable[[Path], Any]]
    read = {"include": read_tag_list, "exclude": read_tag_list, "rename": read_renames}
    files = {name: getattr(options, name) for name in read}
    given = {name: read[name](file) for name, file in files.items() if file}
    return replace(options.tagger.choice, **given)


def _tell(report: Report, names: Sequence[str], what: str) -> None:
    if names:
        named = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        report.say(f"{len(names)} {what}: {named}")
