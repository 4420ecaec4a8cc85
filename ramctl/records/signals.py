"""Stopping politely: the first signal asks, the second one ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from ramctl.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S = 0.1  # between looks at the request while waiting for work done elsewhere
_active: list["StopRequest"] = []


def raise_if_stopped() -> None:
    """Raise Interrupted once a signal asked the running command to stop.

    For stages that wait for threads or processes: what these still do may be abandoned.
    """
    if _active and _active[-1].signum is not None:
        raise Interrupted(_active[-1].signum)


class StopRequest:
    """While active, SIGINT and SIGTERM set `signum`; a second one acts at once.

    A signal that arrives inside `waiting()`, where nothing is in flight, raises Interrupted.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._is_waiting = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for signum in _SIGNALS:
            self._old[signum] = signal.signal(signum, self._handle)
        _active.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _active.remove(self)
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._is_waiting:
            raise Interrupted(signum)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark a read that may block for ever and loses nothing when it is broken off."""
        if self.signum is not None:
            raise Interrupted(self.signum)
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
