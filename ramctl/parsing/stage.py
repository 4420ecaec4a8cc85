"""Records through the parser: captions to tagged records, or to a label system."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from ramctl.errors import RecordProblem, RunProblem, attempt
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.language import is_english
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.parsed_caption import Mention, ParsedCaption
from ramctl.parsing.parser import parsed_batches
from ramctl.records.jsonl import dumps
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks, map_good
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
from ramctl.records.report import Rejects
from ramctl.records.stream import Batch, Encoder, Outcome, accepted, separated

BATCH = 256
Work = tuple[Record, int]  # a record and the number of its captions
# Longer texts are no captions: dense descriptions have about 2,000 characters.
MAX_CAPTION = 100_000
# The number of most frequent tags whose mentions the paper counts.
COMMON_TAGS = 10_000
# What is counted for --stats and the closing line if there is any.
COUNTED = {"empty_captions": "empty captions", "foreign_captions": "captions not in English"}


@dataclass
class ParseStage:
    """A stage of `run_stream` that adds tags; `stats` is filled when the last record is done."""

    labels: Labels | None = None
    jobs: int | None = 1  # None: all cores
    keep_tags: bool = False
    explain: bool = False
    needs_image: bool = False
    strict: bool = False  # a caption that is not in English is a RecordProblem
    stats: JsonObject = field(default_factory=dict)
    _counts: Counter[str] = field(init=False, default_factory=Counter)  # of mentions by tag

    def __call__(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """One list of outcomes a batch, in order."""
        n_images = n_captions = 0
        with parsed_batches(self.labels, self.jobs) as parse:
            for work, parsed in parse(self._split(batch) for batch in batches):
                n_images += sum(not isinstance(outcome, RecordProblem) for outcome in work)
                n_captions += len(parsed)
                yield map_good(work, partial(self._outcomes, iter(parsed)))
        total = self._counts.total()
        # As in the tables of the RAM paper.
        self.stats.update({
            "images": n_images, "captions": n_captions,
            "tags": total, "distinct_tags": len(self._counts),
            "common_tags": sum(n for _, n in self._counts.most_common(COMMON_TAGS)),
            "tags_per_image": round(total / n_images, 3) if n_images else 0.0,
        })  # fmt: skip

    def _split(self, batch: Batch) -> tuple[list[Work | RecordProblem], list[str]]:
        work: list[Work | RecordProblem] = []
        captions: list[str] = []
        for record in batch:
            try:
                texts = _captions_to_parse(record, self.stats, strict=self.strict)
                if self.needs_image:
                    image_name(record.fields)
            except RecordProblem as problem:
                work.append(problem)
                continue
            work.append((record, len(texts)))
            captions += texts
        return work, captions

    def _outcomes(self, parsed: Iterator[ParsedCaption], work: list[Work]) -> list[Outcome]:
        return [attempt(self._with_tags, record, list(islice(parsed, n))) for record, n in work]

    def _with_tags(self, record: Record, parsed: Sequence[ParsedCaption]) -> JsonObject:
        """The record's fields with its captions' tags; without captions, tags that came in stay."""
        fields = record.fields
        kinds: dict[str, str] = {}
        for caption in parsed:
            for tag, kind in caption.kinds.items():
                kinds.setdefault(tag, kind)
        sources: dict[str, list[str]] = {tag: [PARSED] for tag in kinds}
        if self.keep_tags or not parsed:
            known = kinds_of(fields)
            for tag in listed(fields, "tags"):
                kinds.setdefault(tag, known.get(tag) or self._kind_of(tag))
                sources.setdefault(tag, []).append(HUMAN)
        fields["tags"] = list(kinds)
        fields["caption_tags"] = [caption.tags for caption in parsed]
        fields["kinds"], fields["sources"] = kinds, sources
        set_tags(fields, list(kinds))
        if self.explain:
            explained: dict[str, list[JsonObject]] = {}
            for number, caption in enumerate(parsed):
                for mention in caption.mentions:
                    reason = {"caption": number, "words": mention.words, "rule": mention.rule}
                    if compounds := [x for x in caption.phrases if x.endswith(f" {mention.tag}")]:
                        reason["compounds"] = compounds
                    explained.setdefault(mention.tag, []).append(reason)
            fields["explain"] = explained
        self._counts.update(fields["tags"])
        return fields

    @cached_property
    def _mapper(self) -> LabelMapper:
        return LabelMapper(self.labels or Labels(()), Lexicon.shared())

    def _kind_of(self, tag: str) -> str:
        label = self._mapper.find(tag)
        return label.kind if label else Lexicon.shared().kind(tag)


def _captions_to_parse(record: Record, stats: JsonObject, *, strict: bool) -> list[str]:
    """The record's captions; RecordProblem where there is nothing to parse or keep.

    Counts in `stats` those of COUNTED; with `strict` one that is not in English is a problem.
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
            stats["empty_captions"] = stats.get("empty_captions", 0) + 1
        elif not is_english(caption, Lexicon.shared()):
            stats["foreign_captions"] = stats.get("foreign_captions", 0) + 1
            if strict:
                raise RecordProblem(f"not in English: {caption[:80]!r}", code="other_language")
    return captions


