"""Several devices: a process on each, results in order; when one dies, another does its photos."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from ramctl.errors import Interrupted, RamctlError, RecordProblem, RunProblem
from ramctl.records.record import JsonObject, Record
from ramctl.records.signals import PATIENCE_S, raise_if_stopped

Batch = list[Record]
Outcomes = list[JsonObject | RecordProblem]
AHEAD = 2  # batches a process has at a time: it decodes one while it scores the other
MOST_DEATHS = 2  # processes that one batch may kill before the run fails


def split_devices(names: str) -> list[str]:
    """The devices of `cuda:0,1` or `cpu,cpu`; a bare number takes the kind of the one before."""
    devices: list[str] = []
    for name in names.split(","):
        kind = devices[-1].partition(":")[0] if devices and name.isdigit() else ""
        devices.append(f"{kind}:{name}" if kind else name)
    return devices


class BatchWorker(Protocol):
    """What runs in each process."""

    workers: int  # threads that decode

    def decode(self, records: Batch) -> tuple[Batch, list[Any]]:
        """The records, and each one's photo or the RecordProblem that it has."""

    def score(self, records: Batch, decoded: Sequence[Any]) -> Outcomes:
        """The outcomes of records whose photos were decoded."""


class DevicePool:
    """Works on batches with several devices at once.

    `load(device=..., say=...)` opens a device's worker in its process, so it must be picklable.
    """

    def __init__(
        self,
        load: Callable[..., BatchWorker],
        devices: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self._load = load
        self._devices = devices
        self._say = say
        self.workers: list[_Process] = []

    def run(self, batches: Iterator[Batch]) -> Iterator[Outcomes]:
        """The outcomes of the batches, in their order.

        Raises RunProblem when all processes have died, or one batch has killed two of them.
        """
        context = multiprocessing.get_context("spawn")
        self.workers = [_Process(context, self._load, device) for device in self._devices]
        try:
            yield from _Schedule(self.workers, self._say).run(batches)
        finally:
            for worker in self.workers:
                worker.stop()


class _Process:
    """A process that works on the batches it is sent, one after the other."""

    def __init__(self, context: Any, load: Callable[..., BatchWorker], device: str) -> None:
        self.device = device
        self.tasks: deque[int] = deque()
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        arguments = (theirs, load, device)
        self.process: BaseProcess = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def send(self, number: int, batch: Batch) -> None:
        self.tasks.append(number)
        try:
            self.connection.send(batch)
        except OSError:
            return  # it died: `_listen` will notice and hand its batches on

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


class _Schedule:
    """Keeps track of which process has which batch, and of outcomes waiting for their turn."""

    def __init__(self, workers: list[_Process], say: Callable[[str], None]) -> None:
        self._workers = list(workers)
        self._say = say
        self._batches: dict[int, Batch] = {}  # without outcomes so far
        self._again: deque[int] = deque()  # batches to hand out, those of dead processes included
        self._deaths: dict[int, int] = {}
        self._done: dict[int, Outcomes] = {}
        self._taken = 0
        self._given = 0

    def run(self, batches: Iterator[Batch]) -> Iterator[Outcomes]:
        more = True
        while more or self._batches or self._done:
            try:
                more = self._hand_out(batches) if more else more
            except Interrupted:
                yield from self._in_order()
                raise
            self._hand_on()
            yield from self._in_order()
            if self._batches:
                self._listen()

    def _hand_out(self, batches: Iterator[Batch]) -> bool:
        """Give every process its share of new batches; False when there are no more."""
        while any(len(worker.tasks) < AHEAD for worker in self._workers) and not self._again:
            batch = next(batches, None)
            if batch is None:
                return False
            self._batches[self._taken] = batch
            self._again.append(self._taken)
            self._taken += 1
            self._hand_on()
        return True

    def _hand_on(self) -> None:
        while self._again:
            worker = min(self._workers, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= AHEAD:
                return
            number = self._again.popleft()
            worker.send(number, self._batches[number])

    def _listen(self) -> None:
        """Receive outcomes and messages, and notice dead processes."""
        connections = [worker.connection for worker in self._workers]
        while not (ready := wait(connections, PATIENCE_S)):
            raise_if_stopped()
        for worker in [w for w in self._workers if w.connection in ready]:
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
                number = worker.tasks.popleft()
                del self._batches[number]
                self._done[number] = answer

    def _hand_back_tasks(self, worker: _Process) -> None:
        """Queue the batches of a dead process again, unless one of them killed two processes."""
        self._workers.remove(worker)
        worker.process.join()
        how = f"the process on {worker.device} died (exit code {worker.process.exitcode})"
        if worker.tasks:
            killer = worker.tasks[0]
            self._deaths[killer] = self._deaths.get(killer, 0) + 1
            if self._deaths[killer] >= MOST_DEATHS:
                raise RunProblem(f"{how}, the second one at the same photos")
        if not self._workers:
            raise RunProblem(f"{how}, and no other is left")
        self._say(f"{how}; its photos go to another device")
        self._again.extendleft(reversed(worker.tasks))

    def _in_order(self) -> Iterator[Outcomes]:
        while self._given in self._done:
            yield self._done.pop(self._given)
            self._given += 1


def _work(connection: Connection, load: Callable[..., BatchWorker], device: str) -> None:
    """Work on batches until the other end is closed; signals are left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        # What the worker says travels as its results do, and the parent tells the user.
        worker = load(device=device, say=connection.send)
        with ThreadPoolExecutor(worker.workers) as pool:
            for records, photos in _decoded(connection, worker, pool):
                connection.send(worker.score(records, [one for photo in photos for one in photo]))
    except RamctlError as error:
        connection.send(error)
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent is gone


def _decoded(
    connection: Connection, worker: BatchWorker, pool: ThreadPoolExecutor
) -> Iterator[tuple[Batch, Iterable[Any]]]:
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
        yield item
