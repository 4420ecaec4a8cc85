"""`ramctl import`: the owner's keywords and captions of photos, as records and as labels."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.export.sidecars import photo_path
from ramctl.importing.photo_metadata import PhotoReader, paths_beside
from ramctl.importing.vocabulary import Vocabulary
from ramctl.photos.finding import PhotoInputs, unread_photo_inputs
from ramctl.records.files import output_lock
from ramctl.records.inputs import inputs_or_stdin
from ramctl.records.ownership import LABEL_FILE, require_ours
from ramctl.records.record import Item, JsonObject, Record, Unread, image_name
from ramctl.records.report import Report
from ramctl.records.shards import shard_of
from ramctl.records.stream import JSONL, NO_RECORDS, StreamOptions, each, run_stream

_LIST = ".txt"  # extension of lists of keywords


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of `ramctl import`."""

    inputs: tuple[str, ...] = ()  # photos, folders, archives, records; lists of keywords
    photos: PhotoInputs = field(default_factory=PhotoInputs)
    people: bool = False  # names are tags, and labels, too
    labels_out: Path | None = None
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: ImportOptions) -> Report:
    """Write the records of photos, and with `labels_out` a label file of their keywords."""
    stream, target = options.stream, options.labels_out
    lists = [name for name in options.inputs if name.lower().endswith(_LIST)]
    names = tuple(name for name in options.inputs if name not in lists)
    if lists and target is None:
        raise UsageProblem(f"{lists[0]}: a list of keywords needs --labels-out FILE")
    if target and (stream.resume or stream.max_time or not stream.shard.is_all):
        alone = "--labels-out needs all photos in one run"
        raise UsageProblem(f"{alone}: not with --resume, --shard, --max-time")
    require_ours(target, LABEL_FILE)
    report = Report("import", quiet=options.quiet, unit="images")
    names = names if lists and not names else inputs_or_stdin(names, "photos")
    photos = replace(options.photos, names=names, stage="import", notify=cache(report.notify))
    reader, vocabulary = PhotoReader(people=options.people), Vocabulary(people=options.people)

    def unread() -> Iterator[Unread]:
        return (partial(_stamped, make) for make in unread_photo_inputs(photos))

    def read(record: Record) -> JsonObject:
        fields = reader(record)
        if target:
            vocabulary.add_record(fields)
        return fields

    with output_lock(target, notify=report.notify):
        for name in lists:
            vocabulary.add_list(Path(name))
        source, shard = shard_of(stream.shard, names, unread)
        run_stream(
            report, source, each(read), stream,
            fingerprint={"people": str(options.people)} | shard,
            form=NO_RECORDS if target and stream.output is None else JSONL,
        )  # fmt: skip
        if target:
            if not (labels := vocabulary.labels()):
                raise RunProblem(f"{target}: not written, as no keywords were found")
            labels.write(target)
            report.notify(f"{len(labels)} labels in {target}")
    return report


def _stamped(make: Unread) -> Item:
    """The item with a stamp that changes when a file beside its photo does."""
    item = make()
    if isinstance(item, Record):
        with suppress(RecordProblem, ValueError):
            for path in paths_beside(photo_path(image_name(item.fields), item.base)):
                with suppress(OSError):
                    facts = path.stat()
                    item.stamp += f" {path.suffix}{facts.st_size}-{facts.st_mtime_ns}"
    return item
