"""`ramctl export`: tagged records to sidecars, files of other programs, pages and tables."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from operator import attrgetter
from pathlib import Path

from ramctl.checkpoints.bundle import label_matcher
from ramctl.decide.selection import read_tag_list
from ramctl.decide.thresholds import tag_thresholds
from ramctl.errors import RecordProblem, UsageProblem
from ramctl.export.program_formats import ADDED, DOCUMENTS, output_format
from ramctl.export.sidecars import (
    SidecarOptions,
    SidecarWriter,
    planned,
    with_owner_keywords,
    without_refused,
)
from ramctl.export.text_sidecars import split_tags
from ramctl.pages.gallery import Adder, open_gallery
from ramctl.pages.review_page import open_review
from ramctl.photos.finding import Neighbours, PhotoInputs, is_photo_name, unread_photo_inputs
from ramctl.records.fields import FOR_COLUMNS, FOR_EXPORT
from ramctl.records.files import read_pairs
from ramctl.records.inputs import inputs_or_stdin, require_files, unread_inputs
from ramctl.records.ownership import PAGE, require_ours
from ramctl.records.pipes import is_file
from ramctl.records.record import (
    PER_TAG,
    JsonObject,
    Record,
    Unread,
    image_name,
    listed,
    object_in,
    set_tags,
    tag_language,
)
from ramctl.records.report import Report
from ramctl.records.shards import shard_of
from ramctl.records.stream import NO_RECORDS, StreamOptions, each, run_stream
from ramctl.records.verdicts import Verdicts

COUNTED = {
    "refused": "tags newly refused",
    "returned": "refused tags that were back removed again",
    "lost": "sidecars that had lost all tags and got them again",
}
_MAX_PHOTOS = 16  # in memory at once


@dataclass(frozen=True, slots=True)
class TagChoice:
    """The tags of a record that are exported, and their names."""

    threshold: str | None = None  # a number or a file: only tags above it, or without a score
    top: int | None = None
    include: str | Path | None = None  # tags with commas between them, or a file of them
    exclude: str | Path | None = None
    rename: Path | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of `ramctl export`."""

    inputs: tuple[str, ...] = ()  # records; with `sidecars.are_removed` photos as well
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    choice: TagChoice = field(default_factory=TagChoice)
    format: str | None = None  # of FORMATS; None: no records are written
    long: bool = False  # csv: a row for each tag
    bom: bool = False  # csv: begins with a byte order mark
    gallery: Path | None = None
    title: str = ""  # of the gallery
    self_contained: bool = False  # the gallery links to no photos, see `open_gallery`
    review: Path | None = None
    decisions: tuple[Path, ...] = ()  # JSONL; tags that somebody refused are left out
    sidecars: SidecarOptions = field(default_factory=SidecarOptions)
    txt_counts: bool = False  # print how many texts hold each word
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False

    def check(self) -> None:
        """UsageProblem for options that do not go together, or that request nothing."""
        sidecars, pages = self.sidecars, self.gallery or self.review
        if not (self.format or sidecars.are_changed or pages):
            raise UsageProblem("nothing to write: -f, --xmp, --txt, --gallery, --review ...?")
        if self.stream.output and not self.format:
            raise UsageProblem("-o FILE needs -f FORMAT")
        if self.stream.resume and (sidecars.are_changed or pages):
            raise UsageProblem("--resume is for -f FORMAT -o FILE alone")
        if (sidecars.dry_run or sidecars.forget_refused) and not sidecars.are_changed:
            option = "--dry-run" if sidecars.dry_run else "--forget-refused"
            raise UsageProblem(f"{option} needs --xmp, --txt, --xmp-remove or --txt-remove")
        takes_photos = self.photos.recursive or any(map(is_photo_name, self.inputs))
        if takes_photos and not sidecars.are_removed:
            raise UsageProblem("inputs are records; only --xmp-remove, --txt-remove take photos")
        others = self.format or pages or self.decisions or sidecars.xmp or sidecars.text
        if sidecars.are_removed and others:
            option = "--xmp-remove" if sidecars.xmp_remove else "--txt-remove"
            raise UsageProblem(f"{option} goes with no other output")
        if (self.title or self.self_contained) and not self.gallery:
            raise UsageProblem("--title and --self-contained need --gallery FILE")
        if self.txt_counts and not sidecars.text:
            raise UsageProblem("--txt-counts needs --txt")
        if self.txt_counts and self.format and not self.stream.output:
            raise UsageProblem("--txt-counts prints to stdout; -f needs -o FILE beside it")
        document = f"-f {self.format} is one document and cannot be"
        if self.format in DOCUMENTS and self.stream.resume:
            raise UsageProblem(f"{document} continued; use jsonl")
        if (self.long or self.bom) and self.format != "csv":
            raise UsageProblem("--long and --bom need -f csv")
        # Tars are joined by cat.
        if self.format in ("coco", "json") and not self.stream.shard.is_all:
            raise UsageProblem(f"{document} made in shards; use jsonl")


