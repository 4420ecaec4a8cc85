"""One loop for every record command: read, do, write in order, reject, resume, stop.

A stage turns batches of records into batches of outcomes, in order and of the same length. It is
handed an iterator so that it may work ahead (decode while the model runs); each outcome is the
output object or the RecordProblem that sends the record to the rejects.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ramctl.errors import Interrupted, RecordProblem, RunProblem
from ramctl.records.files import PartFile, write_atomic
from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.progress import progress_bar
from ramctl.records.record import Record
from ramctl.records.report import Reject, Report
from ramctl.records.signals import StopRequest
from ramctl.records.sinks import RejectSink, Sink, StreamSink, is_device, open_rejects
from ramctl.records.state import Entry, ResumeState
from ramctl.records.stdio import records_to_stdout

Outcome = dict[str, Any] | RecordProblem
Batch = list[Record]
Stage = Callable[[Iterator[Batch]], Iterator[list[Outcome]]]
Encoder = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What the common options of a record command say about its streams."""

    output: Path | None = None
    resume: bool = False
    retry_rejects: bool = False
    rejects: str | None = None
    strict: bool = False
    stats: Path | None = None
    max_time: float | None = None
    progress: bool | None = None
    batch: int = 64

    @property
    def continues(self) -> bool:
        """Whether an earlier run's output will be continued, so that its first line is there."""
        if not self.resume or self.output is None:
            return False
        part = self.output.with_name(self.output.name + ".part")
        return any(file.is_file() and file.stat().st_size for file in (part, self.output))


@dataclass(slots=True)
class _Run:
    report: Report
    options: StreamOptions
    sink: Sink
    rejects: RejectSink
    encode: Encoder
    stop: StopRequest
    state: ResumeState | None
    positions: Iterator[int] = field(default_factory=lambda: iter(range(1 << 62)))
    deadline: float | None = None
    retried: list[tuple[Record, Entry]] = field(default_factory=list)


def each(do: Callable[[Record], dict[str, Any]]) -> Stage:
    """A stage that does records one by one; RecordProblem rejects the record."""

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        for batch in batches:
            outcomes: list[Outcome] = []
            for record in batch:
                try:
                    outcomes.append(do(record))
                except RecordProblem as problem:
                    outcomes.append(problem)
            yield outcomes

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


def run_stream(
    report: Report,
    source: Iterable[Record | Reject],
    stage: Stage,
    options: StreamOptions,
    *,
    fingerprint: Mapping[str, str] | None = None,
    encode: Encoder = dumps,
    header: bytes = b"",
    footer: bytes = b"",
) -> Report:
    """Run `stage` over `source` and write what comes out; returns the filled report.

    `fingerprint` names what the output depends on (model, labels, thresholds) for `--resume`;
    `encode` makes the bytes of one output object, `header` comes before the first,
    `footer` after the last of a finished run.
    Raises Interrupted after saving when a signal asked to stop, RunProblem when output cannot be
    written, and at the first reject with `strict`.
    """
    items = iter(source)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        run = _open(report, options, stop, encode, fingerprint or {}, stack)
        if header and run.sink.end == 0:
            run.sink.write(header)
        bar = stack.enter_context(progress_bar(report.command, report.unit, shown=options.progress))
        in_flight: list[Batch] = []
        try:
            for outcomes in stage(_batches(run, items, in_flight)):
                _write(run, in_flight.pop(0), outcomes)
                bar.update(len(outcomes))
        except Interrupted:
            _save(run)
        except BaseException:
            _save(run)
            raise
        if stop.signum is None:
            _finish(run, items, footer)
    if options.stats:
        write_atomic(options.stats, dumps(report.stats()))
    report.say(report.summary())
    if stop.signum is not None:
        raise Interrupted(stop.signum)
    return report


def _open(
    report: Report,
    options: StreamOptions,
    stop: StopRequest,
    encode: Encoder,
    fingerprint: Mapping[str, str],
    stack: ExitStack,
) -> _Run:
    state: ResumeState | None = None
    sink: Sink
    if options.output is None or is_device(options.output):
        if options.resume:
            raise RunProblem("--resume needs -o FILE: only a file can be continued")
        opened = options.output.open("wb") if options.output else records_to_stdout()
        sink = StreamSink(stack.enter_context(opened))
    else:
        file = PartFile(options.output, resume=options.resume)
        state = ResumeState.beside(options.output, report.command, fingerprint)
        if options.resume:
            state.load(file.end)
            file.cut(state.ends["done"])
        else:
            state.start()
        sink = file
    rejects = open_rejects(options.rejects, resume=options.resume)
    if state and options.resume:
        rejects.cut(state.ends["rejected"])
    deadline = time.monotonic() + options.max_time if options.max_time is not None else None
    return _Run(report, options, sink, rejects, encode, stop, state, deadline=deadline)


