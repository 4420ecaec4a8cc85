"""How much memory photos may take while they are decoded, all of a process together."""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from threading import Condition
from typing import Any

from PIL import Image

from ramctl.errors import RecordProblem

SMALL = 32_000_000  # bytes; photos that need no more do not wait for those that do
_ALL_SMALL = SMALL * (os.cpu_count() or 1)
# Bytes a pixel that decoders were seen to take at their peak, the picture included. Others hold
# nothing but the picture.
_OF_FORMATS = {"WEBP": 17, "JPEG2000": 24, "AVIF": 16, "HEIF": 16, "JXL": 16}
_MMAP_THRESHOLD, _PIECE = -3, 4_000_000  # an option of glibc's mallopt, bytes
_OF_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
_TURN, _ROWS_PER_STRIP, _BITS, _TILE_SIDES = 274, 278, 258, (322, 323)  # TIFF tags


class _Lane:
    """Room for so many bytes, which is given in the order in which it is asked for."""

    def __init__(self) -> None:
        self._change = Condition()
        self._used = 0
        self._waiting: deque[object] = deque()

    def _has_room(self, place: object, n_bytes: int, size: int) -> bool:
        is_next = self._waiting[0] is place
        return is_next and (not self._used or self._used + n_bytes <= size)

    @contextmanager
    def room(self, n_bytes: int, size: int, seconds: float | None) -> Iterator[None]:
        place = object()
        with self._change:
            self._waiting.append(place)
            try:
                if not self._change.wait_for(
                    partial(self._has_room, place, n_bytes, size), seconds
                ):
                    raise TimeoutError
                self._used += n_bytes
            finally:
                self._waiting.remove(place)
                self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._used -= n_bytes
                self._change.notify_all()


_small, _large, _files = _Lane(), _Lane(), _Lane()


def _start_anew() -> None:
    """What is decoded in the process that was forked is not decoded in this one."""
    global _small, _large, _files
    _small, _large, _files = _Lane(), _Lane(), _Lane()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@contextmanager
def room_for(n_bytes: int, most: int, seconds: float | None = None) -> Iterator[None]:
    """Hold so many bytes of `most`, once earlier photos leave them.

    RecordProblem (too_large) for more than `most`, TimeoutError after `seconds` of waiting. Small
    photos have room of their own, 32 MB a core, so that neither kind waits for ever.
    """
    if n_bytes > most:
        message = (
            f"decoding it takes {n_bytes / 1e6:.0f} MB, more than the limit of {most / 1e6:.0f} MB "
            "(4.8 bytes for each of --max-pixels)"
        )
        raise RecordProblem(message, code="too_large")
    is_small = n_bytes <= SMALL
    lane, size = (_small, _ALL_SMALL) if is_small else (_large, most)
    with lane.room(n_bytes, size, seconds):
        if is_small:
            yield
            return
        _map_large_pieces()
        try:
            yield
        finally:
            give_memory_back()


@cache
def _map_large_pieces() -> None:
    """Keep glibc from learning to take a picture's pieces from what it never gives back."""
    _ask_glibc("mallopt", _MMAP_THRESHOLD, _PIECE)


def give_memory_back() -> None:
    """Give what was freed back to the system, which glibc would keep for this process."""
    _ask_glibc("malloc_trim", 0)


def _ask_glibc(name: str, *values: int) -> None:
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), name):
        getattr(library, name)(*values)


@contextmanager
def room_for_file(n_bytes: int) -> Iterator[None]:
    """Hold a large file's content, before anything is known of the picture in it."""
    with _files.room(n_bytes, 2 * SMALL, None):
        yield


def bytes_of_jpeg(size: tuple[int, int], samples: float, divisor: int, buffered: bool) -> int:
    """What libjpeg-turbo and Pillow take for a JPEG, decoded at a part of its sides.

    `samples` of all colours a pixel; `buffered` where all scans are needed for the first row.
    """
    n_pixels = size[0] * size[1]
    return int(n_pixels * (2 * samples * buffered + 7 / divisor**2))


def bytes_of_jxl(size: tuple[int, int]) -> int:
    """What a JPEG XL takes, which cannot be opened without being decoded."""
    return size[0] * size[1] * _OF_FORMATS["JXL"]


def bytes_of(photo: Image.Image, *, buffered: bool) -> int:
    """What Pillow takes for decoding an opened photo; `buffered` as `bytes_of_jpeg`."""
    n_pixels = photo.width * photo.height
    each = _OF_MODES.get(photo.mode, 4)
    if photo.format in _OF_FORMATS:
        is_usual_heif = photo.mode == "RGB" and photo.info.get("bit_depth") == 8
        return n_pixels * (9 if is_usual_heif else _OF_FORMATS[photo.format])
    if photo.format == "TIFF":
        tags = getattr(photo, "tag_v2", {})
        # The plugin turns it upright by itself.
        return n_pixels * each * (2 if tags.get(_TURN, 1) > 1 else 1) + _bytes_of_strip(photo, tags)
    if buffered:
        layers = [h * v for _, h, v, _ in getattr(photo, "layer", ())]
        return int(n_pixels * (each + 2 * sum(layers) / max(layers, default=1)))
    return n_pixels * each


def _bytes_of_strip(photo: Image.Image, tags: Mapping[int, Any]) -> int:
    """Of a TIFF's largest piece, which is decoded at once."""
    if photo.info.get("compression") == "raw":
        return 0
    width, rows = (tags.get(tag, 0) for tag in _TILE_SIDES)
    if not width:
        width, rows = photo.width, min(tags.get(_ROWS_PER_STRIP, photo.height), photo.height)
    return int(width * rows * sum(tags.get(_BITS, (8,))) // 8)
