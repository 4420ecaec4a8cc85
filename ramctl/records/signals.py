"""Stop a run at a signal, after its batch."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import Any, Self

from ramctl.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOES_ON = "the same command with --resume continues"
PATIENCE_S = 0.1  # between checks for a signal while other processes work
_active: list["StopRequest"] = []


def raise_if_stopped() -> None:
    """Raise Interrupted if the running command received a signal."""
    if _active:
        _active[-1].raise_if_signalled()


def end_with_parent() -> None:
    """End this worker process when its parent has ended."""
    import multiprocessing  # not for every command
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    gone = parent.sentinel

    def watch() -> None:
        wait([gone])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `signum`; a second one acts at once.

    A signal inside `waiting()`, where nothing is in flight, raises Interrupted, whose message is
    `goes_on`: how to continue the run.
    """

    def __init__(self, goes_on: str = "") -> None:
        self.signum: int | None = None
        self._goes_on = goes_on
        self._is_waiting = False
        self._old: dict[int, Any] = {}

    def raise_if_signalled(self) -> None:
        """Raise Interrupted after a signal."""
        if self.signum is not None:
            raise Interrupted(self.signum, self._goes_on)

    def __enter__(self) -> Self:
        for signum in _SIGNALS:
            self._old[signum] = signal.signal(signum, self._handle)
        _active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _active.remove(self)
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._is_waiting:
            raise Interrupted(signum, self._goes_on)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a read that may block forever and can be interrupted without loss."""
        self.raise_if_signalled()
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
