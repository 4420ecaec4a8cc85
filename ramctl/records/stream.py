"""The loop of every record command: read, process, write in order, reject, resume, stop.

A stage turns batches of records into batches of outcomes, in order and of the same length. It gets
an iterator so that it may work ahead (decode while the model runs); each outcome is the output
object or the RecordProblem that sends the record to the rejects.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

from ramctl.errors import Interrupted, RecordProblem, RunProblem, attempt
from ramctl.records.files import is_device, output_lock, replacing, state_path
from ramctl.records.jsonl import dumps, loads, stamp_of
from ramctl.records.outputs import (
    PartFile,
    Sink,
    StreamSink,
    led,
    open_rejects,
    records_to_stdout,
    rejects_file,
    unfinished_bytes,
)
from ramctl.records.ownership import require_own_outputs
from ramctl.records.record import Item, JsonObject, Record, Reject
from ramctl.records.report import Report
from ramctl.records.shards import ALL, Shard
from ramctl.records.signals import GOES_ON, StopRequest, deadline
from ramctl.records.state import Collection, Entry, Problem, ResumeState, Status, roll_forward

Outcome = JsonObject | RecordProblem
Batch = list[Record]
Stage = Callable[[Iterator[Batch]], Iterator[list[Outcome]]]
Encoder = Callable[[JsonObject], bytes]
_Wanted = tuple[Record, Entry | None]  # a record, and what it takes the place of
_Work = _Wanted | Callable[[], None]  # or what writes a reject once all before it is written
BATCH = 256


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options that all record commands share, about their streams."""

    output: Path | None = None
    resume: bool = False
    retry_rejects: bool = False
    rejects: str | None = None
    strict: bool = False
    stats: Path | None = None
    max_time: float | None = None
    progress: bool | None = None
    batch: int | None = None  # None: as the stage likes it, else BATCH
    ray: str | None = None  # the cluster that does the inputs; see `ray_engine`
    made_from: Mapping[str, str] = field(default_factory=dict)  # the output depends on it too
    shard: Shard = ALL  # the part of the inputs that is read; see `shard_of`


def each(do: Callable[[Record], JsonObject]) -> Stage:
    """A stage that processes records one by one; RecordProblem rejects the record."""

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        for batch in batches:
            yield [attempt(do, record) for record in batch]

    return stage


