"""Stop a run at a signal (the first one waits for the batch, the second one kills) or in time."""

import ctypes
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from threading import Thread
from types import FrameType
from typing import Any, Self

from ramctl.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
GOES_ON = "the same command with --resume continues"
PATIENCE_S = 0.1  # between checks for a signal while other processes work
LATE_S = 30.0  # between checks for the deadline while an input is awaited
_active: list["StopRequest"] = []


def raise_if_stopped() -> None:
    """Raise Interrupted if the running command received a signal."""
    if _active:
        _active[-1].raise_if_signalled()


def end_with_parent() -> None:
    """End this worker process as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    gone = parent.sentinel

    def watch() -> None:
        wait([gone])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    # Linux ends it at once, before it can fail to send a result.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


class TimeIsUp(Exception):
    """The limit of `--max-time` has passed."""


def deadline(max_time: float | None) -> float:
    """The end of `--max-time` on the monotonic clock; infinite without one."""
    return math.inf if max_time is None else time.monotonic() + max_time


class StopRequest:
    """While active, SIGINT and SIGTERM set `signum`; a second signal acts at once.

    A signal inside `waiting()`, where nothing is in flight, raises Interrupted, whose message is
    `goes_on`: how to continue the run. A deadline that passed there raises TimeIsUp after a while.
    """

    def __init__(self, deadline: float = math.inf, goes_on: str = "") -> None:
        self.signum: int | None = None
        self._goes_on = goes_on
        self._deadline = deadline
        self._is_waiting = False
        self._old: dict[int, Any] = {}

    @property
    def is_due(self) -> bool:
        """Whether a signal came or the time is up."""
        return self.signum is not None or time.monotonic() >= self._deadline

    def raise_if_due(self) -> None:
        """Raise Interrupted after a signal, TimeIsUp after the deadline."""
        self.raise_if_signalled()
        if self.is_due:
            raise TimeIsUp

    def raise_if_signalled(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum, self._goes_on)

    def __enter__(self) -> Self:
        for signum in _SIGNALS:
            self._old[signum] = signal.signal(signum, self._handle)
        if self._deadline != math.inf:
            self._old[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, LATE_S, LATE_S)
        _active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _active.remove(self)
        if signal.SIGALRM in self._old:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._is_waiting:
            raise Interrupted(signum, self._goes_on)

    def _look(self, signum: int, frame: FrameType | None) -> None:
        if self._is_waiting and self.is_due:
            raise TimeIsUp

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a read that may block forever and can be interrupted without loss."""
        self.raise_if_signalled()
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
