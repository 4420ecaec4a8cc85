"""Cleaning in three stages, detect, cluster, apply: the library behind `ramctl clean`.

No stage holds more than a shard, or one tag's sample of regions, at a time; all else is in the
work folder, where a killed run goes on.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.apply import Cleaner, Removals
from ramctl.data_engine.baseline import Baseline, BaselineOptions
from ramctl.data_engine.cluster import ClusterSettings
from ramctl.data_engine.decide import Decisions, RegionIndex, Rules, chosen_labels, decide
from ramctl.data_engine.detect import RegionFinder, Scope, detect
from ramctl.data_engine.detectors import detector_facts, open_detector, open_embedder
from ramctl.data_engine.region_store import Item, WorkFolder, input_hash
from ramctl.data_engine.thresholds import DEFAULT_TO_KEEP, by_own_regions, to_keep
from ramctl.errors import Interrupted, RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.records.files import write_atomic
from ramctl.records.progress import progress_bar
from ramctl.records.report import Report
from ramctl.records.signals import StopRequest
from ramctl.records.stream import Batch, Outcome, StreamOptions, each, run_stream


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """What is cleaned and how; the defaults are those of `ramctl clean`."""

    model: str = "mini"
    detector: str = "attention"
    embed: str | None = None  # pool or crop; None: pool where the detector is the model's own
    kinds: frozenset[str] = frozenset({"object", "scene"})
    only: str | None = None  # a file of tags, or top:K
    threshold: str = DEFAULT_TO_KEEP  # as --threshold
    clustering: ClusterSettings = field(default_factory=ClusterSettings)
    min_regions: int = 5
    protect: tuple[str, ...] = ("human",)
    part: tuple[int, int] = (0, 1)  # this process's share of the work: i of n
    baseline: BaselineOptions = field(default_factory=BaselineOptions)

    @property
    def embed_kind(self) -> str:
        """`pool` or `crop`."""
        return self.embed or ("pool" if self.detector == "attention" else "crop")

    @property
    def top(self) -> int | None:
        """K of `--only top:K`."""
        if self.only is None or not self.only.startswith("top:"):
            return None
        number = self.only.removeprefix("top:")
        if not number.isdecimal() or int(number) < 1:
            raise UsageProblem(f"--only {self.only}: expected top:K, for example top:534")
        return int(number)


class TimeIsUp(Exception):
    """`--max-time` is over; what was done is in the work folder."""


class Cleaning:
    """The stages with their options; each works on a work folder."""

    def __init__(self, options: CleanOptions, report: Report, stream: StreamOptions) -> None:
        self.options = options
        self.report = report
        self.stream = stream
        self.bundle = Bundle.open(resolve_model(options.model))
        self._deadline = time.monotonic() + stream.max_time if stream.max_time else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the regions depend on besides the input."""
        options, only = self.options, self._only
        return {
            "model": self.bundle.fingerprint,
            "detector": detector_facts(options.detector),
            "embed": options.embed_kind,
            "kinds": sorted(options.kinds),
            "only": None if only is None else sorted(only),
        }

    @cached_property
    def _only(self) -> frozenset[int] | None:
        """The label ids of `--only FILE`."""
        if self.options.only is None or self.options.top is not None:
            return None
        asked = LabelSystem.read(Path(self.options.only)).tags
        ids = frozenset(index for tag in asked for index in self.bundle.labels.ids(tag))
        if not ids:
            raise UsageProblem(f"--only {self.options.only}: the model knows none of its tags")
        return ids

    @cached_property
    def rules(self) -> Rules:
        """What the decisions depend on besides the regions."""
        options, bundle = self.options, self.bundle
        of_own = by_own_regions(options.threshold)
        thresholds = () if of_own else tuple(to_keep(options.threshold, bundle))
        return Rules(
            options.clustering, thresholds, of_own, options.min_regions, options.top,
            options.protect,
        )  # fmt: skip

    def fingerprint(self, inputs: str, settings: dict[str, Any], rules: str) -> dict[str, str]:
        """What the output depends on, for `--resume`; a changed input changes every decision."""
        found_with = input_hash([orjson.dumps(settings, option=orjson.OPT_SORT_KEYS).decode()])
        return {"model": settings["model"], "input": inputs, "settings": found_with + rules}

    def detect(
        self, work: WorkFolder, source: Iterable[Item], baseline: Baseline | None = None
    ) -> None:
        """Find the regions of all inputs, with the model's own baseline; raises TimeIsUp."""
        options = self.options
        baseline = baseline or Baseline(self.bundle, options.baseline, captioning=False)
        work.start(self.settings)
        finder = RegionFinder(
            baseline,
            open_detector(options.detector, baseline),
            open_embedder(options.embed_kind),
            Scope(self.bundle.labels, options.kinds, self._only),
            whole_photos=options.embed_kind == "crop" or options.detector != "attention",
        )
        self.report.device = str(baseline.device)
        with self._ticks("records") as (tick, stop):
            items = _stoppable(source, stop)
            detect(work, items, finder, part=options.part, strict=self.stream.strict, tick=tick)

    def cluster(self, work: WorkFolder) -> None:
        """Decide on every tag's regions; raises TimeIsUp."""
        if work.settings()["model"] != self.bundle.fingerprint:
            raise RunProblem(f"{work.path}: the regions were found with another model")
        index = RegionIndex(work.shards())
        with self._ticks("tags", len(chosen_labels(index, self.rules))) as (tick, _):
            decide(work, index, self.rules, part=self.options.part, tick=lambda: tick(1))

    def apply(self, work: WorkFolder) -> Report:
        """Write the records without the tags that they lose."""
        shards = work.shards()
        decisions = Decisions.current(work)
        cleaner = Cleaner(RegionIndex(shards), Removals.of(decisions))

        def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
            yield from each(cleaner)(batches)
            self._tell(cleaner, decisions)

        hashes = input_hash([shard.facts["stamp"] for shard in shards])
        settings = {name: work.settings()[name] for name in self.settings}
        fingerprint = self.fingerprint(hashes, settings, decisions.folder.name)
        inputs = work.inputs(shards)
        return run_stream(self.report, inputs, stage, self.stream, fingerprint=fingerprint)

    def page(self, work: WorkFolder, path: Path) -> None:
        """Write the page that shows what is removed and what is kept."""
        from ramctl.data_engine.report import cleaning_report
        from ramctl.pages.cleaning import cleaning_page

        index, decisions = RegionIndex(work.shards()), Decisions.current(work)
        seed = self.options.clustering.seed
        report = cleaning_report(index, decisions, self.bundle.labels, seed)
        write_atomic(path, cleaning_page(report).encode("utf-8"))

    def rejects(self, work: WorkFolder) -> Counter[str]:
        """The inputs of this part that cannot be done, by reject code."""
        codes: Counter[str] = Counter()
        for shard in work.shards_of(*self.options.part):
            codes.update(shard.facts["rejects"])
        return codes

    def _tell(self, cleaner: Cleaner, decisions: Decisions) -> None:
        """Say what was removed, what was left alone and why."""
        alone: Counter[str] = Counter()
        for shard in cleaner.index.shards:
            alone.update(shard.facts["counts"])
        n_tags, n_regions = alone.pop("tags", 0), alone.pop("regions", 0)
        counts, decided = cleaner.index.counts(), set(decisions.labels)
        few = sum(n for label, n in counts.items() if label not in decided)
        alone["without a region"] = n_tags - n_regions - sum(alone.values())
        alone["with too few regions"] = few
        alone = +alone
        self.report.extra |= {
            "tags_before": dict(cleaner.before),
            "tags_after": dict(cleaner.after),
            "removed": dict(sorted(cleaner.reasons.items())),
            "left_alone": dict(sorted(alone.items())),
            "cleaned_labels": len(decided),
        }
        removed = ", ".join(f"{n} {reason}" for reason, n in sorted(cleaner.reasons.items()))
        self.report.say(
            f"{cleaner.before['tags']} tags before, {cleaner.after['tags']} after "
            f"({removed or 'none removed'}); {len(decided)} labels looked at"
        )
        left = ", ".join(f"{n} {why}" for why, n in sorted(alone.items()))
        if left:
            self.report.say(f"tags left alone: {left}")

    @contextmanager
    def _ticks(
        self, unit: str, total: int | None = None
    ) -> Iterator[tuple[Callable[[int], None], StopRequest]]:
        """Counts units as done, and ends the stage when a signal or the time asks for it."""
        shown = self.stream.progress
        title = self.report.command
        with StopRequest() as stop, progress_bar(title, unit, shown=shown, total=total) as bar:

            def tick(n: int) -> None:
                bar.update(n)
                if stop.signum is not None:
                    raise Interrupted(stop.signum)
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    raise TimeIsUp

            yield tick, stop


def _stoppable(source: Iterable[Item], stop: StopRequest) -> Iterator[Item]:
    """The inputs; a signal that arrives while the next one is waited for ends it at once."""
    items = iter(source)
    while True:
        with stop.waiting():
            item = next(items, None)
        if item is None:
            return
        yield item