def watched(stage: Stage, notice: Callable[[Record, Outcome], Outcome]) -> Stage:
    """The stage with each outcome replaced by `notice(record, outcome)`, in order."""

    def watching(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        ahead: deque[Batch] = deque()

        def noted() -> Iterator[Batch]:
            for batch in batches:
                ahead.append(batch)
                yield batch

        for outcomes in stage(noted()):
            pairs = zip(ahead.popleft(), outcomes, strict=True)
            yield [notice(record, outcome) for record, outcome in pairs]

    return watching


def and_then(stage: Stage, act: Callable[[Record, JsonObject], object]) -> Stage:
    """The stage, followed by `act(record, output)`; a RecordProblem that it raises is the outcome.

    What a record stands for is done first, so that no line is written for what failed.
    """

    def notice(record: Record, outcome: Outcome) -> Outcome:
        problem = None if isinstance(outcome, RecordProblem) else attempt(act, record, outcome)
        return problem if isinstance(problem, RecordProblem) else outcome

    return watched(stage, notice)


def unless_known(stage: Stage) -> Stage:
    """The stage for the records whose output is not known from an earlier run."""

    def staged(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        ahead: deque[Batch] = deque()

        def unknown() -> Iterator[Batch]:
            for batch in batches:
                ahead.append(batch)
                if to_do := [record for record in batch if record.known is None]:
                    yield to_do

        for outcomes in stage(unknown()):
            while all(record.known is not None for record in ahead[0]):
                yield _known(ahead.popleft(), iter(()))
            yield _known(ahead.popleft(), iter(outcomes))
        while ahead:
            yield _known(ahead.popleft(), iter(()))

    return staged


def _known(batch: Batch, found: Iterator[Outcome]) -> list[Outcome]:
    """What is known of each record, else the next outcome that was found."""
    return [next(found) if record.known is None else record.known for record in batch]


def run_stream(
    report: Report,
    source: Iterable[Item],
    stage: Stage,
    options: StreamOptions,
    *,
    fingerprint: Mapping[str, str] | None = None,
    encode: Encoder = dumps,
    header: bytes = b"",
    lead: bytes = b"",
    footer: Callable[[], Iterable[bytes]] = tuple,
    collection: Collection | None = None,
) -> Report:
    """Run `stage` over `source` and write what comes out; returns the filled report.

    `fingerprint` names what the output depends on (model, labels, thresholds) for `--resume`;
    `encode` makes the bytes of one output object, `header` comes before the first,
    what `footer` gives after the last of a finished run. `lead` are fields, `,"name":value`, that
    the first line has besides its own. With a `collection`, whose stage is `unless_known`, the
    output is JSONL.
    Raises Interrupted after saving when a signal asked to stop, UsageProblem when two outputs are
    one file, RunProblem when output cannot be written or another run is writing it, and at the
    first reject with `strict`.
    """
    with ExitStack() as stack:
        rejects = rejects_file(options.rejects)
        require_own_outputs(options.output, rejects, options.stats)
        stack.enter_context(output_lock(options.output, rejects, say=report.say))
        goes_on = GOES_ON if options.output and not is_device(options.output) else ""
        stop = stack.enter_context(StopRequest(deadline(options.max_time), goes_on))
        depends = {**(fingerprint or {}), **options.made_from}
        by_stamp = collection is not None and collection.by_content
        outputs = _Outputs.open(report, options, depends, len(header), stack, by_stamp=by_stamp)
        output = outputs.sinks["done"]
        needs = lead, not output.end
        run = _Run(iter(source), report, options, outputs, encode, stop, *needs, collection)
        if header and output.end == 0:
            output.write(header)
        advance = stack.enter_context(report.progress(_is_bar_shown(options)))
        try:
            for outcomes in stage(run.batches()):
                run.write(outcomes)
                advance(len(outcomes))
        except Interrupted:
            outputs.save()
        except BaseException:
            with suppress(OSError, RunProblem):  # the first problem is the one to tell
                outputs.save()
            raise
        if stop.signum is None:
            run.finish(footer())
    report.finish(options.stats)
    stop.raise_if_signalled()
    return report


def _is_bar_shown(options: StreamOptions) -> bool | None:
    """As asked for; not between records that are written to the same screen."""
    is_on_screen = options.output is None and sys.stdout and sys.stdout.isatty()
    return False if options.progress is None and is_on_screen else options.progress


@dataclass(slots=True)
class _Outputs:
    """The output and the rejects of a run, with the state by which `--resume` continues both.

    The state is always written last, so that it never names lines that a crash has lost.
    """

    sinks: dict[Status, Sink]
    state: ResumeState | None
    output: Path | None

    @classmethod
    def open(
        cls,
        report: Report,
        options: StreamOptions,
        fingerprint: Mapping[str, str],
        n_header: int,
        stack: ExitStack,
        *,
        by_stamp: bool = False,
    ) -> "_Outputs":
        """New outputs, or with `resume` those of an earlier run, cut where its state ends."""
        output, rejects = options.output, rejects_file(options.rejects)
        if output is None or is_device(output):
            if options.resume:
                raise RunProblem("--resume needs -o FILE: only a file can be continued")
            opened = replacing(output) if output else records_to_stdout()
            sink = StreamSink(stack.enter_context(opened))
            rejected = open_rejects(options.rejects, resume=False)
            return cls({"done": sink, "rejected": rejected}, None, output)
        file = rejects if rejects is not None and not is_device(rejects) else None
        state = ResumeState(
            state_path(output), report.command, fingerprint, file, n_header, by_stamp=by_stamp
        )
        if not options.resume:
            # First, so that no crash leaves the old state beside a new part.
            state.start(report.say)
            opened_rejects = open_rejects(options.rejects, resume=False)
            return cls({"done": PartFile(output), "rejected": opened_rejects}, state, output)
        roll_forward(output)
        done = PartFile(output, resume=True)
        state.load(done.end, unfinished_bytes(file))
        rejected = open_rejects(options.rejects, resume=state.continues_rejects)
        sinks: dict[Status, Sink] = {"done": done, "rejected": rejected}
        for status, end in state.ends.items():
            is_there = sinks[status].end >= end  # all of it, the header included
            sinks[status].cut(end if is_there or status == "rejected" else 0)
        return cls(sinks, state, output)

    def earlier(self, key: str) -> Entry | None:
        """What an earlier run did with an input."""
        return self.state.take(key) if self.state else None

    def record_of(self, entry: Entry) -> JsonObject:
        """What an earlier run has written of an input that is done."""
        return loads(self.sinks["done"].line_before(entry.end))

    @property
    def keeps_rejects(self) -> bool:
        """Whether rejects go to a file that a later run may continue."""
        return isinstance(self.sinks["rejected"], PartFile)

    def write(
        self,
        status: Status,
        key: str,
        stamp: str,
        line: bytes,
        *,
        problem: Problem | None = None,
        drops: Entry | None = None,
    ) -> None:
        """Write what became of an input, in place of what an earlier run has written of it."""
        end = self.sinks[status].write(line)
        if self.state:
            self.state.add(key, stamp, status, end, problem=problem, drops=drops)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        for sink in self.sinks.values():
            sink.flush()
        if self.state:
            self.state.flush()

    def save(self) -> None:
        """Leave everything on disk as it is, for `--resume` to continue."""
        self.flush()
        self.sinks["done"].close()
        if self.state:
            self.sinks["rejected"].close()
            self.state.close()
        else:
            self.sinks["rejected"].finish()

    def finish(self, lead: bytes) -> None:
        """Give the files their names, without what was dropped; the first line has the `lead`."""
        self.flush()
        if self.state and self.output:
            if self.state.has_dropped:
                lead = lead if self.state.loses_first else b""
                self.sinks["done"].compact(self.state.stale("done"), lead)
                self.sinks["rejected"].compact(self.state.stale("rejected"))
                self.state.close()
                self.state.compact(len(lead))
                roll_forward(self.output)
            self.state.close()
            self.state.sync()
        for sink in self.sinks.values():
            sink.finish()


def _records(batch: list[_Work]) -> Batch:
    return [work[0] for work in batch if not callable(work)]


@dataclass(slots=True)
class _Run:
    """The loop's two ends: records on their way into the stage, outcomes on their way out."""

    items: Iterator[Item]
    report: Report
    options: StreamOptions
    outputs: _Outputs
    encode: Encoder
    stop: StopRequest
    lead: bytes
    needs_lead: bool  # the output has no first line yet
    collection: Collection | None = None
    positions: Iterator[int] = field(default_factory=count)
    in_flight: deque[list[_Work]] = field(default_factory=deque)
    retried: deque[_Wanted] = field(default_factory=deque)

    def batches(self) -> Iterator[Batch]:
        """The records that are still to do, in batches.

        Rejects among them wait for what was read before, so that all are in the order of the
        input; of many in a row a batch is empty, which lets the stage hand over what it has.
        """
        size = self.options.batch or BATCH
        batch: list[_Work] = []
        for work in self._wanted():
            if callable(work) and not batch and not self.in_flight:
                work()
                continue
            batch.append(work)
            if len(batch) == size:
                self.in_flight.append(batch)
                yield _records(batch)
                batch = []
        # Ends a stage that works ahead at once; what it has not handed over is done on resuming.
        self.stop.raise_if_signalled()
        if batch:
            self.in_flight.append(batch)
            yield _records(batch)

    def _wanted(self) -> Iterator[_Work]:
        """The records that are still to do, and rejects to write; earlier rejects last."""
        while not self.stop.is_due:
            try:
                with self.stop.waiting():
                    item = next(self.items, None)
            except Interrupted:
                return
            if item is None:
                break
            key = self._key(item)
            if isinstance(item, Record):
                item.key = key
            entry = self.outputs.earlier(key)
            if entry is not None and self._is_done(item, entry):
                if entry.problem is not None and self._lacks_line(item, entry):
                    yield partial(self._write_earlier_reject, key, item, entry, entry.problem)
                continue
            self.report.n_in += 1
            if isinstance(item, Record):
                yield item, entry or self._renamed(item)
            else:
                yield partial(self._write_reject, item, key, stamp_of(item), entry)
        while self.retried and not self.stop.is_due:
            self.report.n_in += 1
            yield self.retried.popleft()

    def _key(self, item: Item) -> str:
        """What names an input in the state: its own key, else its position."""
        position = str(next(self.positions))
        return (item.key if isinstance(item, Record) else "") or position

    def _write_reject(self, reject: Reject, key: str, stamp: str, drops: Entry | None) -> None:
        self.report.reject(reject)
        problem, line = (reject.code, reject.message), dumps(reject.to_json())
        self.outputs.write("rejected", key, stamp, line, problem=problem, drops=drops)
        if self.options.strict:
            reject.fail()

    def _is_retried(self, item: Item, entry: Entry) -> bool:
        again = self.options.retry_rejects
        return again and isinstance(item, Record) and entry.status == "rejected"

    def _lacks_line(self, item: Item, entry: Entry) -> bool:
        """Whether an earlier run had no file for a reject, for which there is one now."""
        is_bare = entry.status == "rejected" and not entry.is_written
        return is_bare and self.outputs.keeps_rejects and not self._is_retried(item, entry)

    def _is_done(self, item: Item, entry: Entry) -> bool:
        """Whether an input needs nothing now; a reject that is to be retried waits for the end."""
        if entry.stamp != stamp_of(item):
            return False
        if isinstance(item, Record) and self._is_retried(item, entry):
            self.retried.append((item, entry))
            return True
        if entry.status == "rejected":
            if entry.problem is None and self._lacks_line(item, entry):
                return False
            self.report.n_rejected_before += 1
        elif self._is_incomplete(item, entry):
            return False
        self.report.n_skipped += 1
        return True

    def _is_incomplete(self, item: Item, entry: Entry) -> bool:
        """Whether something beside a photo that is done is missing; its output is then known."""
        known = partial(self.outputs.record_of, entry)
        if self.collection and isinstance(item, Record) and self.collection.lacks(item, known):
            item.known = known()
            return True
        return False

    def _renamed(self, record: Record) -> Entry | None:
        """The entry of a photo that had another name; what it found is known of the record."""
        state, collection = self.outputs.state, self.collection
        if state is None or collection is None or not record.stamp:
            return None
        entry = state.take_renamed(record.stamp, collection.is_gone)
        if entry is not None:
            record.known = self.outputs.record_of(entry) | {"image": record.fields["image"]}
            self.report.n_renamed += 1
        return entry

    def _write_earlier_reject(self, key: str, item: Item, entry: Entry, problem: Problem) -> None:
        """Write the line of a reject that an earlier run had no file for."""
        reject = item
        if isinstance(item, Record):
            command = self.report.command
            reject = Reject(item.source, item.line, command, *problem, record=item.fields)
        assert isinstance(reject, Reject)
        line = dumps(reject.to_json())
        self.outputs.write("rejected", key, entry.stamp, line, problem=problem, drops=entry)

    def write(self, outcomes: list[Outcome]) -> None:
        """Write the outcomes of the batch that went in first."""
        batch, left = self.in_flight.popleft(), iter(outcomes)
        if len(_records(batch)) != len(outcomes):
            raise RuntimeError("a stage must give one outcome for each record")
        for work in batch:
            if callable(work):
                work()
            else:
                self._write(*work, next(left))
        self.outputs.flush()

    def _write(self, record: Record, earlier: Entry | None, outcome: Outcome) -> None:
        if isinstance(outcome, RecordProblem):
            reject = Reject.of(record, outcome, self.report.command)
            self._write_reject(reject, record.key, record.stamp, earlier)
            return
        line = self._led(self.encode(outcome)) if self.lead else self.encode(outcome)
        self.outputs.write("done", record.key, record.stamp, line, drops=earlier)
        self.report.n_out += 1

    def _led(self, line: bytes) -> bytes:
        """The line with the lead if it is the first; else without that of a photo now renamed."""
        bare = line.removesuffix(self.lead + b"}\n")
        if bare != line:
            line = bare + b"}\n"
        if self.needs_lead:
            line, self.needs_lead = led(line, self.lead), False
        return line

    def _prune(self, collection: Collection) -> None:
        """Drop the records of photos that are gone, once those with new names have theirs."""
        report, state = self.report, self.outputs.state
        if not report.has_found:
            report.warn("no photo was found, so --prune drops nothing (is the disk mounted?)")
        elif state is not None and not report.time_is_up:
            report.n_pruned = state.prune(collection.is_gone)

    def finish(self, footer: Iterable[bytes]) -> None:
        """Count what the time limit left undone, and complete the outputs."""
        if self.stop.is_due:
            for item in self.items:
                entry = self.outputs.earlier(self._key(item))
                if entry is None or entry.stamp != stamp_of(item):
                    self.report.n_left += 1
                elif entry.status == "rejected":
                    self.report.n_rejected_before += 1
            self.report.time_is_up = self.report.n_left > 0
        if self.outputs.state is not None and (n_gone := self.outputs.state.drop_doubled()):
            self.report.say(f"{n_gone} inputs of an earlier run are gone; what they gave stays")
        if self.collection is not None and self.collection.prune:
            self._prune(self.collection)
        # Those that the time did not suffice to try again are rejects still.
        self.report.n_rejected_before += len(self.retried)
        for part in footer:
            self.outputs.sinks["done"].write(part)
        self.outputs.finish(self.lead)
