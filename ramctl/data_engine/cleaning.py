"""Cleaning, the library behind `ramctl clean`: find regions, decide on each, remove tags.

Decisions need the regions of all records, so all are read before the first is written. Whatever
the rule, a person's tags stay, and tags that others imply.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.model_rule import improbable_tags
from ramctl.data_engine.paper_rule import OUTLIERS, unlike_tags
from ramctl.data_engine.region_store import Decisions, RegionStore
from ramctl.data_engine.tag_regions import ATTENTION, RegionFinder, cropped, pooled, whole
from ramctl.data_engine.tags import implied_ids
from ramctl.errors import UsageProblem
from ramctl.inference.log_odds import sigmoid
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.inference.vocabulary import open_vocabulary
from ramctl.records.choices import KINDS
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.labels import Labels
from ramctl.records.record import Item, JsonObject, Record, listed, removed_from, set_tags
from ramctl.records.report import Report
from ramctl.records.stream import DOCUMENT, Batch, Outcome, StreamOptions, each, run_stream

DIGITS = 4  # of numbers in records


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """The options of `ramctl clean`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    rule: str = "model"  # or paper
    detector: str = ATTENTION
    kinds: Collection[str] | None = None  # None: all, by the paper's rule objects and scenes
    outliers: float | None = None  # the fraction of a tag's regions that is removed
    threshold: str | None = None  # that a region must exceed: a number or a file
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: CleanOptions) -> Report:
    """Clean the records of the inputs; returns the report of the run."""
    by_paper = options.rule == "paper"
    if not by_paper and (options.outliers, options.threshold) != (None, None):
        raise UsageProblem("--outliers and --threshold are the paper's: add --rule paper")
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("clean", quiet=options.quiet)
    bundle = Bundle.open(resolve_model(options.model))
    vocabulary = open_vocabulary(bundle, threshold=options.threshold)
    labels, store = vocabulary.labels, RegionStore()
    runner = ModelRunner(bundle, options.runner, labels=labels, notify=report.notify)
    report.device = str(runner.runtime.device)
    score = whole if not by_paper else pooled if options.detector == ATTENTION else cropped
    kinds = options.kinds or (KINDS[:2] if by_paper else KINDS)
    finder = RegionFinder(bundle, runner, options.detector, kinds, score)

    def inputs_after_all_are_read() -> Iterator[Item]:
        generators = set[object]()
        with report.progress() as tick:
            for item, found in finder.find(read_inputs(inputs, options.root, "clean")):
                store.add(item, *found)
                generators.add(getattr(item, "fields", {}).get("generator", bundle.identity))
                tick(1)
        if others := generators - {bundle.identity}:
            names = ", ".join(sorted(map(str, others)))
            report.notify(f"warning: {names} generated tags, {bundle.identity} judges (--model)")
        yield from store.inputs()

    @cache  # called first when all are read
    def decisions() -> Decisions:
        if not by_paper:
            return improbable_tags(store, labels)
        outliers = OUTLIERS if options.outliers is None else options.outliers
        return unlike_tags(store, vocabulary.thresholds, outliers)

    reasons = Counter[str]()  # of removed tags

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        yield from each(lambda x: cleaned(x, store, labels, decisions(), reasons))(batches)
        words = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))
        if not (words or by_paper):
            words = "--rule paper removes more"
        number = f"{reasons.total():,} of {len(store.regions):,} tags removed"
        report.notify(f"{number}: {words}" if words else number)

    # A signal ends it at once while it reads: nothing is written before.
    stream = replace(options.stream, progress=False)
    fingerprint = {"--model": bundle.fingerprint}
    items = inputs_after_all_are_read()
    return run_stream(report, items, stage, stream, fingerprint=fingerprint, form=DOCUMENT)


def cleaned(
    record: Record, store: RegionStore, labels: Labels, decisions: Decisions, reasons: Counter[str]
) -> JsonObject:
    """The record, whose key is its number in the store, without the tags that it loses.

    `reasons` counts them. Parents in `labels` stay beside their children.
    """
    fields, tags = record.fields, listed(record.fields, "tags")
    rows = store.rows_of(int(record.key))
    parts = store.regions[rows], decisions.reasons[rows], decisions.distance[rows]
    lost = {
        tags[region["place"]]: {
            "tag": tags[region["place"]],
            "reason": str(reason),
            "box": [round(float(side), DIGITS) for side in region["box"]],
            "score": round(float(sigmoid(region["log_odds"].astype(np.float64))), DIGITS),
            "distance": None if np.isnan(distance) else round(float(distance), DIGITS),
        }
        for region, reason, distance in zip(*parts, strict=True)
        if reason and not region["is_human"]
    }
    implied = implied_ids((tag for tag in tags if tag not in lost), labels)
    lost = {tag: entry for tag, entry in lost.items() if implied.isdisjoint(labels.ids(tag))}
    if lost:
        set_tags(fields, [tag for tag in tags if tag not in lost])
        fields["removed"] = [*removed_from(fields), *lost.values()]
        reasons.update(entry["reason"] for entry in lost.values())
    return fields
