"""The loop of every record command: read, process, write in order, reject, resume, stop.

A stage turns batches of records into batches of outcomes, in order and of the same length. An
outcome is an output object, or a RecordProblem for the rejects. A stage gets an iterator so that it
can work ahead, such as decode while the model runs.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

from ramctl.errors import Interrupted, RecordProblem, RunProblem, attempt
from ramctl.records.files import is_device
from ramctl.records.inputs import RootCheck
from ramctl.records.jsonl import dumps
from ramctl.records.outputs import RunOutputs, open_outputs
from ramctl.records.record import Item, JsonObject, Record, Reject
from ramctl.records.report import Rejects, Report
from ramctl.records.shards import ALL, Shard
from ramctl.records.signals import GOES_ON, StopRequest
from ramctl.records.state import Entry

Result = TypeVar("Result")
Outcome = JsonObject | RecordProblem
Batch = list[Record]
Stage = Callable[[Iterator[Batch]], Iterator[list[Outcome]]]
Encoder = Callable[[JsonObject], bytes]


class Format(NamedTuple):
    """How records become bytes: a header, each record, a footer."""

    header: bytes = b""
    encode: Encoder = dumps
    footer: Callable[[], Iterable[bytes]] = tuple


JSONL = Format()
DOCUMENT = Format(footer=list)  # JSON lines that --resume cannot continue
NO_RECORDS = Format(encode=lambda fields: b"")  # for commands that write other files alone
_Todo = tuple[Record, Entry | None]  # a record, and the earlier entry that it replaces
_Work = _Todo | Callable[[], None]  # or a function that writes a reject in its turn
BATCH = 256


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of inputs and outputs that all record commands share."""

    output: Path | None = None
    resume: bool = False
    rejects: str | None = None
    strict: bool = False
    stats: Path | None = None
    progress: bool = True
    batch: int | None = None  # None: the default of the stage, else BATCH
    shard: Shard = ALL  # the part of the inputs that is read


def separated(encode: Encoder) -> Encoder:
    """Encode entries with a comma between them."""
    separators = iter([b""])
    return lambda fields: next(separators, b",\n") + encode(fields)


