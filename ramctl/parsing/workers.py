"""Captions parsed by several processes, in order and the same whatever their number."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ramctl.labels import LabelSystem
from ramctl.parsing.parser import CaptionParser, ParsedCaption

T = TypeVar("T")
Parse = Callable[[list[str]], list[ParsedCaption]]
#: Batches handed out ahead, a worker.
AHEAD = 2

_parser: CaptionParser | None = None


def open_parser(labels: LabelSystem | None) -> CaptionParser:
    """The parser of the closed mode over `labels`, of the open mode without.

    What the process holds by then, lexicon and model, is left alone by the garbage collector:
    walking it took a fifth of a second each time, half of the closed mode's time on short streams.
    """
    parser = CaptionParser.open() if labels is None else CaptionParser.closed(labels)
    gc.freeze()
    return parser


@contextmanager
def parsed_batches(
    labels: LabelSystem | None, jobs: int
) -> Iterator[Callable[[Iterator[tuple[T, list[str]]]], Iterator[tuple[T, list[ParsedCaption]]]]]:
    """A function from (anything, captions) pairs to (anything, parsed captions), in order.

    With more than one job, pairs are read a few ahead; what is done is given on at once.
    """
    if jobs == 1:
        parser = open_parser(labels)
        yield lambda pairs: ((what, list(parser.parse(captions))) for what, captions in pairs)
        return
    with multiprocessing.get_context().Pool(jobs, _start_worker, (labels,)) as pool:

        def run(
            pairs: Iterator[tuple[T, list[str]]],
        ) -> Iterator[tuple[T, list[ParsedCaption]]]:
            pending: deque[tuple[T, multiprocessing.pool.AsyncResult[list[ParsedCaption]]]]
            pending = deque()
            for what, captions in pairs:
                pending.append((what, pool.apply_async(_parse, (captions,))))
                while pending and (len(pending) > AHEAD * jobs or pending[0][1].ready()):
                    done, result = pending.popleft()
                    yield done, result.get()
            while pending:
                done, result = pending.popleft()
                yield done, result.get()

        yield run


def _start_worker(labels: LabelSystem | None) -> None:
    global _parser
    # The parent decides when to stop: a worker must not die of Ctrl-C, and must die of the
    # pool's own SIGTERM, whatever handlers it inherited.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _parser = open_parser(labels)


def _parse(captions: list[str]) -> list[ParsedCaption]:
    if _parser is None:
        raise RuntimeError("the worker has no parser")
    return list(_parser.parse(captions))
