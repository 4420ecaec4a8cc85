"""Map a function over items in threads or processes, with the results in input order."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice, repeat
from typing import Any, TypeVar

from ramctl.errors import Interrupted, RecordProblem, RunProblem
from ramctl.records.signals import PATIENCE_S, end_with_parent, raise_if_stopped

Item = TypeVar("Item")
Name = TypeVar("Name")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Split items into lists of `size`; the last one may be shorter."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk


def map_good(
    items: Sequence[Item | RecordProblem],
    do: Callable[[list[Item]], Iterable[Result | RecordProblem]],
) -> list[Result | RecordProblem]:
    """Apply `do` to the items that are not problems; problems keep their places."""
    good = [item for item in items if not isinstance(item, RecordProblem)]
    results = iter(do(good) if good else ())
    return [item if isinstance(item, RecordProblem) else next(results) for item in items]


def ordered_map(
    do: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Apply `do` to items in `workers` threads; results come in input order.

    Threads help because decoding and onnxruntime release Python's lock. With one worker no item is
    taken ahead, so that each result comes as early as possible.
    """
    if workers == 1:
        yield from map(do, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ramctl-photos")
    try:
        results = in_order(lambda item: pool.submit(do, item), zip(repeat(None), items), workers)
        yield from (result for _, result in results)
    finally:
        # Without waiting: after an interrupt `--resume` does unfinished items again.
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def process_pool(
    jobs: int, start: Callable[..., object], *arguments: object, context: str | None = None
) -> Iterator[Any]:
    """A ProcessPoolExecutor whose workers call `start(*arguments)`; RunProblem when one dies.

    `context` is how they are started, as `multiprocessing` names it.
    """
    import multiprocessing  # not for every command
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context(context), _start_worker, (start, arguments)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise RunProblem("a worker process was killed; is memory short? (fewer: -j)") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def ordered_workers(
    jobs: int, start: Callable[..., object], *arguments: object
) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """A pool of processes: a function of `work` and pairs (name, argument).

    The work is done by processes, each of which calls `start(*arguments)` first.
    """
    with process_pool(jobs, start, *arguments) as pool:
        yield lambda work, pairs: in_order(lambda item: pool.submit(work, item), pairs, jobs)


def in_order(
    submit: Callable[[Item], Future[Result]], pairs: Iterable[tuple[Name, Item]], workers: int
) -> Iterator[tuple[Name, Result]]:
    """Each name with the result of its item, as soon as it is there and all before it are.

    Items are taken in the calling thread, at most two a worker ahead of the results. Interrupted
    when a signal comes before a result; those that are there by then come first.
    """
    pending: deque[tuple[Name, Future[Result]]] = deque()

    def first() -> tuple[Name, Result]:
        while not wait([pending[0][1]], PATIENCE_S).done:
            raise_if_stopped()
        name, result = pending[0]
        value = result.result()  # if it was interrupted itself, no later one may come
        pending.popleft()
        return name, value

    try:
        for name, item in pairs:
            pending.append((name, submit(item)))
            while pending and (len(pending) >= 2 * workers or pending[0][1].done()):
                yield first()
        while pending:
            yield first()
    except Interrupted:
        while pending and pending[0][1].done():
            yield first()
        raise


def _start_worker(start: Callable[..., object], arguments: tuple[object, ...]) -> None:
    # The parent decides when to stop: Ctrl-C must not end a worker, and SIGTERM of the pool must,
    # whatever handlers it inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    start(*arguments)
