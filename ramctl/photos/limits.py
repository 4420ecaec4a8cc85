"""Limits to a photo's pixels, bytes, memory and time, and estimates of what decoders need.

tests/photos/test_memory.py measures the memory of decoders against these estimates.
"""

import ctypes
import io
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, TypeVar

from PIL import Image

from ramctl.errors import RecordProblem

_LARGE_FILE = 32_000_000  # bytes; larger files are in memory one at a time
_UNCOUNTED = 2_000_000  # bytes; less memory than this is not counted
_LARGE = 32_000_000  # bytes that are worth returning to the system
_BYTES_A_PIXEL = 4.8  # of the limit: the picture in Pillow, and the rest
# Bytes a pixel at the peak of decoding, the picture included; other formats need the picture alone.
_FORMAT_BYTES = {"WEBP": 17, "JPEG2000": 24, "AVIF": 16, "HEIF": 16}
_MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
_TURN, _ROWS_PER_STRIP, _BITS, _TILE_SIDES = 274, 278, 258, (322, 323)  # TIFF tags
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """The limits of a photo; one that needs more is a reject (too_large, too_slow)."""

    pixels: int = 200_000_000  # the largest phone photos have just under 200 megapixels
    bytes: int = 1_000_000_000  # of the file
    seconds: float = 60.0  # of decoding
    patient: bool = True  # `seconds` exclude waiting for memory that other photos use

    @property
    def memory(self) -> int:
        """Bytes that decoding all photos at once may take."""
        return int(self.pixels * _BYTES_A_PIXEL)


LIMITS = PhotoLimits()


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise RecordProblem for a photo with more pixels."""
    if width * height > max_pixels:
        message = f"{width}x{height} pixels, more than the limit of {max_pixels}"
        raise RecordProblem(message, code="too_large")


class _Memory:
    """The bytes that the decoders of this process use."""

    def __init__(self) -> None:
        self._start()
        # A forked process does not decode the photos of its parent.
        os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._change, self._used = Condition(), 0

    @contextmanager
    def room(self, n_bytes: int, max_bytes: int, seconds: float | None) -> Iterator[None]:
        with self._change:
            if not self._change.wait_for(
                lambda: not self._used or self._used + n_bytes <= max_bytes, seconds
            ):
                raise TimeoutError
            self._used += n_bytes
        try:
            yield
        finally:
            with self._change:
                self._used -= n_bytes
                self._change.notify_all()


_pictures, _files = _Memory(), _Memory()


def room_for_file(n_bytes: int) -> AbstractContextManager[None]:
    """Reserve memory for the content of a large file, before its picture is known."""
    return _files.room(n_bytes, _LARGE_FILE, None) if n_bytes > _LARGE_FILE else nullcontext()


def give_memory_back() -> None:
    """Return freed memory to the system; glibc would keep it for this process."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


class TimeLeft:
    """The seconds that remain for one photo."""

    def __init__(self, limits: PhotoLimits) -> None:
        self.limits = limits
        self.end = time.monotonic() + limits.seconds

    def __call__(self) -> float:
        return max(self.end - time.monotonic(), 0.0)

    @contextmanager
    def room(self, n_bytes: int) -> Iterator[None]:
        """Reserve memory until the decoder has ended, in time or not.

        RecordProblem for more than the limit, TimeoutError when there is no room in time.
        """
        if n_bytes <= _UNCOUNTED:
            yield
            return
        max_bytes, remaining = self.limits.memory, self()
        if n_bytes > max_bytes:
            message = (
                f"decoding it takes {n_bytes / 1e6:.0f} MB, "
                f"more than the limit of {max_bytes / 1e6:.0f} MB "
                f"({_BYTES_A_PIXEL} bytes for each pixel of the limit)"
            )
            raise RecordProblem(message, code="too_large")
        if self.limits.patient:
            self.end = math.inf
        with _pictures.room(n_bytes, max_bytes, None if self.limits.patient else remaining):
            if self.limits.patient:
                self.end = time.monotonic() + remaining
            try:
                yield
            finally:
                if n_bytes > _LARGE:
                    give_memory_back()


def in_time(do: Callable[[], Result], time_left: TimeLeft) -> Result:
    """Call a function in a thread; TimeoutError when time is up.

    A thread cannot be stopped: it ends with its decoder, or where that reads more data.
    """
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(do())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=work, name="ramctl-decoder", daemon=True).start()
    while not wait([outcome], min(time_left(), 1.0)).done:
        if not time_left():
            raise TimeoutError
    return outcome.result()


class Timed:
    """A file whose reads raise TimeoutError when time is up."""

    def __init__(self, data: bytes, time_left: Callable[[], float]) -> None:
        self._stream, self._time_left = io.BytesIO(data), time_left
        self.getvalue = self._stream.getvalue  # for libtiff, which needs no copy then
        self.seek, self.tell, self.close = self._stream.seek, self._stream.tell, self._stream.close

    def read(self, size: int = -1) -> bytes:
        if not self._time_left():
            raise TimeoutError
        return self._stream.read(size)


def estimated_bytes(photo: Image.Image, *, buffered: bool) -> int:
    """Bytes that Pillow needs for a photo; `buffered`: a JPEG whose rows need all scans."""
    n_pixels = photo.width * photo.height
    each = _MODE_BYTES.get(photo.mode, 4)
    if photo.format in _FORMAT_BYTES:
        is_usual_heif = photo.mode == "RGB" and photo.info.get("bit_depth") == 8
        return n_pixels * (9 if is_usual_heif else _FORMAT_BYTES[photo.format])
    if photo.format == "TIFF":
        tags: Any = getattr(photo, "tag_v2", {})
        # The plugin turns it upright itself, and decodes a strip or tile at a time.
        width, rows = (tags.get(tag, 0) for tag in _TILE_SIDES)
        if not width:
            width, rows = photo.width, min(tags.get(_ROWS_PER_STRIP, photo.height), photo.height)
        piece = int(width * rows * sum(tags.get(_BITS, (8,))) // 8)
        is_raw = photo.info.get("compression") == "raw"
        return n_pixels * each * (2 if tags.get(_TURN, 1) > 1 else 1) + (0 if is_raw else piece)
    if buffered:
        layers = [h * v for _, h, v, _ in getattr(photo, "layer", ())]
        return int(n_pixels * (each + 2 * sum(layers) / max(layers, default=1)))
    return n_pixels * each


def pixel_visits(data: bytes) -> int:
    """Pixels times scans of a JPEG of several scans; 0 for one scan."""
    place, n_pixels, n_colours = 2, 0, 0
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            width = int.from_bytes(data[place + 7 : place + 9], "big")
            n_pixels, n_colours = height * width, data[place + 9]
            if marker not in (0xC0, 0xC1):
                break
        elif marker == 0xDA:
            if data[place + 4] == n_colours:  # all of them are in this scan
                return 0
            break
        is_padding = marker == 0xFF
        place += 1 if is_padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return n_pixels * data.count(b"\xff\xda")
