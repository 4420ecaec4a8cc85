"""`ramctl import`: the owner's keywords and captions of photos, as records."""

from contextlib import suppress
from dataclasses import dataclass, field, replace

from ramctl.errors import RecordProblem
from ramctl.metadata.photo_metadata import PhotoMetadata
from ramctl.metadata.sidecars import photo_path
from ramctl.photos.finding import Neighbours, PhotoInputs, photo_items, xmp_names
from ramctl.records.inputs import inputs_or_stdin
from ramctl.records.record import Item, JsonObject, Record, image_name
from ramctl.records.report import Report
from ramctl.records.stream import StreamOptions, each, run_stream


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of `ramctl import`."""

    inputs: tuple[str, ...] = ()  # photos, folders, archives, records
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: ImportOptions) -> Report:
    """Write the records of photos."""
    report, neighbours = Report("import", quiet=options.quiet, unit="images"), Neighbours()
    names = inputs_or_stdin(options.inputs, "photos")
    photos = replace(options.photos, names=names, stage="import", skipped=report.counts)

    def imported(record: Record) -> JsonObject:
        found = PhotoMetadata.read(image_name(record.fields), record.base, neighbours)
        return record.fields | found.fields()

    stream = replace(options.stream, batch=1)  # each record is written as soon as it is there
    run_stream(report, map(_stamped, photo_items(photos)), each(imported), stream)
    return report


def _stamped(item: Item) -> Item:
    """The item with a stamp that changes when a sidecar of its photo does."""
    if isinstance(item, Record):
        with suppress(RecordProblem, ValueError):
            for path in xmp_names(photo_path(image_name(item.fields), item.base)):
                with suppress(OSError):
                    facts = path.stat()
                    item.stamp += f" {path.name}{facts.st_size}-{facts.st_mtime_ns}"
    return item
