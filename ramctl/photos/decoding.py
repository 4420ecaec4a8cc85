"""Decode photos, JPEG and other formats, to upright RGB pixels; RecordProblem if that fails."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ramctl.errors import RecordProblem, attempt
from ramctl.photos.archives import facts_of_file, member_of, open_archive, unreadable
from ramctl.photos.raw import decode_raw, is_raw_name
from ramctl.records.extras import needs
from ramctl.records.record import Record, image_name, shown_name

MAX_PIXELS = 200_000_000  # the largest phone photos have just under 200 megapixels
_LARGE = 30_000_000  # pixels; larger photos are decoded one at a time, for the sake of memory
# Not all formats of Pillow: some start other programs (EPS), some are not photos (WMF).
# Pillow knows the first five from the start; only the others make it load all its plugins.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112
_pillow_limit, _large_photo = Lock(), Lock()


def record_photo(record: Record, target: int | None = None, official: bool = False) -> Image.Image:
    """`load_photo` of a record; the problem of a photo from a list names it."""
    name = record.source
    try:
        if not isinstance(record, PhotoRecord):
            name = image_name(record.fields)
            return load_photo(name, record.base, target=target, official=official)
        if isinstance(record.photo, RecordProblem):
            raise record.photo
        if isinstance(record.photo, Image.Image):
            return record.photo
        name = record.fields.get("image", name)
        return decode_photo(record.photo, name, target=target, official=official)
    except RecordProblem as problem:
        if record.line is None:
            raise
        message = f"{shown_name(name)}: {problem.message}"
        if problem.message == "no such file" and not Path(name).is_absolute():
            message += f" in {record.base} (--root names another folder)"
        raise RecordProblem(message, code=problem.code) from problem


def load_photo(
    name: str, base: Path = Path(), *, target: int | None = None, official: bool = False
) -> Image.Image:
    """The upright RGB pixels of a photo: a path or `shard.tar#member`, relative to `base`.

    A JPEG at least twice as large as `target` (px, both sides) is decoded at a reduced scale of at
    least `target`. With `official` the pixels are those of the authors' code,
    `Image.open(...).convert("RGB")`: not reduced, not turned upright, not put on white.
    RecordProblem: missing_image, unreadable_image or too_large.
    """
    return decode_photo(read_photo(name, base), name, target=target, official=official)


def photo_size(name: str, base: Path = Path()) -> tuple[int, int]:
    """Width and height of the upright photo; RecordProblem as of `load_photo`."""
    data = read_photo(name, base)
    if is_raw_name(name):
        return decode_photo(data, name, target=MAX_PIXELS).size  # no preview is as large
    try:
        photo = open_photo(data)
        is_turned = photo.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:
        raise RecordProblem(unknown_format(data), code="unreadable_image") from error
    return (photo.height, photo.width) if is_turned else photo.size


def read_photo(name: str, base: Path = Path()) -> bytes:
    """The content of a photo's file; RecordProblem if it is missing or unreadable."""
    if inside := member_of(name, base):
        return open_archive(base / inside[0]).read(inside[1])
    path = base / name
    facts_of_file(path)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise unreadable(error) from error


def decode_photo(
    data: bytes, name: str = "", *, target: int | None = None, official: bool = False
) -> Image.Image:
    """The upright RGB picture of a file's content, as `load_photo`; a raw file by its `name`.

    Of animations and several pages the first; alpha over white; 16 bits scaled to 8.
    """
    if not data:
        raise RecordProblem("the file is empty", code="unreadable_image")
    try:
        if is_raw_name(name):
            return decode_raw(data, target, _decode_jpeg, one_at_a_time)
        # Pillow is what the authors use.
        if not official and (photo := _decode_jpeg(data, target or 0)) is not None:
            _turn_upright(photo, data)
            return photo
        opened = open_photo(data)
        with one_at_a_time(opened.width, opened.height):
            opened.load()
            return rgb(opened, official)
    except RecordProblem:
        raise
    except UnidentifiedImageError as error:
        raise RecordProblem(unknown_format(data), code="unreadable_image") from error
    except MemoryError as error:
        raise RecordProblem("not enough memory to decode it", code="too_large") from error
    except Exception as error:
        raise _damage(error) from error


