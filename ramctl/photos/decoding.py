"""Photos by name, decoded to upright RGB pixels; RecordProblem says why one cannot be."""

import io
import math
import os
import queue
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import TypeVar

import simplejpeg
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from ramctl.errors import RecordProblem
from ramctl.photos.archives import check_bytes, open_archive, split_member
from ramctl.photos.raw import decode_raw, is_raw, raw_size
from ramctl.photos.shard_cache import read_remote_photo
from ramctl.records.record import Record, image_name, shown_name
from ramctl.records.remote import base_url

# Not all formats of Pillow: some start other programs (EPS), some are not photos (WMF).
# Pillow knows the first five from the start; only the others make it load all its plugins.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF")
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_JXL_MAGIC = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_ORIENTATION = 0x0112
# Without waiting, should a pipe take the place of a file at the last moment.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 1 << 14  # bytes after which Pillow looks at the clock
_USUAL_SCANS = 100  # of a progressive JPEG; programs write about ten
# Pixels times scans that libjpeg-turbo is sure to decode in a second: a sixth of what one core did
# with noise of the highest quality.
_VISITS_A_SECOND = 20_000_000
_pillow_limit = Lock()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PhotoLimits:
    """What a photo may cost; one that needs more is a reject (too_large, too_slow)."""

    pixels: int = 200_000_000  # the largest phone photos have just under 200 megapixels
    bytes: int = 1_000_000_000  # of the file
    seconds: float = 60.0  # of decoding


LIMITS = PhotoLimits()


def record_photo(
    record: Record,
    *,
    target: int | None = None,
    limits: PhotoLimits = LIMITS,
    official: bool = False,
) -> Image.Image:
    """The photo of a record, as `load_photo`; problems of a photo from a list name it."""
    name = image_name(record.fields)
    try:
        return load_photo(name, record.base, target=target, limits=limits, official=official)
    except RecordProblem as problem:
        if record.line is None:
            raise
        raise RecordProblem(
            f"{shown_name(name)}: {problem.message}", code=problem.code
        ) from problem


def load_photo(
    name: str,
    base: Path = Path(),
    *,
    target: int | None = None,
    limits: PhotoLimits = LIMITS,
    official: bool = False,
) -> Image.Image:
    """The photo's upright RGB pixels: a path or `shard.tar#member`, relative to `base`.

    A JPEG at least twice as large as `target` (px, both sides) is decoded at a reduced scale, and
    both sides stay at `target` or more. With `official` the pixels are those that the authors' code
    sees, `Image.open(...).convert("RGB")`: neither reduced, nor turned upright, nor put on white.
    Raises RecordProblem (missing_image, unreadable_image, too_large, too_slow), whatever the
    decoder raises.
    """
    data = read_photo(name, base, max_bytes=limits.bytes)
    return decode_photo(data, target=target, limits=limits, official=official)


def photo_size(name: str, base: Path = Path()) -> tuple[int, int]:
    """Width and height of the upright photo, from its header; RecordProblem as `load_photo`."""
    data = read_photo(name, base)
    try:
        if is_raw(data):
            return raw_size(data)
        photo = open_photo(data)
        turned = photo.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except RecordProblem:
        raise
    except Exception as error:
        raise RecordProblem(_what_it_is(data), code="unreadable_image") from error
    return (photo.height, photo.width) if turned else photo.size


