"""What `ramctl parse` runs: records to tagged records, or captions to a label system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramctl.errors import RecordProblem, RunProblem
from ramctl.labels import LabelSystem
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.mapping import LabelMapper
from ramctl.parsing.parser import ParsedCaption
from ramctl.parsing.records import ParseCounts, captions_to_parse, with_tags
from ramctl.parsing.workers import parsed_batches
from ramctl.records.record import Record, Reject, image_name
from ramctl.records.report import Report, progress_bar
from ramctl.records.stream import Batch, Outcome

if TYPE_CHECKING:
    from ramctl.parsing.build import BuiltLabels, Sizes

BATCH = 256


@dataclass(frozen=True, slots=True)
class ParseOptions:
    """How records are parsed."""

    labels: LabelSystem | None = None
    jobs: int = 1
    keep_tags: bool = False
    explain: bool = False
    needs_image: bool = False


class ParseStage:
    """A stage of `run_stream` that adds tags; `counts` holds what `--stats` tells of it."""

    def __init__(self, options: ParseOptions) -> None:
        self.options = options
        self.counts = ParseCounts()
        self._mapper: LabelMapper | None = None
        #: Filled when the last record is through.
        self.stats: dict[str, Any] = {}

    def __call__(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """One list of outcomes a batch, in order."""
        with parsed_batches(self.options.labels, self.options.jobs) as parse:
            works = (_work(batch, needs_image=self.options.needs_image) for batch in batches)
            for work, parsed in parse(works):
                yield self._outcomes(work, parsed)
        self.stats.update(self.counts.to_json())

    def _outcomes(
        self, work: list[tuple[Record, int | RecordProblem]], parsed: list[ParsedCaption]
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []
        place = 0
        for record, n_captions in work:
            if isinstance(n_captions, RecordProblem):
                outcomes.append(n_captions)
                continue
            mine = parsed[place : place + n_captions]
            place += n_captions
            given = {tag: self._kind_of(tag) for tag in record.fields.get("tags") or []}
            fields = with_tags(
                record, mine, given, keep_tags=self.options.keep_tags, explain=self.options.explain
            )
            self.counts.add(fields)
            outcomes.append(fields)
        return outcomes

    def _kind_of(self, tag: str) -> str:
        """The kind of a tag that came in: its label's, else the lexicon's."""
        lexicon = Lexicon.shared()
        if self.options.labels is not None:
            if self._mapper is None:
                self._mapper = LabelMapper(self.options.labels, lexicon)
            label = self._mapper.find(tag)
            if label is not None:
                return label.kind
        return lexicon.kind(tag)


def _work(
    batch: Batch, *, needs_image: bool
) -> tuple[list[tuple[Record, int | RecordProblem]], list[str]]:
    """Each record with the number of its captions or its problem, and all captions."""
    work: list[tuple[Record, int | RecordProblem]] = []
    captions: list[str] = []
    for record in batch:
        try:
            mine = captions_to_parse(record)
            if needs_image:
                image_name(record.fields)
        except RecordProblem as problem:
            work.append((record, problem))
            continue
        work.append((record, len(mine)))
        captions += mine
    return work, captions


def build_label_file(
    items: Iterable[Record | Reject],
    report: Report,
    path: Path,
    *,
    review: Path | None = None,
    jobs: int = 1,
    strict: bool = False,
    sizes: Sizes | None = None,
    progress: bool | None = None,
) -> BuiltLabels:
    """Write the label system of all captions to `path`, and the review table if asked for.

    A `review` that exists is read first and its decisions win. Raises RunProblem when there
    is no caption, and at the first reject with `strict`. Buffers four bytes a mention.
    """
    # Only here: contexts are compared with scipy, which parsing records does not need.
    from ramctl.parsing.build import Sizes, build_labels
    from ramctl.parsing.counts import TagCounts
    from ramctl.parsing.review import read_review, write_review

    counts = TagCounts()
    decisions = read_review(review) if review else {}
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(report.command, report.unit, shown=progress))
        parse = stack.enter_context(parsed_batches(None, jobs))
        for n_records, parsed in parse(_caption_batches(items, report, strict)):
            for caption in parsed:
                counts.add(caption)
            report.n_out += n_records
            bar.update(n_records)
    if not counts.captions:
        raise RunProblem("no tags in the input: nothing to build a label system from")
    built = build_labels(counts, Lexicon.shared(), sizes or Sizes(), decisions)
    built.labels.write(path)
    if review:
        write_review(review, built.candidates)
    report.extra["labels"] = len(built.labels)
    report.extra["strings"] = sum(1 + len(label.synonyms) for label in built.labels)
    return built


def _caption_batches(
    items: Iterable[Record | Reject], report: Report, strict: bool
) -> Iterator[tuple[int, list[str]]]:
    captions: list[str] = []
    n_records = 0
    for item in items:
        report.n_in += 1
        reject = item if isinstance(item, Reject) else None
        if isinstance(item, Record):
            try:
                captions += captions_to_parse(item)
                n_records += 1
            except RecordProblem as problem:
                reject = Reject.of(item, problem, report.command)
        if reject is not None:
            report.reject(reject)
            if strict:
                reject.fail()
        if len(captions) >= BATCH:
            yield n_records, captions
            captions, n_records = [], 0
    yield n_records, captions