def each(do: Callable[[Record], JsonObject]) -> Stage:
    """A stage that processes records one by one; a RecordProblem rejects the record."""

    def stage(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        for batch in batches:
            yield [attempt(do, record) for record in batch]

    return stage


def accepted(
    items: Iterable[Item], do: Callable[[Record], Result], rejects: Rejects
) -> Iterator[tuple[Record, Result]]:
    """Each record with the result of `do`; rejects and problems go to `rejects`."""
    for item in items:
        rejects.report.n_in += 1
        if isinstance(item, Reject):
            rejects.add(item)
            continue
        outcome = attempt(do, item)
        if isinstance(outcome, RecordProblem):
            rejects.add(Reject.of(item, outcome, rejects.report.command))
        else:
            yield item, outcome


def watched(stage: Stage, notice: Callable[[Record, Outcome], Outcome]) -> Stage:
    """The stage with each outcome replaced by `notice(record, outcome)`."""

    def watching(batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        ahead: deque[Batch] = deque()

        def remembered() -> Iterator[Batch]:
            for batch in batches:
                ahead.append(batch)
                yield batch

        for outcomes in stage(remembered()):
            pairs = zip(ahead.popleft(), outcomes, strict=True)
            yield [notice(record, outcome) for record, outcome in pairs]

    return watching


def run_stream(
    report: Report,
    source: Iterable[Item],
    stage: Stage,
    options: StreamOptions,
    *,
    fingerprint: Mapping[str, str] | None = None,
    form: Format = JSONL,
) -> Report:
    """Run `stage` over `source` and write the outcomes; return the filled report.

    `fingerprint` names what the output depends on (model, labels, thresholds) for `--resume`. Only
    a finished run has the footer of `form`. RunProblem also where none of the first photos exists.
    """
    shard = {} if options.shard.is_all else {"shard": str(options.shard)}
    report.fingerprint = fingerprint = {**(fingerprint or {}), **shard}
    header = form.header
    with ExitStack() as stack:
        is_document = form.footer is not tuple  # which --resume cannot continue
        is_file = options.output is not None and not is_device(options.output)
        goes_on = GOES_ON if is_file and not is_document else ""
        stop = stack.enter_context(StopRequest(goes_on))
        outputs = stack.enter_context(
            open_outputs(
                options.output, options.rejects, resume=options.resume,
                command=report.command, fingerprint=fingerprint,
                n_header=len(header), notify=report.notify, has_records=form is not NO_RECORDS,
            )
        )  # fmt: skip
        if header and outputs.done.end == 0:
            outputs.done.write(header)
        run = _Run(iter(source), report, options, outputs, form.encode, stop)
        # Not between records that are written to the same screen.
        is_on_screen = options.output is None and form is not NO_RECORDS and sys.stdout.isatty()
        shown = options.progress and not is_on_screen
        advance = stack.enter_context(report.progress(shown=shown))
        try:
            for outcomes in watched(stage, RootCheck().notice)(run.batches()):
                run.write(outcomes)
                advance(len(outcomes))
        except Interrupted:
            outputs.save()
        except BaseException:
            with suppress(OSError, RunProblem):  # report the first problem
                outputs.save()
            raise
        if stop.signum is None:
            run.finish(form.footer())
    report.finish(options.stats)
    stop.raise_if_signalled()
    return report


def _records(batch: list[_Work]) -> Batch:
    return [work[0] for work in batch if not callable(work)]


@dataclass(slots=True)
class _Run:
    """The two ends of the loop: records into the stage, outcomes out of it."""

    items: Iterator[Item]
    report: Report
    options: StreamOptions
    outputs: RunOutputs
    encode: Encoder
    stop: StopRequest
    positions: Iterator[int] = field(default_factory=count)
    in_flight: deque[list[_Work]] = field(default_factory=deque)

    def batches(self) -> Iterator[Batch]:
        """The records to process, in batches; rejects wait in between, to keep the order."""
        size = self.options.batch or BATCH
        batch: list[_Work] = []
        for work in self._todo():
            if callable(work) and not batch and not self.in_flight:
                work()
                continue
            batch.append(work)
            if len(batch) == size:
                self.in_flight.append(batch)
                yield _records(batch)
                batch = []
        # Ends a stage that works ahead at once; `--resume` does its unfinished batches.
        self.stop.raise_if_signalled()
        if batch:
            self.in_flight.append(batch)
            yield _records(batch)

    def _todo(self) -> Iterator[_Work]:
        """The records to process and the rejects to write."""
        while self.stop.signum is None:
            try:
                with self.stop.waiting():
                    item = next(self.items, None)
            except Interrupted:
                return
            if item is None:
                return
            key = str(next(self.positions))
            if isinstance(item, Record):
                key = item.key = item.key or key
            entry = self.outputs.earlier(key, item.stamp)
            if isinstance(item, Reject):
                self.report.n_in += 1
                yield partial(self._write_reject, item, entry)
            elif entry is not None and entry.stamp == item.stamp:
                self.report.n_skipped += 1
            else:
                self.report.n_in += 1
                yield item, entry

    def _write_reject(self, reject: Reject, drops: Entry | None) -> None:
        self.report.reject(reject)
        self.outputs.reject(dumps(reject.to_json()), drops)
        if self.options.strict:
            reject.fail()

    def write(self, outcomes: list[Outcome]) -> None:
        """Write the outcomes of the oldest batch."""
        batch, remaining = self.in_flight.popleft(), iter(outcomes)
        for work in batch:
            if callable(work):
                work()
                continue
            (record, earlier), outcome = work, next(remaining)
            if not isinstance(outcome, RecordProblem):
                content = attempt(self.encode, outcome)  # which looks at fields that pass through
            else:
                content = outcome
            if isinstance(content, RecordProblem):
                self._write_reject(Reject.of(record, content, self.report.command), earlier)
                continue
            self.outputs.write(record.key, record.stamp, content, earlier)
            self.report.n_out += 1
        self.outputs.flush()

    def finish(self, footer: Iterable[bytes]) -> None:
        """Complete the outputs."""
        state = self.outputs.state
        if state is not None and (n_gone := state.drop_doubled()):
            self.report.notify(f"{n_gone} inputs of an earlier run are gone; their records stay")
        for part in footer:
            self.outputs.done.write(part)
        self.outputs.finish()
