"""The tags that `generate` adds: those that the baseline predicts, or names in captions.

Source: RAM sec. 3.3. L labels.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.tags import implied_ids
from ramctl.errors import RecordProblem, attempt
from ramctl.inference.device_pool import run_on_devices, split_devices
from ramctl.inference.runner import ModelPhoto, ModelRunner, RunnerOptions
from ramctl.inference.selection import SelectionOptions, TagSelector
from ramctl.inference.vocabulary import open_vocabulary
from ramctl.model.ram import Encoded
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.jsonl import content_stamp
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    HUMAN,
    JsonObject,
    barred_tags,
    kinds_of,
    listed,
    lists_by_tag,
)
from ramctl.records.report import Report
from ramctl.records.stream import Batch, Outcome, Stage, StreamOptions, run_stream

PRECISION = 0.8  # of the tags that are added
CONFIRM = 0.7  # the fraction of its threshold that a caption's tag must reach
DECIMALS = 4  # of scores
OPPOSITES = {"indoor": "outdoor", "outdoor": "indoor"}


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The options of `ramctl generate`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    captions: int = 1
    threshold: str | None = None  # a number or a file; None: that of `precision`
    precision: float | None = None  # the fraction of the added tags that shall be right
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    text: str
    tags: list[str]


def write_captions(
    runner: ModelRunner, encoded: Encoded, tags: Sequence[list[str]], number: int
) -> list[list[Caption]]:
    """Up to `number` different captions of each of the first photos of a full batch.

    `tags` are their predicted tags. The search would find the same caption again, so each further
    one is guided by the tags that no caption has named yet.
    """
    assert runner.writer is not None  # opened for captions
    writer, guides = runner.writer, list(tags)
    captions: list[list[Caption]] = [[] for _ in tags]
    for _ in range(number):
        ordered = list(map(writer.ordered, guides))
        texts = writer.write(runner.engine, runner.score, encoded, ordered)
        parsed = writer.parsed(text or "" for text in texts)
        for index, (text, result) in enumerate(zip(texts, parsed, strict=True)):
            if text is not None and text not in {earlier.text for earlier in captions[index]}:
                captions[index].append(Caption(text, result.tags))
            guides[index] = [tag for tag in guides[index] if tag not in result.tags]
    return captions


class Generator:
    """Adds tags and captions to records, in batches: a worker of `run_on_devices`."""

    def __init__(
        self, options: GenerateOptions, *, device: str, notify: Callable[[str], None]
    ) -> None:
        self.bundle = bundle = Bundle.open(resolve_model(options.model))
        precision = options.precision
        if precision is None and options.threshold is None and "precisions" in bundle.meta:
            precision = PRECISION
        vocabulary = open_vocabulary(bundle, threshold=options.threshold, precision=precision)
        self.labels, self.thresholds = vocabulary.labels, vocabulary.thresholds
        self._select = TagSelector(vocabulary, SelectionOptions())
        self._n_captions = options.captions
        on_device = replace(options.runner, device=device)
        self.runner = ModelRunner(
            bundle, on_device, labels=self.labels, captions=options.captions > 0, notify=notify
        )

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `runner.batch` records, in order."""
        return self.runner.run(batches, self.runner.read, self.work)

    def work(self, photos: list[ModelPhoto]) -> Iterator[Outcome]:
        """The outcomes of the photos' records."""
        engine = self.runner.engine
        for batch in chunks(photos, self.runner.at_once):
            (pixels,) = self.runner.full_batches([photo.pixels for photo in batch])
            encoded = engine.encode(pixels)
            scores = self.runner.score(encoded)[: len(batch)]
            predicted = [self._select(row).scores for row in scores]
            captions: Sequence[list[Caption] | None] = [None] * len(batch)
            if self._n_captions:
                captions = write_captions(
                    self.runner, encoded, [*map(list, predicted)], self._n_captions
                )
            for photo, row, tags, written in zip(batch, scores, predicted, captions, strict=True):
                fields = photo.record.fields | {"generator": self.bundle.identity}
                is_confirmed = row > self.thresholds * CONFIRM
                yield attempt(
                    merge_generated, fields, self.labels, row, tags, written, is_confirmed
                )