@contextmanager
def one_at_a_time(width: int, height: int) -> Iterator[None]:
    """A block that decodes a photo; RecordProblem for more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        message = f"{width}x{height} pixels, more than the limit of {MAX_PIXELS}"
        raise RecordProblem(message, code="too_large")
    with _large_photo if width * height > _LARGE else nullcontext():
        yield


def _decode_jpeg(data: bytes, target: int) -> Image.Image | None:
    """The pixels of a JPEG by libjpeg-turbo; None if Pillow does better (CMYK, slight damage)."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None
        with one_at_a_time(width, height):
            pixels = simplejpeg.decode_jpeg(
                data, "RGB", min_height=target, min_width=target, min_factor=2 if target else 1
            )
            return Image.fromarray(pixels)
    except RecordProblem:
        raise
    except Exception:
        return None


def _turn_upright(photo: Image.Image, data: bytes) -> None:
    """Turn a photo as the Exif data of its JPEG demand."""
    start = data.find(b"Exif\x00\x00", 0, 1 << 17)
    if start >= 0:
        # Damaged EXIF data do not mean damaged pixels.
        with suppress(Exception):
            photo.getexif().load(data[start : start + (1 << 16)])
            ImageOps.exif_transpose(photo, in_place=True)


def _damage(error: Exception) -> RecordProblem:
    reason = " ".join(str(error).lower().split()) or type(error).__name__
    return RecordProblem(f"damaged: {reason}", code="unreadable_image")


def open_photo(data: bytes) -> ImageFile.ImageFile:
    """Open a photo and read its header, without Pillow's limit on pixels."""
    formats = ("HEIF",) if _is_heif(data) and _has_heif() else _FORMATS
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(io.BytesIO(data), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _is_heif(data: bytes) -> bool:
    """Whether a file is of the ISO media kind, and none of its first brands is AVIF."""
    return data[4:8] == b"ftyp" and b"avi" not in data[8:64]


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


def rgb(photo: Image.Image, official: bool = False) -> Image.Image:
    """Convert a photo to RGB: upright, on white, 16 bits scaled to 8; `official`: as Pillow does.

    A photo that needs no change is returned itself.
    """
    if official:
        return photo.convert("RGB")
    turn = photo.getexif().get(_ORIENTATION)
    if photo.has_transparency_data:
        clear = photo if photo.mode == "RGBA" else photo.convert("RGBA")
        photo = Image.new("RGB", clear.size, "white")
        photo.paste(clear, mask=clear.getchannel("A"))
    elif photo.mode.startswith(("I", "F")):
        photo = _eight_bits(photo)
    if photo.mode != "RGB":
        photo = photo.convert("RGB")
    if turn in range(2, 9):
        photo.getexif()[_ORIENTATION] = turn
        ImageOps.exif_transpose(photo, in_place=True)
    return photo


def _eight_bits(photo: Image.Image) -> Image.Image:
    """16-bit integers keep their high byte; floating point is 0..1, or 0..255."""
    values = np.asarray(photo)
    if photo.mode == "F":
        values = values * (255 if values.max() <= 1 else 1)
    elif photo.mode != "I" or values.max() > 255:
        values = values >> 8
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


#: A path or `shard.tar#member`; a photo file's content; or a picture: Pillow's, or an array of
#: bytes (height, width, 3) in the order RGB.
Photo = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
PHOTO_KINDS = (str, os.PathLike, bytes, Image.Image, np.ndarray)


@dataclass(slots=True)
class PhotoRecord(Record):
    """A record with its photo: the content of a file, a picture, or the problem."""

    photo: bytes | Image.Image | RecordProblem = b""


def photo_record(photo: Photo, place: str, official: bool) -> Record:
    """The record of a photo; `place` is the name of one without a name.

    Pictures are converted here, as threads cannot share them. TypeError for other objects.
    """
    if isinstance(photo, str | os.PathLike):
        return Record({"image": os.fspath(photo)}, "python", 1)
    made = PhotoRecord({}, place, 1)
    if isinstance(photo, bytes):
        made.photo = photo
    elif isinstance(photo, Image.Image | np.ndarray):
        made.photo = attempt(_picture, photo, official)
    else:
        raise TypeError(f"not a photo: {type(photo).__name__}")
    return made


def _picture(photo: Image.Image | NDArray[Any], official: bool) -> Image.Image:
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.shape[2:] != (3,) or not photo.size:
            message = f"an array of {photo.dtype} {photo.shape}, not of uint8 (height, width, 3)"
            raise RecordProblem(message, code="unreadable_image")
        photo = Image.fromarray(photo)
    if 0 in photo.size:
        raise RecordProblem("a picture without pixels", code="unreadable_image")
    with one_at_a_time(*photo.size):
        try:
            return rgb(photo.copy(), official)
        except Exception as error:  # the file of a picture is read only now
            raise _damage(error) from error
