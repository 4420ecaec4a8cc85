"""`ramctl parse`: captions to tagged records, or to a label system."""

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar

from ramctl.captions.caption_formats import group_by_image, read_captions_of
from ramctl.captions.source import Columns
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.parsing import label_builder
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.parsed_caption import ParsedCaption, is_english
from ramctl.parsing.parser import parse_batches
from ramctl.records.files import is_folder
from ramctl.records.inputs import inputs_or_stdin, require_files
from ramctl.records.jsonl import dumps
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    HUMAN,
    PARSED,
    Item,
    JsonObject,
    Record,
    captions_of,
    image_name,
    kinds_of,
    listed,
    listed_names,
    set_tags,
)
from ramctl.records.report import Rejects, Report
from ramctl.records.stream import (
    BATCH,
    JSONL,
    Batch,
    Encoder,
    Format,
    Outcome,
    StreamOptions,
    accepted,
    run_stream,
    separated,
)

T = TypeVar("T")
# Longer texts are no captions: dense descriptions have about 2,000 characters.
MAX_CAPTION = 100_000
# The number of most frequent tags whose mentions the paper counts.
COMMON_TAGS = 10_000


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """The options of `ramctl parse`, with their defaults."""

    inputs: tuple[str, ...] = ()  # none or `-`: stdin
    root: str | None = None
    source_format: str | None = None  # None: recognised
    columns: Columns = field(default_factory=Columns)
    group: bool = False
    labels: Labels | None = None  # give only these
    build_labels: Path | None = None
    review: Path | None = None
    merge: tuple[Path, ...] = ()  # class lists whose names become labels
    size: int | None = None  # labels
    target_format: str = "jsonl"
    keep_tags: bool = False
    explain: bool = False
    workers: int | None = None  # all cores
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: ParseOptions) -> Report:
    """Parse the captions and write records or a label system; returns the report of the run."""
    labels, target = options.labels, options.target_format
    if options.build_labels and labels:
        raise UsageProblem("--build-labels builds a label system, --labels uses one: give one")
    if target == "ram" and not labels:
        raise UsageProblem("-f ram needs --labels: the tag list that its ids refer to")
    shard = options.stream.shard
    if options.build_labels and not shard.is_all:
        raise UsageProblem("--build-labels needs all records, so not with --shard")
    report = Report("parse", quiet=options.quiet)
    inputs = inputs_or_stdin(options.inputs, "captions")
    require_files([name for name in inputs if not is_folder(name)])  # folders hold texts of photos
    read = partial(
        read_captions_of, root=options.root, stage="parse", form=options.source_format,
        labels=labels.tags if labels else (), columns=options.columns,
    )  # fmt: skip
    if options.group:
        items = group_by_image(shard.by_photo(read(inputs)), "parse")
    else:
        items = shard.of(read(inputs))
    if options.build_labels:
        _build_labels(options, options.build_labels, items, report)
        report.finish(options.stream.stats)
        return report
    form = Format(encode=_photo_and_tags) if target == "tags" else JSONL
    if target == "ram" and labels:
        form = Format(b"[\n", ram_encoder(labels), lambda: (b"\n]\n",))
    settings = {
        "--labels": labels and labels.sha256, "-f": target == "tags" and "tags",
        "--keep-tags": options.keep_tags, "--explain": options.explain,
        "--image-column": options.columns.image, "--caption-column": options.columns.caption,
    }  # fmt: skip
    fingerprint = {name: str(value) for name, value in settings.items() if value}
    stage = partial(_tag_batches, options, report)
    return run_stream(report, items, stage, options.stream, fingerprint=fingerprint, form=form)


def _tag_batches(
    options: ParseOptions, report: Report, batches: Iterator[Batch]
) -> Iterator[list[Outcome]]:
    """The records of each batch with their tags, counted as in the tables of the paper."""
    mapper = LabelMapper(options.labels or Labels(()), Lexicon.shared())
    counts = Counter[str]()  # of records by tag
    n_images = n_captions = 0

    def captions(record: Record) -> tuple[Record, list[str]]:
        texts = _captions_to_parse(record, report, strict=options.stream.strict)
        if options.target_format == "ram":
            image_name(record.fields)
        return record, texts

    def read(batch: Batch) -> tuple[list[tuple[Record, list[str]] | RecordProblem], list[str]]:
        work = [attempt(captions, record) for record in batch]
        return work, [text for _, texts in _good(work) for text in texts]

    for work, parsed in parse_batches(map(read, batches), options.labels, options.workers):
        found = iter(parsed)
        outcomes = [
            item if isinstance(item, RecordProblem)
            else attempt(_tagged, item[0], list(islice(found, len(item[1]))), options, mapper)
            for item in work
        ]  # fmt: skip
        n_images += len(_good(work))
        n_captions += len(parsed)
        for fields in _good(outcomes):
            counts.update(fields["tags"])
        yield outcomes
    total = counts.total()
    report.extra.update({
        "images": n_images, "captions": n_captions, "tags": total, "distinct_tags": len(counts),
        "common_tags": sum(n for _, n in counts.most_common(COMMON_TAGS)),
        "tags_per_image": round(total / n_images, 3) if n_images else 0.0,
    })  # fmt: skip


def _good(outcomes: Iterable[T | RecordProblem]) -> list[T]:
    return [outcome for outcome in outcomes if not isinstance(outcome, RecordProblem)]


