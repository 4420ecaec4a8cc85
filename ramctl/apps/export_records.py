"""`ramctl export`: tagged records to sidecars, files of other programs, pages and tables."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from ramctl.apps.gallery import Adder, Gallery
from ramctl.apps.program_formats import ADDED, output_format
from ramctl.checkpoints.bundle import label_matcher
from ramctl.errors import RecordProblem, UsageProblem, escaped
from ramctl.inference.thresholds import tag_thresholds
from ramctl.metadata.photo_metadata import with_owner_keywords
from ramctl.metadata.sidecars import SidecarOptions, SidecarWriter, planned, without_refused
from ramctl.metadata.text_sidecars import split_tags
from ramctl.photos.finding import Neighbours, PhotoInputs, photo_items
from ramctl.records.files import is_file, read_lines
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.record import (
    JsonObject,
    Record,
    image_name,
    listed,
    numbers_in,
    set_tags,
    tag_language,
)
from ramctl.records.report import Report
from ramctl.records.stream import NO_RECORDS, Format, StreamOptions, each, run_stream


@dataclass(frozen=True, slots=True)
class TagChoice:
    """The tags of a record that are exported."""

    threshold: str | None = None  # a number or a file: only tags above it, or without a score
    top: int | None = None
    include: str | Path | None = None  # tags with commas between them, or a file of them
    exclude: str | Path | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of `ramctl export`."""

    inputs: tuple[str, ...] = ()  # records; with `sidecars.are_removed` photos as well
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    choice: TagChoice = field(default_factory=TagChoice)
    format: str | None = None  # of EXPORT_FORMATS; None: no records are written
    gallery: Path | None = None
    sidecars: SidecarOptions = field(default_factory=SidecarOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False

    def check(self) -> None:
        """UsageProblem for options that do not go together, or that request nothing."""
        sidecars = self.sidecars
        if not (self.format or sidecars.are_changed or self.gallery):
            raise UsageProblem("nothing to write: -f, --xmp, --txt, --gallery ...?")
        if self.stream.output and not self.format:
            raise UsageProblem("-o FILE needs -f FORMAT")
        if sidecars.xmp_remove and (self.format or self.gallery or sidecars.xmp or sidecars.text):
            raise UsageProblem("--xmp-remove goes with no other output")


def run(options: ExportOptions) -> Report:
    """Write all requested outputs; a dry run only lists what would change in sidecars."""
    options.check()
    sidecars, stream = options.sidecars, options.stream
    if sidecars.dry_run:
        stream = replace(stream, output=None)
        options = replace(options, format=None, gallery=None)
    report = Report("export", quiet=options.quiet)
    names = inputs_or_stdin(options.inputs, "records")

    if sidecars.xmp_remove:
        source = photo_items(replace(options.photos, names=names, skipped=report.counts))
    else:
        require_files(names)
        source = read_inputs(names, options.photos.root, report.command)
    # Tags are removed from a photo's sidecars whatever is in its record.
    choose = attrgetter("fields") if sidecars.xmp_remove else chosen_tags(options.choice)
    gallery, neighbours = Gallery(), Neighbours()
    acts = list(_actions(options, gallery, neighbours, report))

    def exported(record: Record) -> JsonObject:
        fields = choose(record)
        for act in acts:  # before its line is written: a record that fails has none
            act(record, fields)
        return fields

    form = output_format(options.format, sidecars.parent) if options.format else NO_RECORDS
    if form.footer is tuple:  # its end could be continued, but the run has no --resume
        form = form._replace(footer=list)
    if sidecars.dry_run and sidecars.are_changed:
        form = Format(encode=lambda fields: fields["plan"].encode())
    run_stream(report, source, each(exported), stream, form=form)
    if options.gallery:
        complete = partial(with_owner_keywords, neighbours=neighbours)
        gallery.write(options.gallery, complete, report.notify)
    return report


def _actions(
    options: ExportOptions, gallery: Gallery, neighbours: Neighbours, report: Report
) -> Iterator[Adder]:
    """The functions that are called with each record before it is written."""
    sidecars = options.sidecars
    has_others = options.format or options.gallery or sidecars.text  # beside XMP
    if has_others and not sidecars.forget_refused:
        yield without_refused(neighbours)
    if options.format in ADDED:
        name, read = ADDED[options.format]
        yield lambda record, fields: fields.update({name: read(image_name(fields), record.base)})
    writer = SidecarWriter(sidecars, neighbours, report.counts)
    count = f"sidecars {'would change' if sidecars.dry_run else 'changed'}"

    def change_sidecars(record: Record, fields: JsonObject) -> None:
        changed = writer.write(record, fields)
        report.counts[count] += len(changed)
        if sidecars.dry_run:
            fields["plan"] = "".join(f"{escaped(planned(sidecar))}\n" for sidecar in changed)

    if sidecars.are_changed:
        report.counts[count] = 0
        yield change_sidecars
    if options.gallery:
        yield gallery.add


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
        if "tags" not in fields and choice.top != 0:
            raise RecordProblem("no tags field", code="missing_field")
        scores = numbers_in(fields, "scores")
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
        lines = map(str.strip, read_lines(Path(value)))
        return [line for line in lines if line and not line.startswith("#")]
    return split_tags(value)