def encode_tags(fields: JsonObject) -> bytes:
    """The photo and the tags of a record alone."""
    return dumps({name: fields[name] for name in ("image", "tags") if name in fields})


def read_explained(fields: JsonObject) -> list[ParsedCaption]:
    """The captions of a record that `--explain` has parsed; RecordProblem for another record."""
    found: list[tuple[list[Mention], list[str]]] = [([], []) for _ in captions_of(fields)]
    try:
        for tag, kind in fields["kinds"].items():
            for reason in fields["explain"].get(tag, ()):
                mentions, phrases = found[reason["caption"]]
                mentions.append(Mention(0, tag, kind, str(reason["words"]), ""))
                phrases += reason.get("compounds", ())
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise RecordProblem("not as parse --explain writes it", code="bad_field") from error
    return [ParsedCaption(tuple(mentions), tuple(phrases)) for mentions, phrases in found]


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


def build_label_file(
    items: Iterable[Item],
    rejects: Rejects,
    path: Path,
    *,
    review: Path | None = None,
    merge: Iterable[Path] = (),
    size: int | None = None,
    jobs: int | None = 1,
) -> None:
    """Write the label system of all captions to `path`, and the `review` table if there is one.

    A `review` table that exists is read first and its decisions win. The names of the class lists
    `merge` join at most `size` labels. Records of `--explain` are not parsed again. RunProblem when
    there is no caption, and at the first reject with `strict`. Buffers four bytes per mention.
    """
    # Imported here: building compares contexts with scipy, which parsing records does not need.
    from ramctl.parsing.label_building import label_builder
    from ramctl.parsing.label_building.tag_counts import TagCounts

    report, counts = rejects.report, TagCounts()
    decisions = label_builder.read_review(review) if review else {}
    listed: dict[str, str] = {}
    for file in merge:
        for name in dict.fromkeys(label_builder.read_class_list(file)):
            listed[name] = f"{listed[name]}, {file.name}" if name in listed else file.name

    def unparsed(record: Record) -> list[str]:
        if not isinstance(record.fields.get("explain"), dict):
            return _captions_to_parse(record, report.extra, strict=rejects.strict)
        for caption in read_explained(record.fields):
            counts.add(caption)
        return []

    with report.progress() as advance, parsed_batches(None, jobs) as parse:
        read = chunks(accepted(items, unparsed, rejects), BATCH)
        batches = ((len(batch), [text for _, texts in batch for text in texts]) for batch in read)
        for n_records, parsed in parse(batches):
            for caption in parsed:
                counts.add(caption)
            report.n_out += n_records
            advance(n_records)
    if not counts.captions:
        raise RunProblem("no tags in the input: nothing to build a label system from")
    max_labels = size or label_builder.MAX_LABELS
    max_strings = max_labels * label_builder.MAX_STRINGS // label_builder.MAX_LABELS
    builder = label_builder.LabelBuilder(
        counts, Lexicon.shared(), listed, max_labels=max_labels, max_strings=max_strings
    )
    labels, candidates = builder.build(decisions)
    if not labels:
        least = f"{builder.min_count} captions"
        raise RunProblem(f"no tag is named in {least} or more: nothing to build a label system of")
    labels.write(path)
    if review:
        label_builder.write_review(review, candidates)
    report.extra["labels"] = len(labels)
    report.extra["strings"] = sum(1 + len(label.synonyms) for label in labels)
    report.notify(f"{len(labels)} labels in {path}")