def run(options: ExportOptions) -> Report:
    """Write all requested outputs; a dry run only lists what would change in sidecars."""
    options.check()
    if options.sidecars.dry_run:
        stream = replace(options.stream, output=None)
        options = replace(options, format=None, gallery=None, review=None, stream=stream)
    if options.format == "webdataset":  # it has whole photos in memory
        options = replace(options, stream=replace(options.stream, batch=_MAX_PHOTOS))
    stream = options.stream
    require_ours(options.gallery, PAGE)
    require_ours(options.review, PAGE)
    verdicts = Verdicts.read(options.decisions, "export", label_matcher)
    report = Report("export", quiet=options.quiet)
    report.extra["sidecars"] = 0
    if options.sidecars.are_changed:
        verb = "would change" if options.sidecars.dry_run else "changed"
        report.counted = {"sidecars": f"sidecars {verb}"}
    names = inputs_or_stdin(options.inputs, "records")
    forms = FOR_COLUMNS if options.format == "parquet" else FOR_EXPORT

    def read() -> Iterator[Unread]:
        if options.sidecars.are_removed:
            photos = replace(options.photos, names=names, notify=cache(report.notify))
            return unread_photo_inputs(photos)
        require_files(names)
        unread = unread_inputs(names, options.photos.root, report.command)
        return (partial(make, forms=forms) for make in unread)

    source, shard = shard_of(stream.shard, names, read)
    with ExitStack() as stack:
        # Tags are removed from a photo's sidecars whatever is in its record.
        choose = (
            attrgetter("fields") if options.sidecars.are_removed else chosen_tags(options.choice)
        )
        writer = SidecarWriter(options.sidecars)
        acts = list(_actions(options, verdicts, writer, report, stack))

        def exported(record: Record) -> JsonObject:
            fields = choose(record)
            for act in acts:  # before its line is written: a record that fails has none
                act(record, fields)
            return fields

        form = NO_RECORDS
        if options.format:
            form = output_format(
                options.format, options.sidecars, long=options.long, bom=options.bom
            )
        run_stream(
            report, source, each(exported), stream,
            fingerprint={
                "choice of tags": f"{options.choice}", "decisions file": verdicts.stamp,
                "form": f"{options.format}" + " long" * options.long + " bom" * options.bom,
            } | shard,
            form=form,
        )  # fmt: skip
    if stream.shard.is_all:
        verdicts.report_unused(report)
    if options.txt_counts:
        sys.stdout.writelines(writer.text_counts.lines())
    return report


