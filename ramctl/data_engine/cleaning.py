"""Cleaning in three stages, detect, cluster, apply: the library behind `ramctl clean`.

No stage holds more than a shard, or one tag's sample of regions, at a time; everything else is in
the work folder, from which a killed run continues.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import orjson

from ramctl.checkpoints.bundle import EMBEDDED, Bundle, file_sha256, resolve_model
from ramctl.config import given_options
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.doubtful_tags import Review, region_doubts
from ramctl.data_engine.evidence import MIN_PROBABILITY, OutOfFold
from ramctl.data_engine.region_detectors import RegionFinder, detect, detector_facts, open_detector
from ramctl.data_engine.region_store import WORK, RegionIndex, WorkFolder, input_hash, spool
from ramctl.data_engine.removals import (
    UNDECIDED,
    Cleaner,
    Decisions,
    Rules,
    chosen_labels,
    decide,
    removing_rows,
)
from ramctl.decide.thresholds import label_thresholds
from ramctl.errors import RunProblem, UsageProblem
from ramctl.pages.review_page import review_page
from ramctl.records.files import output_lock, part_path, replacing, scratch_file, work_path
from ramctl.records.inputs import inputs_or_stdin, read_inputs, require_files
from ramctl.records.jsonl import unspool
from ramctl.records.ownership import PAGE, require_ours
from ramctl.records.pipes import STDIN
from ramctl.records.record import KINDS, Item, JsonObject, Record
from ramctl.records.report import Report
from ramctl.records.signals import GOES_ON, StopRequest, TimeIsUp, deadline
from ramctl.records.stream import Batch, Outcome, Stage, StreamOptions, each, run_stream
from ramctl.records.verdicts import Verdicts

OF_STAGE = {
    "detect": ("detector", "kinds"),
    "cluster": ("evidence", "min_probability", "outliers", "threshold", "min_regions", "seed"),
    "apply": ("decisions", "page"),
}


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """The options of `ramctl clean`, with their defaults."""

    inputs: tuple[str, ...] = ()  # JSONL; none or `-`: stdin
    root: str | None = None  # the folder of relative photo names
    model: str | None = None  # mini, or the model of the regions in `work`
    detector: str = "attention"
    kinds: Collection[str] = KINDS
    evidence: tuple[Path, ...] = ()  # files of other taggers' scores
    min_probability: float = MIN_PROBABILITY  # of being right; 0: never
    outliers: float = 0.0  # the fraction of a tag's regions that is removed
    threshold: str | None = None  # the score that a region must exceed: a number or a file
    min_regions: int = 1
    seed: int = 0
    decisions: tuple[Path, ...] = ()  # JSONL; a person's decisions outrank all of the above
    page: Path | None = None  # HTML that shows removed and added tags, to decide on
    work: Path | None = None  # a folder that keeps regions and decisions
    stage: str | None = None  # detect, cluster or apply alone, on `work`
    baseline: BaselineOptions = field(default_factory=BaselineOptions)
    stream: StreamOptions = field(default_factory=StreamOptions)
    quiet: bool = False
    inherited: Collection[str] = ()  # fields that the command line leaves out


def run(options: CleanOptions) -> Report:
    """Clean the inputs, or run one stage on a work folder; returns the report of the run.

    Only detection reads the inputs, only `apply` writes records. Without `work` the folder stands
    beside the output until that is complete.
    """
    source = _source(options)
    stream, work = options.stream, options.work
    require_ours(options.page, PAGE)
    require_ours(work, WORK)
    if work is not None and not stream.shard.is_all:
        # The shards of a folder may be filled side by side, none of them twice at a time.
        work = work / f"part-{stream.shard.index}-{stream.shard.number}"
        work.parent.mkdir(parents=True, exist_ok=True)
    with output_lock(stream.output, options.page, None if options.stage == "apply" else work):
        cleaning = Cleaning(options)
        if options.stage is None:
            return _run_all(cleaning, source)
        return _run_stage(cleaning, source)


def _source(options: CleanOptions) -> Iterator[Item]:
    """The inputs; UsageProblem where the options contradict each other."""
    stage = options.stage
    require_files([str(path) for path in options.evidence])
    if stage and options.work is None:
        raise UsageProblem(f"--stage {stage} needs --work DIR")
    for other in {"detect": ("cluster", "apply"), "cluster": ("apply",)}.get(stage or "", ()):
        given = [x.replace("page", "review") for x in given_options(options, OF_STAGE[other])]
        if other == "apply":
            given += [f"--{x}" for x in ("output", "rejects") if getattr(options.stream, x)]
        if given:
            raise UsageProblem(f"{given[0]} is for --stage {other}; give it there")
    if not options.stream.shard.is_all and stage != "detect":
        raise UsageProblem("--shard needs --stage detect: the other stages are one run")
    if stage in ("cluster", "apply"):
        if options.inputs:
            raise UsageProblem(f"--stage {stage} reads --work, not {options.inputs[0]}")
        return iter(())
    inputs = inputs_or_stdin(options.inputs, "records (JSONL)")
    if STDIN in inputs and Path(STDIN) in options.decisions:
        raise UsageProblem("records and --decisions cannot both be standard input")
    require_files(inputs)
    return read_inputs(inputs, options.root, "clean")


def _run_stage(cleaning: "Cleaning", source: Iterator[Item]) -> Report:
    options, report = cleaning.options, cleaning.report
    assert options.work is not None  # checked by _source
    folder = WorkFolder(options.work)
    if options.stage != "detect":
        cleaning.require_decided_so(folder)
    if options.stage == "apply":
        return cleaning.apply(folder)
    try:
        if options.stage == "detect":
            cleaning.detect(folder, source)
            rejects = folder.rejects(options.stream.shard)
            report.rejects.update(rejects)
            report.notify(f"{rejects.total()} inputs will be rejected by --stage apply")
        else:
            cleaning.cluster(folder)
    except TimeIsUp:
        return cleaning.out_of_time(f"the same command continues in {folder.path}")
    report.notify(f"{options.stage} done in {folder.path}")
    report.write_stats(options.stream.stats)
    return report


def _run_all(cleaning: "Cleaning", source: Iterable[Item]) -> Report:
    options, report = cleaning.options, cleaning.report
    output = options.stream.output
    with _work_folder(options, report.notify) as folder, scratch_file() as kept:
        is_complete = output is not None and output.exists() and not part_path(output).exists()
        if output and is_complete and options.stream.resume and not folder.path.exists():
            # With the same input there is nothing to do, and another one is refused: neither needs
            # a photo. The input may be a pipe, so it is kept.
            inputs = spool(source, kept)
            if options.work is None:
                WORK.remove(folder.path)  # the rest of one that was being removed
            return cleaning.count_done(inputs, unspool(iter(kept)))
        try:
            cleaning.detect(folder, source)
            cleaning.cluster(folder)
        except TimeIsUp:
            return cleaning.out_of_time(GOES_ON)
        cleaning.apply(folder)
        if options.work is None and report.n_left == 0:
            WORK.remove(folder.path)
    return report


@contextmanager
def _work_folder(options: CleanOptions, notify: Callable[[str], None]) -> Iterator[WorkFolder]:
    """The folder of `--work`, else one beside the output, else a temporary one."""
    work, stream = options.work, options.stream
    if work is None and stream.output is None:
        if stream.max_time is not None:
            raise UsageProblem("--max-time needs -o FILE or --work DIR to continue from")
        with tempfile.TemporaryDirectory(prefix="ramctl-clean-") as folder:
            yield WorkFolder(Path(folder))
        return
    if work is None:
        assert stream.output is not None
        work = work_path(stream.output)
        require_ours(work, WORK)
        if not stream.resume and WORK.is_on(work):
            notify(f"{work}: an unfinished run is discarded (--resume would have continued it)")
            WORK.remove(work)
    yield WorkFolder(work)


class Cleaning:
    """The stages with their options; each works on a work folder."""

    def __init__(self, options: CleanOptions) -> None:
        self.options = options
        self.model = options.model or "mini"
        if options.model is None and options.work and options.stage in ("cluster", "apply"):
            self.model = WorkFolder(options.work).settings().get("model_at", self.model)
        self.report = Report("clean", quiet=options.quiet, model=self.model)
        self.verdicts = Verdicts.read(options.decisions, "clean")
        self.bundle = Bundle.open(resolve_model(self.model))
        evidence = tuple(file_sha256(path) for path in options.evidence)
        thresholds: tuple[float, ...] = ()
        if options.threshold is not None:
            thresholds = tuple(label_thresholds(options.threshold, self.bundle.labels, -1.0))
        self.rules = Rules(
            options.min_probability, options.outliers, thresholds,
            options.seed, options.min_regions, evidence,
        )  # fmt: skip
        self._deadline = deadline(options.stream.max_time)

    @cached_property
    def settings(self) -> JsonObject:
        """The settings, besides the input, that the regions depend on."""
        return {
            "model": self.bundle.fingerprint,
            "detector": detector_facts(self.options.detector),
            "kinds": sorted(self.options.kinds),
        }

    def out_of_time(self, how_to_go_on: str) -> Report:
        """Report that `--max-time` ended the run before the last stage; returns the report."""
        self.report.time_is_up = True
        self.report.notify(f"--max-time is over; {how_to_go_on}")
        self.report.write_stats(self.options.stream.stats)
        return self.report

    def detect(self, work: WorkFolder, source: Iterable[Item]) -> None:
        """Find the regions of all inputs, with the options' baseline.

        Raises TimeIsUp, or Interrupted, with the finished shards in the folder.
        """
        options = self.options
        baseline = Baseline(self.bundle, options.baseline, captioning=False)
        is_ours = self.model == EMBEDDED
        work.start(self.settings, self.model if is_ours else str(self.bundle.path.resolve()))
        detector = open_detector(options.detector, baseline)
        crops = options.detector != "attention"
        finder = RegionFinder(baseline, detector, options.kinds, crops)
        self.report.device = str(baseline.runtime.device)
        baseline.notify = self.report.notify
        with self._stopping("records") as (stop, tick):
            shard, strict = options.stream.shard, options.stream.strict
            detect(work, _stoppable(source, stop), finder, part=shard, strict=strict, tick=tick)

    def require_decided_so(self, work: WorkFolder) -> None:
        """UsageProblem for options that the stages before, which they are for, did not have.

        Those with their defaults were left out.
        """
        self._require_model(work)
        decided: dict[str, JsonObject] = {"detect": work.settings()}
        if self.options.stage == "apply":
            decided["cluster"] = work.facts("cluster.json", UNDECIDED).get("settings", {})
        now = {"detect": self.settings, "cluster": asdict(self.rules)}
        for stage, then in decided.items():
            for flag in given_options(self.options, OF_STAGE[stage]):
                name = flag[2:].replace("-", "_").replace("threshold", "thresholds")
                if name in then and orjson.dumps(now[stage][name]) != orjson.dumps(then[name]):
                    raise UsageProblem(f"{flag}: --stage {stage} decides; give it there")

    def _require_model(self, work: WorkFolder) -> None:
        if work.settings()["model"] != self.bundle.fingerprint:
            raise RunProblem(f"{work.path}: the regions were found with another model")

    def cluster(self, work: WorkFolder) -> None:
        """Decide on every tag's regions; raises TimeIsUp, or Interrupted."""
        self._require_model(work)
        index = RegionIndex(work.shards())
        with self._stopping("tags", len(chosen_labels(index, self.rules))) as (_, tick):
            estimate = partial(OutOfFold(index).estimate, self.bundle, self.options.evidence)
            decide(work, index, self.rules, estimate, partial(tick, 1))

    def apply(self, work: WorkFolder) -> Report:
        """Write the page of `--review`, if any, and the records without the tags they lose."""
        shards, options = work.shards(), self.options
        index, decisions = RegionIndex(shards), Decisions.current(work)
        cleaner = Cleaner(index, removing_rows(decisions), self.verdicts, self.bundle.labels)
        inputs = input_hash([shard.facts["stamp"] for shard in shards])
        if options.page is not None:
            review = Review(cleaner, region_doubts(decisions, index))
            judged = review.judged(work.inputs(shards))
            n_photos = len({entry.record.file for entry in judged})
            progress = self.report.progress(options.stream.progress, unit="photos", total=n_photos)
            jobs = options.baseline.workers
            with progress as tick, replacing(options.page) as stream:
                # The browser keeps the decisions made on the page under the hash of the inputs.
                for piece in review_page(judged, review.totals, inputs, jobs=jobs, tick=tick):
                    stream.write(piece.encode("utf-8"))
            self.report.notify(f"{options.page}: {len(judged)} tags to judge on {n_photos} photos")

        def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
            yield from each(cleaner)(batches)
            self._summarise(cleaner, decisions)

        # From the work folder: `--stage apply` need not repeat the options.
        settings = {name: work.settings()[name] for name in self.settings}
        return self._stream(work.inputs(shards), stage, inputs, settings, decisions.folder.name)

    def count_done(self, inputs: str, source: Iterable[Item]) -> Report:
        """The run over an output that is complete: counts its records."""

        def unexpected(record: Record) -> JsonObject:
            raise RunProblem(f"{record.place}: should be done already; run without --resume")

        return self._stream(source, each(unexpected), inputs, self.settings, self.rules.key)

    def _stream(
        self, source: Iterable[Item], stage: Stage, inputs: str, settings: JsonObject, rules: str
    ) -> Report:
        """Run the stage with what its output depends on; a changed input changes every decision."""
        rules = input_hash([orjson.dumps(settings, option=orjson.OPT_SORT_KEYS).decode()]) + rules
        fingerprint = {"model": settings["model"], "input": inputs, "settings": rules}
        if self.verdicts.by_photo:
            fingerprint["decisions file"] = self.verdicts.stamp
        run_stream(self.report, source, stage, self.options.stream, fingerprint=fingerprint)
        self.verdicts.report_unused(self.report)
        return self.report

    def _summarise(self, cleaner: Cleaner, decisions: Decisions) -> None:
        """Report the decisions of persons, the removed tags, and those that stay, with reasons."""
        if verdicts := self.verdicts.by_photo.values():
            by_kind = Counter(chain.from_iterable(tags.values() for tags in verdicts))
            self.report.extra["decisions"] = dict(by_kind)
            counted = (f"{n} {verdict}" for verdict, n in sorted(by_kind.items()))
            self.report.notify(f"decisions: {', '.join(counted)}")
        untouched: Counter[str] = Counter()
        for shard in cleaner.index.shards:
            untouched.update(shard.facts["counts"])
        n_tags, n_regions = untouched.pop("tags", 0), untouched.pop("regions", 0)
        counts, decided = cleaner.index.counts(), set(decisions.labels)
        untouched["without a region"] = n_tags - n_regions - sum(untouched.values())
        untouched["with too few regions"] = sum(n for i, n in counts.items() if i not in decided)
        untouched = +untouched
        self.report.extra |= {
            "tags_before": dict(cleaner.before),
            "tags_after": dict(cleaner.after),
            "removed": dict(sorted(cleaner.reasons.items())),
            "left_alone": dict(sorted(untouched.items())),
            "cleaned_labels": len(decided),
        }
        removed, remaining = (
            ", ".join(f"{n} {why}" for why, n in sorted(counts.items())) or "none"
            for counts in (cleaner.reasons, untouched)
        )
        self.report.notify(
            f"{cleaner.before['tags']} tags before, {cleaner.after['tags']} after (removed: "
            f"{removed}); {len(decided)} labels examined; tags left alone: {remaining}"
        )

    @contextmanager
    def _stopping(
        self, unit: str, total: int | None = None
    ) -> Iterator[tuple[StopRequest, Callable[[int], None]]]:
        """A request to stop, and a function that counts units and raises if it has come."""
        stream = self.options.stream
        progress = self.report.progress(stream.progress, unit=unit, total=total)
        goes_on = GOES_ON if stream.output else ""
        goes_on = "the same command continues" if self.options.work else goes_on
        with StopRequest(self._deadline, goes_on) as stop, progress as advance:

            def tick(n: int) -> None:
                advance(n)
                stop.raise_if_due()

            yield stop, tick


def _stoppable(source: Iterable[Item], stop: StopRequest) -> Iterator[Item]:
    """The inputs; a signal that arrives while the next one is awaited ends them at once."""
    items = iter(source)
    while True:
        with stop.waiting():
            item = next(items, None)
        if item is None:
            return
        yield item
