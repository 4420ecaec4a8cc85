"""Adds the tags that captions leave out: those that the baseline predicts, or names in captions.

Source: RAM sec. 3.3.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.baseline import Baseline, BaselineOptions, Photo
from ramctl.data_engine.captions import Caption, Captioner, ParseTags
from ramctl.data_engine.merge import merge_generated
from ramctl.data_engine.thresholds import global_or_file, thresholds_hash
from ramctl.errors import RecordProblem
from ramctl.inference.batches import map_good
from ramctl.labels import LabelSystem
from ramctl.model.ram import Encoded
from ramctl.parsing.parser import CaptionParser
from ramctl.records.inputs import named_or_stdin, read_inputs, require_files
from ramctl.records.record import Record, string_list
from ramctl.records.report import Report
from ramctl.records.stream import Batch, Outcome, StreamOptions, run_stream

# Of the tags that a baseline's captions added, 35 % were right where the model also scored them
# above their threshold, and 4 % where it did not (judged by the photos' other captions).
CONFIRM = 0.5


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """What `ramctl generate` is asked for; the defaults are its own."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    captions: int = 1
    decode: str = "beam:3"
    threshold: str | None = None  # a number or a file; None: the model's, per tag
    confirm: float = CONFIRM  # a caption's tag must reach this share of its threshold
    seed: int = 0
    baseline: BaselineOptions = field(default_factory=BaselineOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


@dataclass
class TagCounts:
    """Counts tags before and after, by source."""

    records: int = 0
    before: int = 0
    after: int = 0
    by_source: Counter[str] = field(default_factory=Counter)

    def add(self, n_before: int, sources: dict[str, list[str]]) -> None:
        """Count one record."""
        self.records += 1
        self.before += n_before
        self.after += len(sources)
        for named in sources.values():
            self.by_source.update(named)

    def tell(self, report: Report) -> None:
        """Say the tags per record, and add the counts to `--stats`."""
        report.extra |= {
            "tags_before": self.before,
            "tags_after": self.after,
            "tags_by_source": dict(sorted(self.by_source.items())),
        }
        n = max(self.records, 1)
        by = ", ".join(f"{name} {count / n:.2f}" for name, count in sorted(self.by_source.items()))
        report.say(
            f"tags a record: {self.before / n:.2f} before, {self.after / n:.2f} after"
            + (f" ({by})" if by else "")
        )


class Generator:
    """The stage that adds tags and captions to records, in batches."""

    def __init__(
        self,
        baseline: Baseline,
        thresholds: list[float],
        captioner: Captioner | None,
        report: Report,
        confirm: float = CONFIRM,
    ) -> None:
        self.baseline = baseline
        self.thresholds = np.array(thresholds, np.float32)
        self.lowest = self.thresholds * confirm if confirm else np.full(len(thresholds), -1.0)
        self.captioner = captioner
        self.report = report
        self.counts = TagCounts()

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `baseline.batch` records, in order."""
        for decoded in self.baseline.decoded(batches):
            yield map_good(decoded, self._generate)
        self.counts.tell(self.report)

    def _generate(self, good: list[tuple[Record, Photo]]) -> Iterator[Outcome]:
        """The outcomes of records whose photos were decoded."""
        records, photos = zip(*good, strict=True)
        preprocess = self.baseline.preprocess
        resized = [preprocess.resize(photo) for photo in photos]
        pixels = preprocess.full_batch(resized, self.baseline.batch)
        encoded, scores = self.baseline.engine.encode_and_score(pixels)
        scores = scores[: len(records)]
        return map(self._merge, records, scores, self._captions(encoded, scores, records))

    def _predicted(self, probabilities: NDArray[np.float32]) -> list[int]:
        """The ids of labels above their thresholds, by falling probability."""
        above = np.flatnonzero(probabilities > self.thresholds)
        ids: list[int] = above[np.argsort(-probabilities[above], kind="stable")].tolist()
        return ids

    def _captions(
        self, encoded: Encoded, scores: NDArray[np.float32], records: Sequence[Record]
    ) -> list[list[Caption] | None]:
        if self.captioner is None:
            return [None] * len(records)
        labels = self.baseline.labels
        tags = [[labels[index].tag for index in self._predicted(row)] for row in scores]
        return list(self.captioner.captions(encoded, tags, [record.stamp for record in records]))

    def _merge(
        self, record: Record, probabilities: NDArray[np.float32], captions: list[Caption] | None
    ) -> Outcome:
        try:
            n_before = len(string_list(record.fields, "tags"))
            labels, predicted = self.baseline.labels, self._predicted(probabilities)
            confirmed = probabilities > self.lowest
            fields = merge_generated(
                record.fields, labels, probabilities, predicted, captions, confirmed
            )
        except RecordProblem as problem:
            return problem
        self.counts.add(n_before, fields["sources"])
        return fields


def run(options: GenerateOptions) -> Report:
    """Generate for every record of the inputs; returns the report of the run."""
    inputs = named_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("generate", quiet=options.quiet)
    source = read_inputs(inputs, options.root, report.command)
    baseline = Baseline.load(options.model, options.baseline, captioning=options.captions > 0)
    thresholds = global_or_file(options.threshold, baseline.bundle)
    captioner = None
    if options.captions:
        parse = caption_parser(baseline.labels)
        captioner = Captioner(
            baseline, parse, number=options.captions, decode=options.decode, seed=options.seed
        )
    report.device = str(baseline.device)
    baseline.say = report.say
    fingerprint = {
        "model": baseline.bundle.fingerprint,
        "thresholds": thresholds_hash(thresholds),
        "captions": f"{options.captions} {options.decode} {options.seed} {options.confirm}",
    }
    generator = Generator(baseline, thresholds, captioner, report, options.confirm)
    stream = replace(options.stream, batch=baseline.batch)
    return run_stream(report, source, generator.stage, stream, fingerprint=fingerprint)


def caption_parser(labels: LabelSystem) -> ParseTags:
    """Captions to tags of the label system; the parser is loaded for the first caption."""
    parsers: list[CaptionParser] = []

    def parse(captions: list[str]) -> list[list[str]]:
        if not parsers:
            parsers.append(CaptionParser.closed(labels))
        return [parsed.tags for parsed in parsers[0].parse(captions)]

    return parse