def _tagged(
    record: Record, parsed: Sequence[ParsedCaption], options: ParseOptions, mapper: LabelMapper
) -> JsonObject:
    """The record's fields with its captions' tags; without captions, tags that came in stay."""
    fields = record.fields
    kinds: dict[str, str] = {}
    for caption in parsed:
        for tag, kind in caption.kinds.items():
            kinds.setdefault(tag, kind)
    sources: dict[str, list[str]] = {tag: [PARSED] for tag in kinds}
    if options.keep_tags or not parsed:
        known = kinds_of(fields)
        for tag in listed(fields, "tags"):
            label = mapper.find(tag)
            kind = label.kind if label else Lexicon.shared().kind(tag)
            kinds.setdefault(tag, known.get(tag) or kind)
            sources.setdefault(tag, []).append(HUMAN)
    fields["tags"] = list(kinds)
    fields["caption_tags"] = [caption.tags for caption in parsed]
    fields["kinds"], fields["sources"] = kinds, sources
    set_tags(fields, list(kinds))
    if options.explain:
        explained: dict[str, list[JsonObject]] = {}
        for number, caption in enumerate(parsed):
            for mention in caption.mentions:
                reason = {"caption": number, "words": mention.words, "rule": mention.rule}
                if compounds := [x for x in caption.phrases if x.endswith(f" {mention.tag}")]:
                    reason["compounds"] = compounds
                explained.setdefault(mention.tag, []).append(reason)
        fields["explain"] = explained
    return fields


def _captions_to_parse(record: Record, report: Report, *, strict: bool) -> list[str]:
    """The record's captions; RecordProblem where there is nothing to parse or keep.

    Counts those that are empty or not in English, which with `strict` are a problem.
    """
    captions = captions_of(record.fields)
    if not captions and not {"captions", "caption", "tags"} & record.fields.keys():
        has = listed_names(record.fields) or "no fields"
        raise RecordProblem(f"no captions and no tags; it has {has}", code="missing_field")
    for caption in captions:
        if len(caption) > MAX_CAPTION:
            message = f"a caption of {len(caption)} characters (at most {MAX_CAPTION})"
            raise RecordProblem(message, code="too_large")
        if not caption.strip():
            report.counts["empty captions"] += 1
        elif not is_english(caption):
            report.counts["captions not in English"] += 1
            if strict:
                raise RecordProblem(f"not in English: {caption[:80]!r}", code="other_language")
    return captions


def _photo_and_tags(fields: JsonObject) -> bytes:
    return dumps({name: fields[name] for name in ("image", "tags") if name in fields})


def ram_encoder(labels: Labels) -> Encoder:
    """An encoder of records as items of the RAM authors' JSON list, without its brackets.

    Tags outside the label system have no id and are omitted.
    """

    def ids(tags: list[str]) -> list[int]:
        return sorted({number for tag in tags for number in labels.ids(tag)})

    def encode(fields: JsonObject) -> bytes:
        row = {
            "image_path": image_name(fields),
            "caption": captions_of(fields),
            "union_label_id": ids(fields["tags"]),
            "parse_label_id": [ids(tags) for tags in fields["caption_tags"]],
        }
        return dumps(row).rstrip(b"\n")

    return separated(encode)


def _build_labels(options: ParseOptions, path: Path, items: Iterable[Item], report: Report) -> None:
    """Write the label system of all captions, and the review table if there is one.

    A table that exists is read first and its decisions win. RunProblem when there is no caption.
    """
    strict, review = options.stream.strict, options.review
    decisions = label_builder.read_review(review) if review else {}
    names: dict[str, list[str]] = {}
    for file in options.merge:
        for name in dict.fromkeys(label_builder.read_class_list(file)):
            names.setdefault(name, []).append(file.name)

    def texts_of(record: Record) -> list[str]:
        return _captions_to_parse(record, report, strict=strict)

    def captions(rejects: Rejects, spool: BinaryIO) -> Iterator[ParsedCaption]:
        with report.progress() as advance:
            read = chunks(accepted(items, texts_of, rejects), BATCH)
            batches = (([x for _, x in good], [t for _, x in good for t in x]) for good in read)
            for texts, parsed in parse_batches(batches, None, options.workers):
                yield from parsed
                rest = iter(parsed)
                pickle.dump([[(t, next(rest)) for t in record] for record in texts], spool)
                report.n_out += len(texts)
                advance(len(texts))
        pickle.dump(None, spool)

    with (
        TemporaryFile() as spool,
        Rejects(report, options.stream.rejects, strict=strict) as rejects,
    ):
        counts = label_builder.TagCounts(captions(rejects, spool))
        if not counts.tags:
            raise RunProblem("no tags in the input: nothing to build a label system from")
        labels, candidates = label_builder.build_labels(
            counts, decisions, {name: ", ".join(files) for name, files in names.items()},
            options.size or label_builder.MAX_LABELS,
        )  # fmt: skip
        spool.seek(0)
        batches = iter(partial(pickle.load, spool), None)
        labels = label_builder.with_counts(labels, chain.from_iterable(batches))
    if not labels:
        raise RunProblem(f"no tag is named in {label_builder.MIN_COUNT} captions or more")
    labels.write(path)
    if review:
        label_builder.write_review(review, candidates)
    report.extra["labels"] = len(labels)
    report.extra["strings"] = sum(1 + len(label.synonyms) for label in labels)
    few = len(labels) < (options.size or 0)
    why = f": no more are named in {label_builder.MIN_COUNT} captions" if few else ""
    report.notify(f"{len(labels)} labels in {path}{why}")