def read_photo(name: str, base: Path = Path(), *, max_bytes: int = LIMITS.bytes) -> bytes:
    """The photo's file as it is; RecordProblem when it is missing, too large or cannot be read.

    Only regular files are opened: a pipe may never end, and a device may do anything.
    """
    if base_url(base) is not None:
        return read_remote_photo(name, base, max_bytes)
    inside = split_member(name)
    if inside and not (base / name).is_file():
        return open_archive(base / inside[0]).read(inside[1], max_bytes)
    path = base / name
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            what = "is a directory" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise RecordProblem(what, code="unreadable_image")
        check_bytes(facts.st_size, max_bytes)
        with os.fdopen(os.open(path, _OPEN), "rb") as stream:
            return stream.read(facts.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordProblem("no such file", code="missing_image") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordProblem(reason.lower(), code="unreadable_image") from error


def decode_photo(
    data: bytes,
    *,
    target: int | None = None,
    limits: PhotoLimits = LIMITS,
    official: bool = False,
) -> Image.Image:
    """The upright RGB picture of a file's content, as `load_photo`.

    Of animations and several pages the first; alpha over white; 16 bits scaled to 8.
    """
    if not data:
        raise RecordProblem("the file is empty", code="unreadable_image")
    is_jpeg = data.startswith(b"\xff\xd8") and not official  # Pillow is what the authors use
    # No thread, which may take longer than a small photo, where it is known to end in time.
    if is_jpeg and _visits(data) <= _VISITS_A_SECOND * limits.seconds:
        photo = _decode_jpeg(data, target or 0, limits.pixels)
        if photo is not None:
            return photo
        is_jpeg = False
    end = time.monotonic() + limits.seconds

    def decode() -> Image.Image:
        # Pillow looks at the clock between blocks, libjpeg-turbo would go through all scans.
        if is_jpeg and data.count(b"\xff\xda") <= _USUAL_SCANS:
            photo = _decode_jpeg(data, target or 0, limits.pixels)
            if photo is not None:
                return photo
        return _decode_others(data, target, limits.pixels, end, official)

    return in_time(decode, limits.seconds)


def in_time(do: Callable[[], _T], seconds: float, late: str = "not decoded") -> _T:
    """What `do` gives, in a thread of its own; RecordProblem (too_slow) after `seconds`.

    A thread cannot be stopped: it ends with its decoder, which has no more than the limit on
    pixels to do, or where that asks for more data.
    """
    outcomes: queue.SimpleQueue[_T | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(do())
        except BaseException as error:
            outcomes.put(error)

    Thread(target=work, name="ramctl-decoder", daemon=True).start()
    try:
        outcome: _T | BaseException = outcomes.get(timeout=seconds)
    except queue.Empty:
        outcome = TimeoutError()
    if isinstance(outcome, TimeoutError):
        message = f"{late} after {seconds:g} seconds (--max-seconds)"
        raise RecordProblem(message, code="too_slow") from outcome
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class _Timed(io.BytesIO):
    """A file's content that cannot be read after some time."""

    def __init__(self, data: bytes, end: float) -> None:
        super().__init__(data)
        self._end = end

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise TimeoutError
        return super().read(size)


def _visits(data: bytes) -> int:
    """Pixels times scans of a JPEG that is decoded scan by scan; 0 where nothing is read twice.

    Each scan of a progressive JPEG may go over all of the photo.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker in (0xC0, 0xC1):
                return 0
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            width = int.from_bytes(data[place + 7 : place + 9], "big")
            return height * width * data.count(b"\xff\xda")
        is_padding = marker == 0xFF
        place += 1 if is_padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _decode_jpeg(data: bytes, target: int, max_pixels: int) -> Image.Image | None:
    """The photo by libjpeg-turbo; None for what Pillow handles better (CMYK, slight damage)."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None
        check_size(width, height, max_pixels)
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=target, min_width=target, min_factor=2 if target else 1
        )
    except RecordProblem:
        raise
    except Exception:
        return None
    photo = Image.fromarray(pixels)
    start = data.find(b"Exif\x00\x00", 0, 1 << 17)
    if start >= 0:
        # Damaged EXIF data say nothing about the pixels.
        with suppress(Exception):
            photo.getexif().load(data[start : start + (1 << 16)])
            ImageOps.exif_transpose(photo, in_place=True)
    return photo


def _decode_others(
    data: bytes, target: int | None, max_pixels: int, end: float, official: bool
) -> Image.Image:
    """The photo by Pillow, its plugins or LibRaw.

    RecordProblem whatever a decoder raises, but TimeoutError after `end`.
    """
    try:
        if is_raw(data):
            limits = PhotoLimits(max_pixels, seconds=end - time.monotonic())
            return decode_raw(
                data, target, partial(check_size, max_pixels=max_pixels),
                partial(decode_photo, target=target, limits=limits),
            )  # fmt: skip
        photo = open_photo(data, end)
        check_size(photo.width, photo.height, max_pixels)
        photo.decodermaxblock = _BLOCK
        photo.load()
        return rgb(photo, official)
    except (RecordProblem, TimeoutError):
        raise
    except UnidentifiedImageError as error:
        raise RecordProblem(_what_it_is(data), code="unreadable_image") from error
    except MemoryError as error:
        raise RecordProblem("not enough memory to decode it", code="too_large") from error
    except Exception as error:
        reason = " ".join(str(error).lower().split()) or type(error).__name__
        raise RecordProblem(f"damaged: {reason}", code="unreadable_image") from error


def open_photo(data: bytes, end: float = math.inf) -> ImageFile.ImageFile:
    """The photo with its header read; for this call our limit on pixels replaces Pillow's."""
    formats: tuple[str, ...] = _FORMATS
    if _is_heif(data) and _has_heif():
        formats = ("HEIF",)
    elif data.startswith(_JXL_MAGIC) and _has_jxl():
        formats = ("JXL",)
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(_Timed(data, end), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _has_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _has_jxl() -> bool:
    try:
        import pillow_jxl  # noqa: F401 (makes Pillow know the format)
    except ImportError:
        return False
    return True


def _is_heif(data: bytes) -> bool:
    brands = _brands(data)
    return bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS


def _brands(data: bytes) -> set[bytes]:
    """What an ISO media file says that it can be read as."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}


def check_size(width: int, height: int, max_pixels: int) -> None:
    """RecordProblem for a photo that has more pixels."""
    if width * height > max_pixels:
        message = f"{width}x{height} pixels, more than the limit of {max_pixels} (--max-pixels)"
        raise RecordProblem(message, code="too_large")


def _what_it_is(data: bytes) -> str:
    """What is wrong with content that no decoder knows, in the user's terms."""
    head = data[:512].lstrip().lower()
    if _is_heif(data) and not _has_heif():
        return "HEIC needs the extra heif: pip install 'ramctl[heif]'"
    if data.startswith(_JXL_MAGIC) and not _has_jxl():
        return "JPEG XL needs the extra jxl: pip install 'ramctl[jxl]'"
    if _brands(data) & _AVIF_BRANDS and not features.check("avif"):
        return "AVIF needs a Pillow that was built with it: pip install --upgrade pillow"
    if head.startswith((b"<!doctype html", b"<html")):
        return "not a photo: an HTML page"
    if data.startswith((b"\xff\xd8", b"\x89PNG")):
        return "damaged: the file ends in its header"
    if not any(byte < 9 for byte in data[:512]):
        return "not a photo: text"
    return "not a photo in a known format"


def rgb(photo: Image.Image, official: bool = False) -> Image.Image:
    """A copy in RGB: upright, over white, 16 bits scaled to 8; or, `official`, Pillow's way."""
    return photo.convert("RGB") if official else _to_rgb(ImageOps.exif_transpose(photo))


def _to_rgb(photo: Image.Image) -> Image.Image:
    if photo.has_transparency_data:
        over = photo.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    if photo.mode.startswith("I") or photo.mode == "F":
        photo = _to_eight_bits(photo)
    return photo.convert("RGB")


def _to_eight_bits(photo: Image.Image) -> Image.Image:
    """Integers of 16 bits by their high byte; floating point from 0..1, or as 0..255."""
    import numpy as np

    values = np.asarray(photo, np.float64)
    if photo.mode == "F":
        scale = 255.0 if values.max(initial=0) <= 1 else 1.0
    else:
        scale = 1 / 256 if photo.mode.startswith("I;16") or values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))
