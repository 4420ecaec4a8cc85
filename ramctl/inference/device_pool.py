"""Several devices: a process on each, which take turns; outcomes come in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property, partial
from itertools import chain, cycle, repeat
from typing import Any, Protocol

from ramctl.errors import RecordProblem, attempt
from ramctl.inference.runner import ModelPhoto, Runner
from ramctl.records.parallel import in_order, map_good, process_pool
from ramctl.records.record import JsonObject, Record

Batch = list[Record]
Outcomes = list[JsonObject | RecordProblem]
Step = tuple[Outcomes, list[str]]  # and messages for the user


def split_devices(names: str) -> list[str]:
    """The devices of `cuda:0,1` or `cpu,cpu`; a bare number takes the kind of the one before."""
    devices: list[str] = []
    for name in names.split(","):
        kind = devices[-1].partition(":")[0] if devices and name.isdigit() else ""
        devices.append(f"{kind}:{name}" if kind else name)
    return devices


class BatchWorker(Protocol):
    """The work of each process."""

    @property
    def runner(self) -> Runner:
        """Reads the photos of records."""

    def work(self, photos: list[ModelPhoto]) -> Iterable[JsonObject | RecordProblem]:
        """The outcomes of the photos' records."""


def run_on_devices(
    load: Callable[..., BatchWorker],
    devices: Sequence[str],
    notify: Callable[[str], None],
    batches: Iterator[Batch],
) -> Iterator[Outcomes]:
    """The outcomes of the batches, in their order, on several devices at once.

    `load(device=..., notify=...)` opens a device's worker in its process, so it must be picklable.
    RunProblem when a process dies.
    """
    number = len(devices)
    with ExitStack() as stack:
        pools = [
            stack.enter_context(process_pool(1, _start, load, device, context="spawn"))
            for device in devices
        ]
        turns = cycle(pools)

        def submit(batch: Batch | None) -> Future[Step]:
            return next(turns).submit(_step, batch)

        # A step gives the outcomes of the batch before it on the same device.
        items: chain[Batch | None] = chain(batches, repeat(None, number))
        steps = in_order(submit, zip(repeat(None), items), number)
        for count, (_, (outcomes, messages)) in enumerate(steps):
            for message in messages:
                notify(message)
            if count >= number:
                yield outcomes


class _DeviceProcess:
    """A process's worker, which decodes one batch while it scores the one before."""

    def __init__(self, load: Callable[..., BatchWorker], device: str) -> None:
        self._load = partial(load, device=device)
        self._messages: list[str] = []
        self._ahead: Iterable[Any] = ()

    @cached_property
    def _worker(self) -> BatchWorker:
        return self._load(notify=self._messages.append)

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._worker.runner.workers)

    def step(self, batch: Batch | None) -> Step:
        """Begin to decode a batch; the outcomes of the one before."""
        worker, before = self._worker, self._ahead
        self._ahead = self._threads.map(attempt, repeat(worker.runner.read), batch or ())
        outcomes = map_good(list(before), worker.work)
        messages = [*self._messages]
        self._messages.clear()
        return outcomes, messages


_process: _DeviceProcess


def _start(load: Callable[..., BatchWorker], device: str) -> None:
    global _process
    _process = _DeviceProcess(load, device)


def _step(batch: Batch | None) -> Step:
    return _process.step(batch)