def _actions(
    options: ExportOptions, verdicts: Verdicts, writer: SidecarWriter, report: Report,
    stack: ExitStack,
) -> Iterator[Adder]:  # fmt: skip
    """The functions that are called with each record before it is written."""
    is_refused_left_out = not (options.sidecars.xmp_remove or options.sidecars.forget_refused)
    if options.review and is_refused_left_out:
        yield without_refused(Neighbours())
    if options.review:  # before the decisions are applied: the page shows them
        yield stack.enter_context(open_review(options.review, verdicts))
    decided: dict[str, str] = {}  # about the photo of the present record

    def apply(_: Record, fields: JsonObject) -> None:
        decided.clear()
        decided.update(verdicts.of(fields))
        verdicts.apply(fields)

    if verdicts.by_photo:
        yield apply
    names: dict[str, str] = {}
    if options.choice.rename:  # after the decisions, which have the old names
        pairs = read_pairs(options.choice.rename, "a tag, a tab and its new name")
        names = {old: new for _, old, new in pairs}
        yield renamer(names)
    if is_refused_left_out:  # by their new names
        yield without_refused(Neighbours())
    if options.format in ADDED:
        name, read = ADDED[options.format]
        yield lambda record, fields: fields.update({name: read(image_name(fields), record.base)})

    def change_sidecars(record: Record, fields: JsonObject) -> None:
        renamed = {names.get(word, word): verdict for word, verdict in decided.items()}
        changed = writer.write(record, fields, renamed)
        for name, words in COUNTED.items():
            if writer.counts[name]:
                report.extra[name], report.counted[name] = writer.counts[name], words
        report.extra["sidecars"] += len(changed)
        for sidecar in changed if options.sidecars.dry_run else ():
            report.notify(planned(sidecar))

    if options.sidecars.are_changed:
        yield change_sidecars
    if options.gallery:
        publish, neighbours = options.self_contained, Neighbours()
        show = stack.enter_context(
            open_gallery(options.gallery, title=options.title, publish=publish)
        )
        yield lambda record, fields: show(
            record, with_owner_keywords(record, fields, neighbours, people=not publish)
        )


def chosen_tags(choice: TagChoice) -> Callable[[Record], JsonObject]:
    """A function that keeps a record's chosen tags; RecordProblem for one without `tags`."""
    included = None if choice.include is None else tag_list(choice.include)
    if included == []:
        raise UsageProblem(f"--include {str(choice.include)!r}: no tags in it")
    includes = included and label_matcher(included)
    excludes = label_matcher(tag_list(choice.exclude) if choice.exclude else ())
    threshold = tag_thresholds(choice.threshold) if choice.threshold else None

    def choose(record: Record) -> JsonObject:
        fields = record.fields
        image_name(fields)  # raises RecordProblem for a record without one
        if "tags" not in fields:
            raise RecordProblem("no tags field", code="missing_field")
        scores = object_in(fields, "scores")
        language = tag_language(fields)
        kept = [tag for tag in listed(fields, "tags") if not excludes(tag, language)]
        if threshold is not None:
            kept = [tag for tag in kept if scores.get(tag, 1.0) > threshold(tag)]
        kept = [tag for tag in kept if not includes or includes(tag, language)]
        set_tags(fields, kept[: choice.top])
        return fields

    return choose


def tag_list(value: str | Path) -> list[str]:
    """The tags of a file, or of a text with commas between them."""
    is_name = "," not in str(value) and ("/" in str(value) or str(value).endswith(".txt"))
    if isinstance(value, Path) or is_name or is_file(value):
        return read_tag_list(Path(value))
    return split_tags(value)


def renamer(names: Mapping[str, str]) -> Adder:
    """A function that renames tags."""

    def rename(_: Record, fields: JsonObject) -> None:
        # If two tags get one name, the first stays.
        fields["tags"] = list(dict.fromkeys(names.get(tag, tag) for tag in fields["tags"]))
        for name in PER_TAG:
            per_tag = fields.get(name)
            if isinstance(per_tag, dict):
                renamed = {names.get(tag, tag): value for tag, value in reversed(per_tag.items())}
                fields[name] = {tag: renamed[tag] for tag in fields["tags"] if tag in renamed}

    return rename
