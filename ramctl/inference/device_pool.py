"""Several devices: a process for each, results in order, a dead one's photos done by another."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from ramctl.errors import Interrupted, RamctlError, RecordProblem, RunProblem
from ramctl.records.record import Record
from ramctl.records.signals import PATIENCE_S, raise_if_stopped

if TYPE_CHECKING:
    from ramctl.tagging.tagger import Tagger, TaggerOptions

Batch = list[Record]
Outcomes = list[dict[str, Any] | RecordProblem]
AHEAD = 2  # batches that a process has at a time: one to do, one to decode meanwhile
MOST_DEATHS = 2  # processes that may die of one batch before it is given up


def split_devices(names: str) -> list[str]:
    """The devices of `cuda:0,1` or `cpu,cpu`; a bare number is one of the kind before it."""
    devices: list[str] = []
    for name in names.split(","):
        kind = devices[-1].partition(":")[0] if devices and name.isdigit() else ""
        devices.append(f"{kind}:{name}" if kind else name)
    return devices


class DevicePool:
    """Tags batches on several devices at once."""

    def __init__(self, model: str, options: "TaggerOptions", devices: list[str]) -> None:
        self._model = model
        self._options = options
        self._devices = devices
        self.workers: list[_Worker] = []

    def run(self, batches: Iterator[Batch]) -> Iterator[Outcomes]:
        """The outcomes of the batches, in their order.

        Raises RunProblem when all processes died, or one batch killed two of them.
        """
        context = multiprocessing.get_context("spawn")
        self.workers = [
            _Worker(context, self._model, replace(self._options, device=device))
            for device in self._devices
        ]
        try:
            yield from _Schedule(self.workers, self._options.say).run(batches)
        finally:
            for worker in self.workers:
                worker.stop()


class _Worker:
    """A process that tags the batches that it is sent, one after the other."""

    def __init__(self, context: Any, model: str, options: "TaggerOptions") -> None:
        self.device = options.device
        self.tasks: deque[int] = deque()
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        # What tells the user belongs to this process; the other's own words come as its result.
        arguments = (theirs, model, _options_of(options))
        self.process: BaseProcess = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def send(self, number: int, batch: Batch) -> None:
        self.tasks.append(number)
        try:
            self.connection.send(batch)
        except OSError:
            return  # it died: what it was given is handed on when that is noticed

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


class _Schedule:
    """Which process has which batch, and the outcomes that wait for their turn."""

    def __init__(self, workers: list[_Worker], say: Any) -> None:
        self._workers = list(workers)
        self._say = say
        self._batches: dict[int, Batch] = {}  # handed out or waiting, without outcomes yet
        self._again: deque[int] = deque()  # a dead process's batches
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
        """Take what arrives, or notice who died."""
        connections = [worker.connection for worker in self._workers]
        while not (ready := wait(connections, PATIENCE_S)):
            raise_if_stopped()
        for worker in [w for w in self._workers if w.connection in ready]:
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(answer, str):
                self._say(answer)
            elif isinstance(answer, RamctlError) and not isinstance(answer, RecordProblem):
                raise answer
            else:
                number = worker.tasks.popleft()
                del self._batches[number]
                self._done[number] = answer

    def _bury(self, worker: _Worker) -> None:
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
        self._say(f"{how}; another one does its photos")
        self._again.extendleft(reversed(worker.tasks))

    def _in_order(self) -> Iterator[Outcomes]:
        while self._given in self._done:
            yield self._done.pop(self._given)
            self._given += 1


def _options_of(options: "TaggerOptions") -> dict[str, Any]:
    names = options.__dataclass_fields__
    return {name: getattr(options, name) for name in names if name != "say"}


def _work(connection: Connection, model: str, options: dict[str, Any]) -> None:
    """Tag batches until the other end is closed; its signals are the parent's business."""
    from ramctl.tagging.tagger import Tagger

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        tagger = Tagger.load(model, say=connection.send, **options)
        with ThreadPoolExecutor(tagger.workers) as pool:
            for records, photos in _decoded(connection, tagger, pool):
                connection.send(tagger.score(records, [one for photo in photos for one in photo]))
    except RamctlError as error:
        connection.send(error)
    except (BrokenPipeError, ConnectionResetError):
        return  # the parent has gone


def _decoded(
    connection: Connection, tagger: "Tagger", pool: ThreadPoolExecutor
) -> Iterator[tuple[Batch, Iterable[Any]]]:
    """Batches with their photos; the next batch is decoded while the model runs."""
    queue: SimpleQueue[tuple[Batch, Iterable[Any]] | None] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                batch = connection.recv()
                queue.put((batch, pool.map(lambda record: tagger.decode([record])[1], batch)))
        except (EOFError, OSError):
            queue.put(None)

    Thread(target=receive, daemon=True).start()
    while (item := queue.get()) is not None:
        yield item
