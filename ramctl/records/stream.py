"""The loop of every record command: read, process, write in order, reject, resume, stop.

A stage turns batches of records into batches of outcomes, in order and of the same length. An
outcome is an output object, or a RecordProblem for the rejects. A stage gets an iterator so that it
can work ahead, such as decode while the model runs.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

from ramctl.errors import Interrupted, RecordProblem, UsageProblem, attempt
from ramctl.records.inputs import ALL, Shard
from ramctl.records.jsonl import dumps
from ramctl.records.record import Item, JsonObject, Record, Reject
from ramctl.records.report import Rejects, Report
from ramctl.records.resume import Output, open_output
from ramctl.records.signals import GOES_ON, StopRequest

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
BATCH = 256  # most records at a time


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

    `fingerprint` has what the output depends on, by option, for `--resume`. Only a finished run
    has the footer of `form`.
    """
    if options.resume and form.footer is not tuple:
        raise UsageProblem("--resume cannot continue this format, which is one document: use jsonl")
    shard = {} if options.shard.is_all else {"--shard": str(options.shard)}
    made_by = {"command": report.command, **(fingerprint or {}), **shard}
    is_continued = options.output is not None and form.footer is tuple
    # Not between records that are written to the same screen.
    is_on_screen = options.output is None and form is not NO_RECORDS and sys.stdout.isatty()
    in_flight: deque[list[Item]] = deque()
    with (
        StopRequest(GOES_ON if is_continued else "") as stop,
        open_output(options.output, made_by, form.header, resume=options.resume) as output,
        Rejects(report, options.rejects, strict=options.strict) as rejects,
        report.progress(shown=options.progress and not is_on_screen) as advance,
    ):

        def batches() -> Iterator[Batch]:
            """The records to process; rejects wait between them, to keep the order."""
            batch: list[Item] = []
            for item in _new_items(source, output, report, stop):
                if isinstance(item, Reject) and not batch:
                    in_flight[-1].append(item) if in_flight else rejects.add(item)
                    continue
                batch.append(item)
                if len(batch) >= min(options.batch or BATCH, BATCH):
                    in_flight.append(batch)
                    yield [item for item in batch if isinstance(item, Record)]
                    batch = []
            # Ends a stage that works ahead at once; `--resume` does its unfinished batches.
            stop.raise_if_signalled()
            if batch:
                in_flight.append(batch)
                yield [item for item in batch if isinstance(item, Record)]

        with suppress(Interrupted):
            for outcomes in stage(batches()):
                _write(in_flight.popleft(), outcomes, output, rejects, form)
                advance(len(outcomes))
        if stop.signum is None:
            for part in form.footer():
                output.write(part)
            output.finish()
    report.finish(options.stats)
    stop.raise_if_signalled()
    return report


def _write(
    batch: list[Item], outcomes: list[Outcome], output: Output, rejects: Rejects, form: Format
) -> None:
    """Write the outcomes of a batch's records, and reject the others, in their order."""
    report, remaining = rejects.report, iter(outcomes)
    for item in batch:
        if isinstance(item, Reject):
            rejects.add(item)
            continue
        outcome = next(remaining)
        try:
            if isinstance(outcome, RecordProblem):
                raise outcome
            line = form.encode(outcome)  # which looks at fields that pass through
        except RecordProblem as problem:
            rejects.add(Reject.of(item, problem, report.command))
            continue
        output.write(line, item.key, item.stamp)
        report.n_out += 1
    output.flush()


def _new_items(
    source: Iterable[Item], output: Output, report: Report, stop: StopRequest
) -> Iterator[Item]:
    """The items that no earlier run has done, until a signal; records get their keys."""
    items = iter(source)
    for place in count():
        try:
            with stop.waiting():
                item = next(items, None)
        except Interrupted:
            return
        if item is None:
            return
        if isinstance(item, Record):
            item.key = item.key or str(place)
            if output.has(item.key, item.stamp):
                report.n_skipped += 1
                continue
        else:
            output.has(str(place), "")  # its earlier line is of another record
        report.n_in += 1
        yield item
