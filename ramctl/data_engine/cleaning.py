"""Cleaning, the library behind `ramctl clean`: find regions, decide on each, remove tags.

Decisions need the regions of all records, so all are read before the first is written.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.probabilities import MIN_PROBABILITY, probabilities
from ramctl.data_engine.region_detectors import RegionFinder, open_detector
from ramctl.data_engine.region_store import RegionStore
from ramctl.data_engine.removal import Remover, Rules, decide
from ramctl.inference.thresholds import label_thresholds
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.record import KINDS, Item, Reject
from ramctl.records.report import Report
from ramctl.records.stream import Batch, Format, Outcome, StreamOptions, each, run_stream

WHOLE = Format(footer=list)  # as a document, which --resume cannot continue


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """The options of `ramctl clean`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    detector: str = "attention"
    kinds: Collection[str] = KINDS
    min_probability: float = MIN_PROBABILITY  # of being right; 0: never
    outliers: float = 0.0  # the fraction of a tag's regions that is removed
    threshold: str | None = None  # the score that a region must exceed: a number or a file
    baseline: BaselineOptions = field(default_factory=BaselineOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: CleanOptions) -> Report:
    """Clean the records of the inputs; returns the report of the run."""
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("clean", quiet=options.quiet, model=options.model)
    bundle = Bundle.open(resolve_model(options.model))
    thresholds: Sequence[float] = ()
    if options.threshold is not None:
        thresholds = label_thresholds(options.threshold, bundle.labels, -1.0)
    rules = Rules(options.min_probability, options.outliers, thresholds)
    baseline = Baseline(bundle, options.baseline, captioning=False)
    baseline.notify = report.notify
    report.device = str(baseline.runtime.device)
    detector = open_detector(options.detector, baseline)
    finder = RegionFinder(baseline, detector, options.kinds, options.detector != "attention")
    remover = Remover(RegionStore(), bundle.labels)

    def decided() -> Iterator[Item]:
        """The inputs, after all of them have been read and their tags decided on."""
        store = remover.store
        with report.progress() as tick:
            for item, found in finder.find(read_inputs(inputs, options.root, "clean")):
                if isinstance(item, Reject) and options.stream.strict:
                    item.fail()
                store.add(item, *found)
                tick(1)
        remover.decisions = decide(store, rules, probabilities(store, bundle))
        yield from store.inputs()

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        yield from each(remover)(batches)
        _summarise(report, remover, finder.counts)

    # A signal ends it at once while it reads: nothing is written before.
    stream = replace(options.stream, progress=False)
    fingerprint = {"model": bundle.fingerprint}
    return run_stream(report, decided(), stage, stream, fingerprint=fingerprint, form=WHOLE)


def _summarise(report: Report, remover: Remover, counts: Counter[str]) -> None:
    """Report the removed tags, and those that had no region, with reasons."""
    untouched = Counter(counts)
    n_without = untouched.pop("tags", 0) - len(remover.store.regions)
    untouched["without a region"] = n_without - untouched.total()
    untouched = +untouched
    report.extra |= {
        "tags_before": dict(remover.before),
        "tags_after": dict(remover.after),
        "removed": dict(sorted(remover.reasons.items())),
        "left_alone": dict(sorted(untouched.items())),
    }
    removed, remaining = (
        ", ".join(f"{n} {why}" for why, n in sorted(counts.items())) or "none"
        for counts in (remover.reasons, untouched)
    )
    report.notify(
        f"{remover.before['tags']} tags before, {remover.after['tags']} after (removed: "
        f"{removed}); tags left alone: {remaining}"
    )
