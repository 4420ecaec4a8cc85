"""What a photo may cost, and the time that one has left."""

import io
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Thread
from typing import BinaryIO, TypeVar

from ramctl.photos.memory import room_for

_UNCOUNTED = 2_000_000  # bytes; asking for them would take longer than they are held
_BYTES_A_PIXEL = 4.8  # of --max-pixels: Pillow's picture, and what is needed beside it


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What a photo may cost; one that needs more is a reject (too_large, too_slow)."""

    pixels: int = 200_000_000  # the largest phone photos have just under 200 megapixels
    bytes: int = 1_000_000_000  # of the file
    seconds: float = 60.0  # of decoding
    patient: bool = True  # waiting until other photos leave memory for it does not count in these

    @property
    def memory(self) -> int:
        """Bytes that decoding may take, of all photos at once."""
        return int(self.pixels * _BYTES_A_PIXEL)


LIMITS = PhotoLimits()
Result = TypeVar("Result")


class TimeLeft:
    """The seconds that one photo has left."""

    def __init__(self, limits: PhotoLimits) -> None:
        self._limits = limits
        self._is_waiting = False
        self.end = time.monotonic() + limits.seconds

    def __call__(self) -> float:
        """Not zero while the photo waits, where that does not count."""
        return 1.0 if self._is_waiting else max(self.end - time.monotonic(), 0.0)

    def room(self, n_bytes: int) -> AbstractContextManager[None]:
        """Hold so much memory, as `room_for`, until what decodes has ended, in time or not."""
        return nullcontext() if n_bytes <= _UNCOUNTED else self._room(n_bytes)

    @contextmanager
    def _room(self, n_bytes: int) -> Iterator[None]:
        began, limits = time.monotonic(), self._limits
        self._is_waiting = limits.patient
        with room_for(n_bytes, limits.memory, None if limits.patient else self()):
            if limits.patient:
                self.end += time.monotonic() - began
                self._is_waiting = False
            yield


def in_time(do: Callable[[], Result], time_left: TimeLeft) -> Result:
    """What the function returns, in a thread of its own; TimeoutError when time is up.

    A thread cannot be stopped: it ends with its decoder, which has no more than the limit on
    pixels to do, or where that asks for more data.
    """
    outcomes: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(do())
        except BaseException as error:
            outcomes.put(error)

    Thread(target=work, name="ramctl-decoder", daemon=True).start()
    while True:
        try:
            outcome = outcomes.get(timeout=time_left())
        except queue.Empty:
            if not time_left():
                raise TimeoutError from None
            continue
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Timed:
    """A file that cannot be read any more when time is up."""

    def __init__(self, stream: BinaryIO, time_left: Callable[[], float]) -> None:
        self._stream, self._time_left = stream, time_left
        if isinstance(stream, io.BytesIO):
            self.getvalue = stream.getvalue  # for libtiff, which needs no copy then

    def read(self, size: int = -1) -> bytes:
        if not self._time_left():
            raise TimeoutError
        return self._stream.read(size)

    def seek(self, place: int, whence: int = 0) -> int:
        return self._stream.seek(place, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
