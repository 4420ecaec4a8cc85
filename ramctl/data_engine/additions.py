"""The tags that `generate` adds: those that the baseline predicts, or names in captions.

Source: RAM sec. 3.3.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import CALIBRATION, Bundle
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.tags import implied_ids
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.inference.calibration import Calibration
from ramctl.inference.device_pool import run_on_devices, split_devices
from ramctl.inference.runner import Pixels
from ramctl.inference.thresholds import label_thresholds, thresholds_of
from ramctl.labels import Labels
from ramctl.model.ram import Encoded
from ramctl.records.inputs import inputs_or_stdin, require_files, unread_inputs
from ramctl.records.jsonl import content_stamp
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    HUMAN,
    JsonObject,
    Record,
    barred_tags,
    kinds_of,
    listed,
    lists_by_tag,
)
from ramctl.records.report import Report
from ramctl.records.stream import Batch, Outcome, Stage, StreamOptions, run_stream, watched

PRECISION = 0.8  # of the tags that are added
CONFIRM = 0.7  # the fraction of its threshold that a caption's tag must reach
SCORE_DIGITS = 4
OPPOSITES = {"indoor": "outdoor", "outdoor": "indoor"}


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The options of `ramctl generate`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    captions: int = 1
    threshold: str | None = None  # a number or a file; None: those of `precision`
    precision: float | None = None  # the fraction of the added tags that shall be right
    baseline: BaselineOptions = field(default_factory=BaselineOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Caption:
    text: str
    tags: list[str]


def write_captions(
    baseline: Baseline, encoded: Encoded, tags: Sequence[list[str]], number: int
) -> list[list[Caption]]:
    """Up to `number` different captions of each of the first photos of a full batch.

    `tags` are their predicted tags by falling probability. The search would find the same caption
    again, so each further one is prompted by the tags that no caption has named yet.
    """
    assert baseline.writer is not None  # opened for captions
    writer, prompts = baseline.writer, list(tags)
    captions: list[list[Caption]] = [[] for _ in tags]
    for _ in range(number):
        texts = writer.write(baseline.engine, encoded, list(map(writer.ordered, prompts)))
        parsed = writer.parsed(text or "" for text in texts)
        for index, (text, result) in enumerate(zip(texts, parsed, strict=True)):
            if text is None:
                continue
            if text not in {earlier.text for earlier in captions[index]}:
                captions[index].append(Caption(text, result.tags))
            prompts[index] = [tag for tag in prompts[index] if tag not in result.tags]
    return captions


class Generator:
    """Adds tags and captions to records, in batches: a worker of `run_on_devices`."""

    def __init__(
        self, options: GenerateOptions, *, device: str, notify: Callable[[str], None]
    ) -> None:
        on_device = replace(options.baseline, device=device)
        self.baseline = Baseline.load(options.model, on_device, captioning=options.captions > 0)
        self.baseline.notify = notify
        self.workers = self.baseline.workers
        thresholds = thresholds_to_add(options.threshold, options.precision, self.baseline.bundle)
        self.thresholds = np.array(thresholds, np.float32)
        self.n_captions = options.captions

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `baseline.batch` records, in order."""
        return self.baseline.run(batches, self.prepare, self.work)

    def prepare(self, record: Record) -> tuple[Record, Pixels]:
        """The record with its photo as the model takes it; RecordProblem where there is none."""
        return record, self.baseline.preprocess.resize(self.baseline.decode(record))

    def work(self, prepared: list[tuple[Record, Pixels]]) -> Iterator[Outcome]:
        """The outcomes of prepared records."""
        labels = self.baseline.labels
        for batch in chunks(prepared, self.baseline.at_once):
            records, photos = zip(*batch, strict=True)
            (pixels,) = self.baseline.full_batches(photos)
            encoded, scores = self.baseline.engine.encode_and_score(pixels)
            scores = scores[: len(records)]
            predicted = [self._predicted(row) for row in scores]
            captions: Sequence[list[Caption] | None] = [None] * len(records)
            if self.n_captions:
                tags = [[labels[index].tag for index in ids] for ids in predicted]
                captions = write_captions(self.baseline, encoded, tags, self.n_captions)
            for record, row, ids, written in zip(records, scores, predicted, captions, strict=True):
                confirmed = row > self.thresholds * np.float32(CONFIRM)
                yield attempt(merge_generated, record.fields, labels, row, ids, written, confirmed)

    def _predicted(self, probabilities: NDArray[np.float32]) -> list[int]:
        """The ids of labels above their thresholds, by falling probability."""
        above = np.flatnonzero(probabilities > self.thresholds)
        return above[np.argsort(-probabilities[above], kind="stable")].tolist()


def thresholds_to_add(
    threshold: str | None, precision: float | None, bundle: Bundle
) -> list[float]:
    """The threshold of each label, which a score must exceed to add the label.

    By default it is chosen for PRECISION if the model is calibrated; else it is the model's.
    """
    if threshold is not None and precision is not None:
        raise UsageProblem("--precision chooses the thresholds: leave out --threshold")
    if threshold is not None:
        return label_thresholds(threshold, bundle.labels, bundle.threshold)
    if precision is not None or not bundle.has(CALIBRATION):
        return thresholds_of(bundle, precision=precision)
    try:
        return Calibration.from_bundle(bundle).thresholds(PRECISION).tolist()
    except RunProblem as problem:
        raise RunProblem(f"{problem}; --precision or --threshold chooses another") from problem


