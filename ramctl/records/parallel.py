"""Work on batches, in threads or processes, with the results in the order of the items."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ramctl.errors import Interrupted, RecordProblem, RunProblem
from ramctl.records.signals import PATIENCE_S, end_with_parent, raise_if_stopped

Item = TypeVar("Item")
Result = TypeVar("Result")
_CALLS_AHEAD = 2  # for each process


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def map_good(
    items: Sequence[Item | RecordProblem],
    do: Callable[[list[Item]], Iterable[Result | RecordProblem]],
) -> list[Result | RecordProblem]:
    """The results of `do` for all items that are no problem, and the problems in their places."""
    good = [item for item in items if not isinstance(item, RecordProblem)]
    results = iter(do(good) if good else ())
    return [item if isinstance(item, RecordProblem) else next(results) for item in items]


def ordered_map(
    do: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """The results of `do` in the order of `items`, computed by `workers` threads.

    Threads help because decoding and onnxruntime release Python's lock.
    Items are taken in the calling thread, at most two a worker ahead of the results; one worker
    takes none ahead, so that each result is there as soon as it can be.
    """
    if workers == 1:
        yield from map(do, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ramctl-photos")
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(do, item))
            while pending and (len(pending) >= 2 * workers or pending[0].done()):
                yield _result(pending)
        while pending:
            yield _result(pending)
    except Interrupted:
        while pending and pending[0].done():
            yield pending.popleft().result()
        raise
    finally:
        # Without waiting: what is still running after an interrupt is done again on resuming.
        pool.shutdown(wait=False, cancel_futures=True)


def _result(pending: deque[Future[Result]]) -> Result:
    """The oldest result, removed once it is there; Interrupted when a signal comes first."""
    while not wait([pending[0]], PATIENCE_S).done:
        raise_if_stopped()
    return pending.popleft().result()


@contextmanager
def ordered_workers(
    jobs: int, start: Callable[..., object], *arguments: object
) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """A function from `work` and pairs (name, argument) to pairs (name, work(argument)), in order.

    Each worker calls `start(*arguments)` first. Few pairs are read ahead; results are passed on
    when they are there. RunProblem when a worker dies.
    """
    pool = ProcessPoolExecutor(jobs, initializer=_start_worker, initargs=(start, arguments))

    def run(
        work: Callable[[Any], object], pairs: Iterable[tuple[Item, object]]
    ) -> Iterator[tuple[Item, Any]]:
        pending: deque[tuple[Item, Future[object]]] = deque()
        for name, argument in pairs:
            pending.append((name, pool.submit(work, argument)))
            while pending and (len(pending) > _CALLS_AHEAD * jobs or pending[0][1].done()):
                done, result = pending.popleft()
                yield done, result.result()
        for done, result in pending:
            yield done, result.result()

    try:
        yield run
    except BrokenProcessPool as error:
        raise RunProblem("a worker process was killed; is memory short? (fewer: -j)") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(start: Callable[..., object], arguments: tuple[object, ...]) -> None:
    # The parent decides when to stop: a worker must not die of Ctrl-C, and must die of the
    # pool's own SIGTERM, whatever handlers it inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    start(*arguments)
