"""Decode photos, JPEG and other formats, to upright RGB pixels; RecordProblem if that fails."""

import ctypes
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ramctl.errors import RecordProblem
from ramctl.parts import needs
from ramctl.photos.archives import check_bytes, facts_of_file, member_of, open_archive
from ramctl.photos.limits import (
    LIMITS,
    PhotoLimits,
    Timed,
    TimeLeft,
    check_size,
    estimated_bytes,
    in_time,
    pixel_visits,
    room_for_file,
)
from ramctl.photos.raw import decode_raw, is_raw, raw_size
from ramctl.photos.shard_cache import read_remote_photo
from ramctl.records.record import Record, encode_name, image_name, shown_name
from ramctl.records.remote import base_url

# Not all formats of Pillow: some start other programs (EPS), some are not photos (WMF).
# Pillow knows the first five from the start; only the others make it load all its plugins.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF")
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_ORIENTATION = 0x0112
# Without waiting, if a pipe replaces the file at the last moment.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 1 << 14  # bytes after which Pillow checks the time
_USUAL_HALVINGS = 5  # of the size in a JPEG 2000
_USUAL_SCANS = 100  # of a progressive JPEG; programs write about ten
# Pixels times scans that libjpeg-turbo decodes in a second on any machine.
_VISITS_A_SECOND = 20_000_000
_LARGE = 20_000_000  # pixels; larger pictures are shrunk, where a target is given
_BAND = 1 << 20  # pixels that are turned into RGB at a time
_SAMPLES = {"Gray": 1, "420": 1.5, "411": 1.5, "422": 2, "440": 2}  # a pixel of a JPEG; else 3
_pillow_limit = Lock()


def record_photo(
    record: Record, target: int | None = None, limits: PhotoLimits = LIMITS, official: bool = False
) -> Image.Image:
    """`load_photo` of a record; the problem of a photo from a list names it."""
    if isinstance(record, PhotoRecord):
        return record.decode(target, limits, official)
    name = image_name(record.fields)
    try:
        return load_photo(name, record.base, target=target, limits=limits, official=official)
    except RecordProblem as problem:
        if record.line is None:
            raise
        message = f"{shown_name(name)}: {problem.message}"
        raise RecordProblem(message, code=problem.code) from problem


def load_photo(
    name: str,
    base: Path = Path(),
    *,
    target: int | None = None,
    limits: PhotoLimits = LIMITS,
    official: bool = False,
) -> Image.Image:
    """The upright RGB pixels of a photo: a path or `shard.tar#member`, relative to `base`.

    A JPEG at least twice as large as `target` (px, both sides) is decoded at a reduced scale of at
    least `target`; other photos of more than 20 megapixels are reduced to at least twice that. With
    `official` the pixels are those of the authors' code, `Image.open(...).convert("RGB")`: not
    reduced, not turned upright, not put on white. Photos wait for room in `limits.memory`.
    RecordProblem: missing_image, unreadable_image, too_large or too_slow.
    """
    try:
        n_bytes = os.stat(os.path.join(base, name)).st_size  # noqa: PTH116, PTH118 (fast)
    except (OSError, ValueError):
        n_bytes = 0  # in an archive, at a URL, or a problem of `read_photo`
    with room_for_file(n_bytes):
        data = read_photo(name, base, max_bytes=limits.bytes)
        return decode_photo(data, target=target, limits=limits, official=official)


def photo_size(name: str, base: Path = Path()) -> tuple[int, int]:
    """Width and height of the upright photo, from its header; RecordProblem as of `load_photo`."""
    data = read_photo(name, base)
    try:
        if is_raw(data):
            return raw_size(data)
        photo = open_photo(data)
        is_turned = photo.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except RecordProblem:
        raise
    except Exception as error:
        raise RecordProblem(unknown_format(data), code="unreadable_image") from error
    return (photo.height, photo.width) if is_turned else photo.size


