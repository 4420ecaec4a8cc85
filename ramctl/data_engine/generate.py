"""Adds the tags that captions leave out: those that the baseline predicts, or names in captions.

Source: RAM sec. 3.3.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.data_engine.baseline import Baseline, BaselineOptions, Photo
from ramctl.data_engine.captions import Caption, Captioner
from ramctl.data_engine.merge import merge_generated
from ramctl.data_engine.thresholds import to_add
from ramctl.errors import attempt
from ramctl.inference.batches import map_good
from ramctl.model.ram import Encoded
from ramctl.records.inputs import named_or_stdin, read_inputs, require_files
from ramctl.records.jsonl import content_stamp
from ramctl.records.record import JsonObject, Record, string_list
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
    threshold: str | None = None  # a number or a file; None: those of `precision`
    precision: float | None = None  # share of the added tags that shall be right
    confirm: float = CONFIRM  # a caption's tag must reach this share of its threshold
    seed: int = 0
    baseline: BaselineOptions = field(default_factory=BaselineOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


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
        self.n_records = self.n_before = self.n_after = 0
        self.by_source: Counter[str] = Counter()  # tags after

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `baseline.batch` records, in order."""
        for decoded in self.baseline.decoded(batches):
            yield map_good(decoded, self._generate)
        self._tell()

    def _generate(self, good: list[tuple[Record, Photo]]) -> list[Outcome]:
        """The outcomes of records whose photos were decoded."""
        records, photos = zip(*good, strict=True)
        preprocess = self.baseline.preprocess
        resized = [preprocess.resize(photo) for photo in photos]
        pixels = preprocess.full_batch(resized, self.baseline.batch)
        encoded, scores = self.baseline.engine.encode_and_score(pixels)
        scores = scores[: len(records)]
        captions = self._captions(encoded, scores, records)
        each = zip(records, scores, captions, strict=True)
        return [attempt(self._merge, *photo) for photo in each]

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
    ) -> JsonObject:
        n_before = len(string_list(record.fields, "tags"))
        labels, predicted = self.baseline.labels, self._predicted(probabilities)
        confirmed = probabilities > self.lowest
        fields = merge_generated(
            record.fields, labels, probabilities, predicted, captions, confirmed
        )
        self.n_records += 1
        self.n_before += n_before
        self.n_after += len(fields["sources"])
        self.by_source.update(chain.from_iterable(fields["sources"].values()))
        return fields

    def _tell(self) -> None:
        """Say the tags per record, and add the counts to `--stats`."""
        by_source, n = dict(sorted(self.by_source.items())), max(self.n_records, 1)
        self.report.extra |= {
            "tags_before": self.n_before, "tags_after": self.n_after, "tags_by_source": by_source,
        }  # fmt: skip
        by = ", ".join(f"{name} {count / n:.2f}" for name, count in by_source.items())
        self.report.say(
            f"tags a record: {self.n_before / n:.2f} before, {self.n_after / n:.2f} after"
            + (f" ({by})" if by else "")
        )


def run(options: GenerateOptions) -> Report:
    """Generate for every record of the inputs; returns the report of the run."""
    inputs = named_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("generate", quiet=options.quiet)
    source = read_inputs(inputs, options.root, report.command)
    baseline = Baseline.load(options.model, options.baseline, captioning=options.captions > 0)
    thresholds = to_add(options.threshold, options.precision, baseline.bundle)
    captioner = None
    if options.captions:
        captioner = Captioner(
            baseline, number=options.captions, decode=options.decode, seed=options.seed
        )
    report.device = str(baseline.runtime.device)
    baseline.say = report.say
    fingerprint = {
        "model": baseline.bundle.fingerprint,
        "thresholds": content_stamp(orjson.dumps(thresholds)),
        "captions": f"{options.captions} {options.decode} {options.seed} {options.confirm}",
    }
    generator = Generator(baseline, thresholds, captioner, report, options.confirm)
    stream = replace(options.stream, batch=baseline.batch)
    return run_stream(report, source, generator.stage, stream, fingerprint=fingerprint)
