"""Cleaning, the library behind `ramctl clean`: find regions, decide on each, remove tags.

Decisions need the regions of all records, so all are read before the first is written.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.model_rule import improbable_tags
from ramctl.data_engine.paper_rule import OUTLIERS, unlike_tags
from ramctl.data_engine.region_store import RegionStore
from ramctl.data_engine.removal import Decisions, Remover
from ramctl.data_engine.tag_regions import ATTENTION, RegionFinder, cropped, pooled, whole
from ramctl.errors import UsageProblem
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.inference.vocabulary import open_vocabulary
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.record import KINDS, Item, Reject
from ramctl.records.report import Report
from ramctl.records.stream import DOCUMENT, Batch, Outcome, StreamOptions, each, run_stream

MODEL, PAPER = "model", "paper"


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """The options of `ramctl clean`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str = "mini"
    rule: str = MODEL  # or PAPER
    detector: str = ATTENTION
    kinds: Collection[str] | None = None  # None: all, by the paper's rule objects and scenes
    outliers: float | None = None  # the fraction of a tag's regions that is removed
    threshold: str | None = None  # that a region must exceed: a number or a file
    runner: RunnerOptions = field(default_factory=RunnerOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False


def run(options: CleanOptions) -> Report:
    """Clean the records of the inputs; returns the report of the run."""
    by_paper = options.rule == PAPER
    if not by_paper and (options.outliers, options.threshold) != (None, None):
        raise UsageProblem("--outliers and --threshold are the paper's: add --rule paper")
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    require_files(inputs)
    report = Report("clean", quiet=options.quiet, model=options.model)
    bundle = Bundle.open(resolve_model(options.model))
    vocabulary = open_vocabulary(bundle, threshold=options.threshold)
    labels = vocabulary.labels
    runner = ModelRunner(bundle, options.runner, labels=labels, notify=report.notify)
    report.device = str(runner.runtime.device)
    score = whole if not by_paper else pooled if options.detector == ATTENTION else cropped
    usual = KINDS[:2] if by_paper else KINDS
    kinds = usual if options.kinds is None else options.kinds
    finder = RegionFinder(bundle, runner, options.detector, kinds, score)

    store = RegionStore()
    remover = Remover(store, labels)

    def decisions() -> Decisions:
        if by_paper:
            outliers = OUTLIERS if options.outliers is None else options.outliers
            return unlike_tags(store, vocabulary.thresholds, outliers)
        return improbable_tags(store, labels)

    def decided() -> Iterator[Item]:
        """The inputs, after all of them have been read and their tags decided on."""
        with report.progress() as tick:
            for item, found in finder.find(read_inputs(inputs, options.root, "clean")):
                if isinstance(item, Reject) and options.stream.strict:
                    item.fail()
                store.add(item, *found)
                tick(1)
        remover.decisions = decisions()
        yield from store.inputs()

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        yield from each(remover)(batches)
        _summarise(report, remover, by_paper=by_paper)

    # A signal ends it at once while it reads: nothing is written before.
    stream = replace(options.stream, progress=False)
    fingerprint = {"model": bundle.fingerprint}
    return run_stream(report, decided(), stage, stream, fingerprint=fingerprint, form=DOCUMENT)


def _summarise(report: Report, remover: Remover, *, by_paper: bool) -> None:
    """Report how many tags were looked at, and how many each reason removed."""
    n_tags, reasons = len(remover.store.regions), remover.reasons
    report.extra |= {"tags": n_tags, "removed": dict(sorted(reasons.items()))}
    by_reason = ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))
    more = "" if by_paper else "--rule paper removes more"
    why = by_reason if reasons else more
    report.notify(f"{reasons.total():,} of {n_tags:,} tags removed" + (f": {why}" if why else ""))