def read_photo(name: str, base: Path = Path(), *, max_bytes: int = LIMITS.bytes) -> bytes:
    """The content of a photo's file; RecordProblem if it is missing, too large or unreadable."""
    if base_url(base) is not None:
        return read_remote_photo(name, base, max_bytes)
    if inside := member_of(name, base):
        return open_archive(base / inside[0]).read(inside[1], max_bytes)
    path = base / name
    facts = facts_of_file(path)
    check_bytes(facts.st_size, max_bytes)
    try:
        with os.fdopen(os.open(path, _OPEN), "rb") as stream:
            return stream.read(facts.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RecordProblem("no such file", code="missing_image") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordProblem(reason.lower(), code="unreadable_image") from error


def decode_photo(
    data: bytes, *, target: int | None = None, limits: PhotoLimits = LIMITS, official: bool = False
) -> Image.Image:
    """The upright RGB picture of a file's content, as `load_photo`.

    Of animations and several pages the first; alpha over white; 16 bits scaled to 8.
    """
    if not data:
        raise RecordProblem("the file is empty", code="unreadable_image")
    is_jpeg = data.startswith(b"\xff\xd8") and not official  # Pillow is what the authors use
    time_left = TimeLeft(limits)
    n_visits = pixel_visits(data) if is_jpeg else 0
    decode_jpeg = partial(_decode_jpeg, data, target or 0, time_left, n_visits > 0)

    def decode() -> Image.Image:
        # Pillow checks the time between blocks; libjpeg-turbo would decode all scans.
        is_usual = is_jpeg and data.count(b"\xff\xda") <= _USUAL_SCANS
        if is_usual and (photo := decode_jpeg()) is not None:
            return photo
        return _decode_others(data, target, time_left, official)

    try:
        # A thread may take longer than a small photo: none where decoding surely ends in time.
        if is_jpeg and n_visits <= _VISITS_A_SECOND * limits.seconds:
            if (photo := decode_jpeg()) is not None:
                return photo
            is_jpeg = False
        return in_time(decode, time_left)
    except TimeoutError as error:
        message = f"not decoded after {limits.seconds:g} seconds"
        raise RecordProblem(message, code="too_slow") from error


def _decode_jpeg(
    data: bytes, target: int, time_left: TimeLeft, buffered: bool
) -> Image.Image | None:
    """Decode a JPEG by libjpeg-turbo; None if Pillow does better (CMYK, slight damage)."""
    limits = time_left.limits
    try:
        height, width, colours, sampling = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None
        check_size(width, height, limits.pixels)
        fits = min(width, height) // target if target else 1
        divisor = next((part for part in (8, 4, 2) if part <= fits), 1)
        samples = _SAMPLES.get(colours, _SAMPLES.get(sampling, 3))
        # For libjpeg-turbo, which holds all scans where rows need them, and Pillow.
        needed = int(width * height * (2 * samples * buffered + 7 / divisor**2))
        if needed > limits.memory:
            return None  # Pillow needs less
        with time_left.room(needed):
            pixels = simplejpeg.decode_jpeg(
                data, "RGB", min_height=target, min_width=target, min_factor=2 if target else 1
            )
            photo = Image.fromarray(pixels)
    except (RecordProblem, TimeoutError):
        raise
    except Exception:
        return None
    start = data.find(b"Exif\x00\x00", 0, 1 << 17)
    if start >= 0:
        # Damaged EXIF data do not mean damaged pixels.
        with suppress(Exception):
            photo.getexif().load(data[start : start + (1 << 16)])
            ImageOps.exif_transpose(photo, in_place=True)
    return photo


def _decode_others(
    data: bytes, target: int | None, time_left: TimeLeft, official: bool
) -> Image.Image:
    limits = time_left.limits
    try:
        if is_raw(data):
            inner = PhotoLimits(limits.pixels, seconds=time_left(), patient=limits.patient)
            decode = partial(decode_photo, target=target, limits=inner)
            return decode_raw(data, target, decode, time_left)
        photo: Any = open_photo(data, time_left)
        size, needed = photo.size, estimated_bytes(photo, buffered=pixel_visits(data) > 0)
        check_size(photo.width, photo.height, limits.pixels)
        divisor = 1
        if target and not official and size[0] * size[1] > _LARGE:
            divisor = max(min(size) // (2 * target), 1)
        elif photo.mode != "RGB" or "exif" in photo.info:
            needed += 4 * size[0] * size[1]  # for another picture
        if needed > limits.memory and divisor > 1 and photo.format == "JPEG2000":
            photo.reduce = halvings = min(divisor.bit_length() - 1, _USUAL_HALVINGS)
            needed, divisor = needed >> 2 * halvings, divisor >> halvings
        # An icon does not state the size of its picture; Pillow limits it similarly.
        with time_left.room(limits.memory if photo.format == "ICO" else needed + len(data)):
            photo.decodermaxblock = _BLOCK
            if photo.format == "TIFF":
                _silence_libtiff()
            photo.load()
            return rgb(photo, official, divisor)
    except (RecordProblem, TimeoutError):
        raise
    except UnidentifiedImageError as error:
        raise RecordProblem(unknown_format(data), code="unreadable_image") from error
    except MemoryError as error:
        raise RecordProblem("not enough memory to decode it", code="too_large") from error
    except Exception as error:
        raise _damage(error) from error


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from printing on stderr: its lines name no file, and rejects report damage."""
    folder = Path(Image.__file__).parent
    libraries = [*folder.parent.glob("pillow.libs/libtiff*"), *folder.glob(".dylibs/libtiff*")]
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(str(next(iter(libraries), "libtiff.so.6")))
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _damage(error: Exception) -> RecordProblem:
    reason = " ".join(str(error).lower().split()) or type(error).__name__
    return RecordProblem(f"damaged: {reason}", code="unreadable_image")


def open_photo(
    data: bytes, time_left: Callable[[], float] = lambda: math.inf
) -> ImageFile.ImageFile:
    """Open a photo and read its header, without Pillow's limit on pixels."""
    formats = ("HEIF",) if _is_heif(data) and _has_heif() else _FORMATS
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(cast(BinaryIO, Timed(data, time_left)), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_heif(data: bytes) -> bool:
    """Whether an ISO media file claims to be HEIF, and not AVIF."""
    if data[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    return bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS


def _has_heif() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def unknown_format(data: bytes) -> str:
    """The message for content that no decoder knows."""
    if _is_heif(data) and not _has_heif():
        return needs("HEIC", "heif")
    return "damaged, or not a photo in a known format"


def rgb(photo: Image.Image, official: bool = False, divisor: int = 1) -> Image.Image:
    """Convert a photo to RGB: upright, on white, 16 bits scaled to 8; `official`: as Pillow does.

    The sides are divided by `divisor`. A photo that needs no change is returned itself; others are
    converted in bands, so that memory holds no third picture.
    """
    made = photo
    if divisor > 1 or photo.mode != "RGB" or photo.has_transparency_data:
        scale = None if official else _scale(photo)
        width, height = photo.size
        made = Image.new("RGB", (-(-width // divisor), -(-height // divisor)))
        rows = max(_BAND // (width * divisor), 1) * divisor
        for top in range(0, height, rows):
            band = photo.crop((0, top, width, min(top + rows, height)))
            if band.has_transparency_data and not official:
                band = band.convert("RGBA").reduce(divisor)  # which weighs colours by their alpha
                shown = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
            else:
                if scale is not None:
                    values = np.asarray(band, np.float64) * scale
                    band = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
                shown = band.convert("RGB").reduce(divisor)
            made.paste(shown.convert("RGB"), (0, top // divisor))
    if not official and (turn := photo.getexif().get(_ORIENTATION)) in range(2, 9):
        made.getexif()[_ORIENTATION] = turn
        ImageOps.exif_transpose(made, in_place=True)
    return made


def _scale(photo: Image.Image) -> float | None:
    """The factor from values to eight bits; None where they have eight bits.

    16-bit integers keep their high byte; floating point is 0..1, or 0..255.
    """
    if photo.mode.startswith("I;16"):
        return 1 / 256
    if photo.mode not in ("I", "F"):
        return None
    highest: Any = photo.getextrema()[1]
    if photo.mode == "F":
        return 255.0 if highest <= 1 else 1.0
    return 1 / 256 if highest > 255 else 1.0


#: A path or `shard.tar#member`; a photo file's content; or a picture: Pillow's, or an array of
#: bytes (height, width, 3) in the order RGB.
Photo = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
PHOTO_KINDS = (str, os.PathLike, bytes, Image.Image, np.ndarray)


@dataclass(slots=True)
class PhotoRecord(Record):
    """A record with its photo: the content of a file, a picture, or the problem."""

    photo: bytes | Image.Image | RecordProblem = b""

    def decode(self, target: int | None, limits: PhotoLimits, official: bool) -> Image.Image:
        """Decode the photo as `load_photo` does; a RecordProblem names its `source`."""
        try:
            if isinstance(self.photo, RecordProblem):
                raise self.photo
            if isinstance(self.photo, Image.Image):
                return self.photo
            check_bytes(len(self.photo), limits.bytes)
            return decode_photo(self.photo, target=target, limits=limits, official=official)
        except RecordProblem as problem:
            raise RecordProblem(f"{self.source}: {problem.message}", code=problem.code) from problem


def photo_record(photo: Photo, place: str, limits: PhotoLimits, official: bool) -> Record:
    """The record of a photo; `place` is the name of one without a name.

    Pictures are converted here, as threads cannot share them. TypeError for other objects.
    """
    if isinstance(photo, str | os.PathLike):
        return Record({"image": encode_name(os.fspath(photo))}, "python", 1)
    name: Any = getattr(photo, "filename", None)  # of a picture that Pillow opened by it
    has_name = isinstance(name, str) and bool(name)
    fields = {"image": encode_name(name)} if has_name else {}
    made = PhotoRecord(fields, name if has_name else place)
    try:
        made.photo = _content(photo, limits, official)
    except RecordProblem as problem:
        made.photo = problem
    return made


def _content(photo: Photo, limits: PhotoLimits, official: bool) -> bytes | Image.Image:
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            message = f"an array of {photo.dtype} {photo.shape} is no picture (height, width, 3)"
            raise RecordProblem(message, code="unreadable_image")
        photo = Image.fromarray(photo)
    if not isinstance(photo, Image.Image):
        raise TypeError(f"not a photo: {type(photo).__name__}")
    if not photo.width * photo.height:
        raise RecordProblem("a picture without pixels", code="unreadable_image")
    check_size(photo.width, photo.height, limits.pixels)
    try:
        return rgb(photo.copy(), official)
    except Exception as error:  # the file of a picture is read only now
        raise _damage(error) from error
