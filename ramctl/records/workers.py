"""Worker processes that take calls and give their results in the order of the calls."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from ramctl.errors import RunProblem
from ramctl.records.signals import end_with_parent

Named = TypeVar("Named")
_CALLS_AHEAD = 2  # for each worker


@contextmanager
def ordered_workers(
    jobs: int, start: Callable[..., object], *arguments: object
) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """A function from `work` and pairs (name, argument) to pairs (name, work(argument)), in order.

    Each worker calls `start(*arguments)` first. Few pairs are read ahead; results are passed on
    when they are there. RunProblem when a worker dies.
    """
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context(), _start_worker, (start, arguments)
    )

    def run(
        work: Callable[[Any], object], pairs: Iterable[tuple[Named, object]]
    ) -> Iterator[tuple[Named, Any]]:
        pending: deque[tuple[Named, Future[object]]] = deque()
        for name, argument in pairs:
            pending.append((name, pool.submit(work, argument)))
            while pending and (len(pending) > _CALLS_AHEAD * jobs or pending[0][1].done()):
                done, result = pending.popleft()
                yield done, result.result()
        while pending:
            done, result = pending.popleft()
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
