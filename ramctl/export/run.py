"""`ramctl export`: tagged records in; sidecars, other programs' files, galleries, tables out."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from operator import attrgetter
from pathlib import Path

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.export.formats import ADDED, DOCUMENTS, output_format
from ramctl.export.review import open_review
from ramctl.export.sidecars import SidecarOptions, SidecarWriter, planned, require_caption
from ramctl.pages.gallery import Adder, open_gallery
from ramctl.photos.finding import PhotoInputs, is_photo_name, unread_photo_inputs
from ramctl.records.fields import FOR_COLUMNS, FOR_EXPORT
from ramctl.records.files import read_pairs
from ramctl.records.inputs import named_or_stdin, unread_inputs
from ramctl.records.ownership import PAGE, require_ours
from ramctl.records.record import (
    PER_TAG,
    JsonObject,
    Record,
    Unread,
    image_name,
    listed,
    object_in,
    set_tags,
)
from ramctl.records.report import Report
from ramctl.records.shards import shard_of
from ramctl.records.stream import StreamOptions, each, run_stream
from ramctl.records.verdicts import Verdicts
from ramctl.tagging.selection import read_tag_list

_PHOTOS = 16  # in memory at once


@dataclass(frozen=True, slots=True)
class TagChoice:
    """Which of a record's tags are exported, and under which names."""

    threshold: float | None = None  # only tags that score above it, or have no score
    top: int | None = None
    include: Path | None = None
    exclude: Path | None = None
    rename: Path | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `ramctl export` is asked for; the defaults are its own."""

    inputs: tuple[str, ...] = ()  # records; to take tags out of sidecars, photos as well
    recursive: bool = False
    root: str | None = None
    choice: TagChoice = field(default_factory=TagChoice)
    format: str | None = None  # of FORMATS; None: no records are written
    gallery: Path | None = None
    review: Path | None = None
    decisions: tuple[Path, ...] = ()  # JSONL; tags that persons refused are left out
    sidecars: SidecarOptions = field(default_factory=SidecarOptions)
    xmp_remove: bool = False
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False

    def check(self) -> None:
        """UsageProblem where nothing is asked for, or what does not go together."""
        sidecars = self.sidecars.xmp or self.sidecars.text or self.xmp_remove
        pages = self.gallery or self.review
        if not (self.format or sidecars or pages):
            raise UsageProblem("nothing to write: -f, --xmp, --txt, --gallery, --review ...?")
        if self.stream.output and not self.format:
            raise UsageProblem("-o FILE needs -f FORMAT")
        if self.stream.resume and (sidecars or pages):
            raise UsageProblem("--resume is for -f FORMAT -o FILE: all else is brought up to date")
        if (self.sidecars.dry_run or self.sidecars.forget_refused) and not sidecars:
            wanted = "--dry-run" if self.sidecars.dry_run else "--forget-refused"
            raise UsageProblem(f"{wanted} is about sidecars: --xmp, --txt or --xmp-remove")
        if not self.xmp_remove and (self.recursive or any(map(is_photo_name, self.inputs))):
            raise UsageProblem(
                "inputs are records, those of ramctl tag; photos: --xmp-remove alone"
            )
        others = self.format or pages or self.decisions or self.sidecars.xmp or self.sidecars.text
        if self.xmp_remove and others:
            raise UsageProblem("--xmp-remove stands alone")
        self.sidecars.text_style.check()
        document = f"-f {self.format} is one document and cannot be"
        if self.format in DOCUMENTS and self.stream.resume:
            raise UsageProblem(f"{document} continued; use jsonl")
        if self.format == "coco" and not self.stream.shard.is_all:  # tars are joined by cat
            raise UsageProblem(f"{document} made in shards; use jsonl")


def run(options: ExportOptions) -> Report:
    """Write what is asked for; a dry run only says what would become of the sidecars."""
    options.check()
    if options.sidecars.dry_run:
        options = replace(options, format=None, gallery=None, review=None)
    if options.format is None:
        options = replace(options, stream=replace(options.stream, output=Path(os.devnull)))
    if options.format == "webdataset":  # whose photos are in memory
        options = replace(options, stream=replace(options.stream, batch=_PHOTOS))
    stream = options.stream
    require_ours(options.gallery, PAGE)
    require_ours(options.review, PAGE)
    verdicts = Verdicts.read(options.decisions, "export")
    report = Report("export", quiet=options.quiet)
    report.extra["sidecars"] = 0
    if options.sidecars.xmp or options.sidecars.text or options.xmp_remove:
        verb = "would change" if options.sidecars.dry_run else "changed"
        report.counted = {"sidecars": f"sidecars {verb}"}
    named = named_or_stdin(options.inputs, "records")
    forms = FOR_COLUMNS if options.format == "parquet" else FOR_EXPORT

    def read() -> Iterator[Unread]:
        if options.xmp_remove:
            photos = PhotoInputs(named, options.root, options.recursive, say=cache(report.say))
            return unread_photo_inputs(photos)
        unread = unread_inputs(named, options.root, report.command)
        return (partial(make, forms=forms) for make in unread)

    source, shard = shard_of(stream.shard, named, read)
    with ExitStack() as stack:
        # Tags are taken out of a photo's sidecars whatever its record has itself.
        choose = attrgetter("fields") if options.xmp_remove else chosen_tags(options.choice)
        acts = list(_acts(options, verdicts, report, stack))

        def exported(record: Record) -> JsonObject:
            # What a record stands for is done first: no line is written for what failed.
            fields = choose(record)
            for act in acts:
                act(record, fields)
            return fields

        form_name = options.format or "jsonl"
        form = output_format(form_name, options.sidecars.prefix, options.sidecars.text_style)
        run_stream(
            report, source, each(exported), stream,
            fingerprint={
                "choice of tags": f"{options.choice}", "form": f"{options.format}",
                "decisions file": verdicts.stamp,
            } | shard,
            form=form,
        )  # fmt: skip
    return report


def _acts(
    options: ExportOptions, verdicts: Verdicts, report: Report, stack: ExitStack
) -> Iterator[Adder]:
    """What is done with each record before it is written."""
    if options.review:  # before what was decided, which it shows
        yield stack.enter_context(open_review(options.review, verdicts))
    if verdicts.of_photo:
        yield lambda _, fields: verdicts.apply(fields)
    if options.choice.rename:  # after the decisions, which are about names as they were
        yield renamer(options.choice.rename)
    if options.sidecars.text_style.with_caption:
        yield require_caption
    if options.format in ADDED:
        name, of_photo = ADDED[options.format]
        yield lambda record, fields: fields.update(
            {name: of_photo(image_name(fields), record.base)}
        )
    writer = SidecarWriter(options.sidecars)
    write = writer.remove if options.xmp_remove else writer.write

    def change_sidecars(record: Record, fields: JsonObject) -> None:
        changed = write(record, fields)
        report.extra["sidecars"] += len(changed)
        for sidecar in changed if options.sidecars.dry_run else ():
            report.say(planned(sidecar, options.sidecars.text_style))

    if options.sidecars.xmp or options.sidecars.text or options.xmp_remove:
        yield change_sidecars
    if options.gallery:
        yield stack.enter_context(open_gallery(options.gallery))


def chosen_tags(choice: TagChoice) -> Callable[[Record], JsonObject]:
    """Keeps the chosen of a record's tags; RecordProblem for a record without `tags`."""
    include = None if choice.include is None else set(read_tag_list(choice.include))
    exclude = set() if choice.exclude is None else set(read_tag_list(choice.exclude))
    least = -math.inf if choice.threshold is None else choice.threshold

    def choose(record: Record) -> JsonObject:
        fields = record.fields
        image_name(fields)  # raises RecordProblem for a record without one
        if "tags" not in fields:
            raise RecordProblem("no tags field", code="missing_field")
        scores = object_in(fields, "scores")
        kept = [tag for tag in listed(fields, "tags") if tag not in exclude]
        kept = [tag for tag in kept if scores.get(tag, 1.0) > least]
        kept = [tag for tag in kept if include is None or tag in include]
        set_tags(fields, kept[: choice.top])
        return fields

    return choose


def renamer(path: Path) -> Adder:
    """Renames tags by the lines of a file, tag<TAB>name; RunProblem naming any other line."""
    pairs = read_pairs(path, "a tag, a tab and its new name")
    names = {old: new for _, old, new in pairs}

    def rename(_: Record, fields: JsonObject) -> None:
        # Of two tags that get one name the first stays.
        fields["tags"] = list(dict.fromkeys(names.get(tag, tag) for tag in fields["tags"]))
        for name in PER_TAG:
            per_tag = fields.get(name)
            if isinstance(per_tag, dict):
                renamed = {names.get(tag, tag): value for tag, value in reversed(per_tag.items())}
                fields[name] = {tag: renamed[tag] for tag in fields["tags"] if tag in renamed}

    return rename
