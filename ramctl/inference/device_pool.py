"""Several devices: a process on each, results in order; when one dies, another does its photos."""

import multiprocessing
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from ramctl.errors import Interrupted, RamctlError, RecordProblem, RunProblem
from ramctl.records.record import JsonObject, Record
from ramctl.records.signals import PATIENCE_S, end_with_parent, raise_if_stopped

Batch = list[Record]
Outcomes = list[JsonObject | RecordProblem]
AHEAD = 2  # batches a process has at a time: it decodes one while it scores the other
MOST_DEATHS = 2  # processes that one batch may kill before the run fails


def split_devices(names: str) -> list[str]:
    """The devices of `cuda:0,1` or `cpu,cpu`; a bare number takes the kind of the one before.

    Raises UsageProblem when one of several is no device's name.
    """
    devices: list[str] = []
    for name in names.split(","):
        kind = devices[-1].partition(":")[0] if devices and name.isdigit() else ""
        devices.append(f"{kind}:{name}" if kind else name)
    for name in devices if len(devices) > 1 else ():
        # The names that everyone uses are known without torch, which takes seconds to import.
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
            from ramctl.device import choose_device

            choose_device(name)
    return devices


class BatchWorker(Protocol):
    """What runs in each process."""

    workers: int  # threads that decode

    def decode(self, records: Batch) -> tuple[Batch, list[Any]]:
        """The records, and each one's photo or the RecordProblem that it has."""

    def score(self, records: Batch, decoded: Sequence[Any]) -> Outcomes:
        """The outcomes of records whose photos were decoded."""


@dataclass(eq=False, slots=True)
class _Task:
    batch: Batch
    outcomes: Outcomes | None = None
    n_deaths: int = 0  # processes that died at it


class _Process:
    def __init__(self, load: Callable[..., BatchWorker], device: str) -> None:
        self.device = device
        self.tasks: deque[_Task] = deque()
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=_work, args=(other_end, load, device), daemon=True)
        self.process.start()
        other_end.close()


class DevicePool:
    """Works on batches with several devices at once.

    `load(device=..., say=...)` opens a device's worker in its process, so it must be picklable.
    """

    def __init__(
        self, load: Callable[..., BatchWorker], devices: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._load = load
        self._devices = devices
        self._say = say
        self.workers: list[_Process] = []
        self._taken: deque[_Task] = deque()  # in order, until their outcomes are given
        self._again: deque[_Task] = deque()  # to hand out, those of dead processes included

    def run(self, batches: Iterator[Batch]) -> Iterator[Outcomes]:
        """The outcomes of the batches, in their order.

        Raises RunProblem when all processes have died, or one batch has killed two of them.
        """
        self.workers = [_Process(self._load, device) for device in self._devices]
        self._alive = list(self.workers)
        more = True
        try:
            while more or self._taken:
                try:
                    more = more and self._hand_out(batches)
                except Interrupted:
                    yield from self._in_order()
                    raise
                self._hand_on()
                yield from self._in_order()
                if self._taken:
                    self._listen()
        finally:
            for worker in self.workers:
                worker.connection.close()
                worker.process.terminate()
                worker.process.join()

    def _hand_out(self, batches: Iterator[Batch]) -> bool:
        """Give every process new batches to do; False when there are no more."""
        while any(len(worker.tasks) < AHEAD for worker in self._alive) and not self._again:
            batch = next(batches, None)
            if batch is None:
                return False
            self._taken.append(_Task(batch))
            self._again.append(self._taken[-1])
            self._hand_on()
        return True

    def _hand_on(self) -> None:
        while self._again:
            worker = min(self._alive, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= AHEAD:
                return
            worker.tasks.append(task := self._again.popleft())
            # When it has died, `_listen` will notice and hand its batches on.
            with suppress(OSError):
                worker.connection.send(task.batch)

    def _listen(self) -> None:
        """Receive outcomes and messages, and notice dead processes."""
        connections = [worker.connection for worker in self._alive]
        while not (ready := wait(connections, PATIENCE_S)):
            raise_if_stopped()
        for worker in [w for w in self._alive if w.connection in ready]:
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._hand_back_tasks(worker)
                continue
            if isinstance(answer, str):
                self._say(answer)
            elif isinstance(answer, RamctlError) and not isinstance(answer, RecordProblem):
                raise answer
            else:
                worker.tasks.popleft().outcomes = answer

    def _hand_back_tasks(self, worker: _Process) -> None:
        """Queue the batches of a dead process again, unless one of them killed two processes."""
        self._alive.remove(worker)
        worker.process.join()
        how = f"the process on {worker.device} died (exit code {worker.process.exitcode})"
        if worker.tasks:
            worker.tasks[0].n_deaths += 1
            if worker.tasks[0].n_deaths >= MOST_DEATHS:
                raise RunProblem(f"{how}, the second one at the same photos")
        if not self._alive:
            raise RunProblem(f"{how}, and no other is left")
        self._say(f"{how}; its photos go to another device")
        self._again.extendleft(reversed(worker.tasks))

    def _in_order(self) -> Iterator[Outcomes]:
        while self._taken and (outcomes := self._taken[0].outcomes) is not None:
            self._taken.popleft()
            yield outcomes


def _work(connection: Connection, load: Callable[..., BatchWorker], device: str) -> None:
    """Work on batches until the other end is closed; signals are left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        # What the worker says travels as its results do, and the parent tells the user.
        worker = load(device=device, say=connection.send)
        with ThreadPoolExecutor(worker.workers) as pool:
            for batch in _decoded(connection, worker, pool):
                connection.send(worker.score(*batch))
    except RamctlError as error:
        connection.send(error)
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _decoded(
    connection: Connection, worker: BatchWorker, pool: ThreadPoolExecutor
) -> Iterator[tuple[Batch, list[Any]]]:
    """Batches with their decoded photos; the next one is decoded while the model runs."""
    queue: SimpleQueue[tuple[Batch, Iterable[Any]] | None] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                batch = connection.recv()
                queue.put((batch, pool.map(lambda record: worker.decode([record])[1], batch)))
        except (EOFError, OSError):
            queue.put(None)

    Thread(target=receive, daemon=True).start()
    while (item := queue.get()) is not None:
        yield item[0], list(chain.from_iterable(item[1]))