def merge_generated(
    fields: JsonObject, labels: Labels, probabilities: NDArray[np.float32],
    predicted: Mapping[str, float], captions: Sequence[Caption] | None,
    is_confirmed: NDArray[np.bool_],
) -> JsonObject:  # fmt: skip
    """The record with new tags after its old ones, and their `kinds`, `sources` and `scores`.

    `probabilities` (L,) are the model's, `predicted` the tags that it gives, with theirs. Of the
    tags of captions only the confirmed (L,) are added; without `captions` that field does not
    change. Nothing is added that was `removed` from this record or denied, nor what tags imply.
    """
    kinds, sources = kinds_of(fields), _sources(fields, labels, predicted, captions, is_confirmed)
    ids = {tag: list(labels.ids(tag)) for tag in sources}
    merged: JsonObject = fields | {
        "tags": list(sources),
        "kinds": {
            tag: kinds.get(tag) or (labels[own[0]].kind if own else "object")
            for tag, own in ids.items()
        },
        "sources": sources,
        # A string with several ids scores their maximum; tags outside the system have no score.
        "scores": {
            tag: round(float(probabilities[own].max()), DECIMALS) for tag, own in ids.items() if own
        },
    }
    if captions is not None:
        merged["generated_captions"] = [caption.text for caption in captions]
        merged["generated_caption_tags"] = [list(caption.tags) for caption in captions]
    return merged


def _sources(
    fields: JsonObject, labels: Labels, predicted: Mapping[str, float],
    captions: Sequence[Caption] | None, is_confirmed: NDArray[np.bool_],
) -> dict[str, list[str]]:  # fmt: skip
    """The sources of the record's tags and of those that are added, in order."""
    tags, before = listed(fields, "tags"), lists_by_tag(fields, "sources")
    # A tag that came in without a source is a person's.
    sources = {tag: list(before.get(tag, [HUMAN])) for tag in tags}
    names = {index: tag for tag in reversed(tags) for index in labels.ids(tag)}
    found: list[tuple[int, str]] = []
    for caption in captions or ():
        for ids in map(labels.ids, caption.tags):
            if ids and (ids[0] in names or is_confirmed[list(ids)].any()):
                found.append((ids[0], BY_CAPTION))
    for tag, score in predicted.items():
        opposite = OPPOSITES.get(tag, "")
        if opposite not in tags and score >= predicted.get(opposite, 0):
            found.append((labels.ids(tag)[0], BY_TAG))
    barred = {index for tag in barred_tags(fields) for index in labels.ids(tag)}
    new = (labels[index].tag for index, _ in found if index not in barred)
    barred |= implied_ids([*tags, *new], labels)
    for index, source in found:
        if index in names or index not in barred:
            own = sources.setdefault(names.setdefault(index, labels[index].tag), [])
            own += [source] if source not in own else []
    return sources


def counted(stage: Stage, report: Report) -> Stage:
    """The stage; at its end it reports where the tags come from."""

    def run(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        n_records, by_source = 0, Counter[str]()
        for outcomes in stage(batches):
            for outcome in outcomes:
                if not isinstance(outcome, RecordProblem):
                    n_records += 1
                    # A tag counts once: by the last name, which is the one nearest to a person.
                    by_source.update(max(x, default=HUMAN) for x in outcome["sources"].values())
            yield outcomes
        shares = [f"{x} {n / n_records:.2f}" for x, n in sorted(by_source.items())]
        report.notify(f"tags a record: {', '.join(shares) or 'none'}")

    return run


def run(options: GenerateOptions) -> Report:
    """Generate for every record of the inputs; returns the report of the run."""
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("generate", quiet=options.quiet)
    source = options.stream.shard.of(read_inputs(inputs, options.root, report.command))
    devices = split_devices(options.runner.device)
    generator = Generator(options, device=devices[0], notify=report.notify)
    runner, stage = generator.runner, generator.stage
    report.device = str(runner.runtime.device)
    if len(devices) > 1:
        report.device = options.runner.device
        stage = partial(run_on_devices, partial(Generator, options), devices, report.notify)
    fingerprint = {
        "--model": generator.bundle.fingerprint,
        "--threshold": content_stamp(generator.thresholds.tobytes()),
        "--captions": str(options.captions),
    }
    stream = replace(options.stream, batch=runner.batch)
    return run_stream(report, source, counted(stage, report), stream, fingerprint=fingerprint)