def _batches(
    run: _Run, items: Iterator[Record | Reject], in_flight: list[Batch]
) -> Iterator[Batch]:
    batch: Batch = []
    for record in _wanted(run, items):
        batch.append(record)
        if len(batch) == run.options.batch:
            in_flight.append(batch)
            yield batch
            batch = []
    if run.stop.signum is not None:
        # Ends a stage that works ahead at once; what it has not handed over is done on resuming.
        raise Interrupted(run.stop.signum)
    if batch:
        in_flight.append(batch)
        yield batch


def _wanted(run: _Run, items: Iterator[Record | Reject]) -> Iterator[Record]:
    """The records that are still to do, earlier rejects last."""
    while not _is_over(run):
        try:
            with run.stop.waiting():
                item = next(items, None)
        except Interrupted:
            return
        if item is None:
            break
        position = str(next(run.positions))
        if isinstance(item, Reject):
            stamp = content_stamp((item.raw or "").encode("utf-8", "surrogatepass"))
            if not _is_done(run, position, stamp, None):
                _reject(run, item, position, stamp)
            continue
        item.key = item.key or position
        if not _is_done(run, item.key, item.stamp, item):
            run.report.n_in += 1
            yield item
    for record, entry in run.retried:
        if _is_over(run):
            return
        run.rejects.forget(entry.start, entry.end)
        run.report.n_in += 1
        yield record


def _is_over(run: _Run) -> bool:
    if run.stop.signum is not None:
        return True
    return run.deadline is not None and time.monotonic() >= run.deadline


def _is_done(run: _Run, key: str, stamp: str, record: Record | None) -> bool:
    entry = run.state.take(key) if run.state else None
    if entry is None:
        return False
    if entry.stamp != stamp:
        (run.sink if entry.status == "done" else run.rejects).forget(entry.start, entry.end)
        return False
    if entry.status == "rejected" and run.options.retry_rejects and record is not None:
        run.retried.append((record, entry))
    else:
        run.report.n_skipped += 1
    return True


def _was_done(run: _Run, item: Record | Reject) -> bool:
    key = (item.key if isinstance(item, Record) else "") or str(next(run.positions))
    return run.state is not None and run.state.take(key) is not None


def _write(run: _Run, batch: Batch, outcomes: list[Outcome]) -> None:
    if len(batch) != len(outcomes):
        raise RuntimeError("a stage must give one outcome for each record")
    for record, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, RecordProblem):
            stage = run.report.command
            reject = Reject(
                record.source,
                record.line,
                stage,
                outcome.code,
                outcome.message,
                record=record.fields,
            )
            _reject(run, reject, record.key, record.stamp, counted=True)
            continue
        end = run.sink.write(run.encode(outcome))
        run.report.n_out += 1
        if run.state:
            run.state.add(record.key, record.stamp, "done", end)
    _flush(run)


def _reject(run: _Run, reject: Reject, key: str, stamp: str, *, counted: bool = False) -> None:
    run.report.n_in += not counted
    run.report.reject(reject)
    end = run.rejects.write(dumps(reject.to_json()))
    if run.state:
        run.state.add(key, stamp, "rejected", end)
    if run.options.strict:
        raise RunProblem(f"{reject.place}: {reject.message} (--strict)")


def _flush(run: _Run) -> None:
    run.sink.flush()
    run.rejects.flush()
    if run.state:
        run.state.flush()


def _save(run: _Run) -> None:
    """Leave everything as it is on disk, to be continued with `--resume`."""
    _flush(run)
    run.sink.close()
    if run.state:
        run.rejects.close()
    else:
        run.rejects.finish()


def _finish(run: _Run, items: Iterator[Record | Reject], footer: bytes) -> None:
    if run.deadline is not None and _is_over(run):
        run.report.n_left = sum(not _was_done(run, item) for item in items)
    if footer:
        run.sink.write(footer)
    _flush(run)
    stale_output = run.sink.finish()
    stale_rejects = run.rejects.finish()
    if run.state:
        run.state.rewrite({"done": stale_output, "rejected": stale_rejects})