def merge_generated(
    fields: JsonObject,
    labels: Labels,
    probabilities: NDArray[np.float32],
    predicted: Sequence[int],
    captions: Sequence[Caption] | None,
    confirmed: NDArray[np.bool_],
) -> JsonObject:
    """The record with new tags after its old ones, and their `kinds`, `sources` and `scores`.

    `probabilities` (L) are the model's, `predicted` the ids above their thresholds; of opposites
    only the more probable is added, and none that other tags imply. A tag that was `removed` from
    this record is not added again. Without `captions` that field does not change; of their tags
    only the `confirmed` (L) are added.
    """
    old = listed(fields, "tags")
    rivals = {labels[index].tag: probabilities[index] for index in predicted}
    rivals |= dict.fromkeys(old, np.float32(1))
    opposites = [OPPOSITES.get(labels[index].tag, "") for index in predicted]
    pairs = zip(predicted, opposites, strict=True)
    predicted = [index for index, other in pairs if probabilities[index] > rivals.get(other, 0)]
    sources = _sources(fields, labels, predicted, captions or (), confirmed)
    tags = [*old, *(tag for tag in sources if tag not in set(old))]
    kinds = kinds_of(fields)
    known = {tag: str(labels[ids[0]].kind) for tag in tags if (ids := labels.ids(tag))}
    # A string with several ids scores their maximum; tags outside the system have no score.
    scores = {tag: [float(probabilities[index]) for index in labels.ids(tag)] for tag in tags}
    merged: JsonObject = fields | {
        "tags": tags,
        "kinds": {tag: kinds.get(tag) or known.get(tag, "object") for tag in tags},
        "sources": {tag: sources[tag] for tag in tags},
        "scores": {tag: round(max(by_id), SCORE_DIGITS) for tag, by_id in scores.items() if by_id},
    }
    if captions is not None:
        merged["generated_captions"] = [caption.text for caption in captions]
        merged["generated_caption_tags"] = [list(caption.tags) for caption in captions]
    return merged


def _sources(
    fields: JsonObject,
    labels: Labels,
    predicted: Sequence[int],
    captions: Sequence[Caption],
    confirmed: NDArray[np.bool_],
) -> dict[str, list[str]]:
    """The sources of the record's tags and of those that are added, in order."""
    tags, before = listed(fields, "tags"), lists_by_tag(fields, "sources")
    # A tag that came in without a source is a person's.
    sources = {tag: list(before.get(tag, [HUMAN])) for tag in tags}
    known = {index: tag for tag in reversed(tags) for index in labels.ids(tag)}
    barred = {index for tag in barred_tags(fields) for index in labels.ids(tag)} - known.keys()
    added: list[tuple[int, str]] = []
    for tag in chain.from_iterable(caption.tags for caption in captions):
        ids = labels.ids(tag)
        if ids and (ids[0] in known or confirmed[list(ids)].any()):
            added.append((ids[0], BY_CAPTION))
    added += [(index, BY_TAG) for index in predicted]
    certain = (labels[index].tag for index, _ in added if index not in barred)
    implied = implied_ids([*tags, *certain], labels) - known.keys()
    for index, source in added:
        if index not in barred | implied:
            names = sources.setdefault(known.setdefault(index, labels[index].tag), [])
            names += [source] if source not in names else []
    return sources


def counted(stage: Stage, report: Report) -> Stage:
    """The stage; at its end it reports the tags before and after it."""

    counts, by_source = Counter[str](), Counter[str]()

    def count(record: Record, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, RecordProblem):
            sources, n_before = outcome["sources"].values(), len(listed(record.fields, "tags"))
            counts.update(records=1, before=n_before, after=len(sources))
            # A tag counts once: by the last name, which is the one nearest to a person.
            by_source.update(max(names, default=HUMAN) for names in sources)
        return outcome

    def run(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        yield from watched(stage, count)(batches)
        n = max(counts["records"], 1)
        report.extra |= {f"tags_{when}": counts[when] for when in ("before", "after")}
        report.extra["tags_by_source"] = dict(sorted(by_source.items()))
        by = ", ".join(f"{name} {count / n:.2f}" for name, count in sorted(by_source.items()))
        report.notify(
            f"tags a record: {counts['before'] / n:.2f} before, {counts['after'] / n:.2f} after"
            + (f" ({by})" if by else "")
        )

    return run


def run(options: GenerateOptions) -> Report:
    """Generate for every record of the inputs; returns the report of the run."""
    stream = options.stream
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("generate", quiet=options.quiet, model=options.model)
    read = partial(unread_inputs, inputs, options.root, report.command)
    source = stream.shard.of(read())
    devices = split_devices(options.baseline.device)
    generator = Generator(options, device=devices[0], notify=report.notify)
    baseline = generator.baseline
    stage: Stage = generator.stage
    report.device = str(baseline.runtime.device)
    if options.threshold is None and not baseline.bundle.has(CALIBRATION):
        report.notify(f"{options.model} is not calibrated: using its thresholds")
    if len(devices) > 1:
        report.device = options.baseline.device
        stage = partial(run_on_devices, partial(Generator, options), devices, report.notify)
    fingerprint = {
        "model": baseline.bundle.fingerprint,
        "thresholds": content_stamp(generator.thresholds.tobytes()),
        "captions": str(options.captions),
    }
    stream = replace(stream, batch=baseline.batch)
    return run_stream(report, source, counted(stage, report), stream, fingerprint=fingerprint)
