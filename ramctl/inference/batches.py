"""Batches: items in chunks, worked on in parallel and in order, with the bad ones left out."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from ramctl.errors import Interrupted, RecordProblem
from ramctl.records.signals import PATIENCE_S, raise_if_stopped

Item = TypeVar("Item")
Result = TypeVar("Result")


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
