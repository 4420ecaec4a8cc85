"""Photos that a program hands over: names, contents, open files, pictures in memory."""

import os
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.photos.archives import check_bytes
from ramctl.photos.decoding import check_size, decode_photo, rgb
from ramctl.photos.limits import PhotoLimits
from ramctl.records.record import Record, encode_name


@runtime_checkable
class Readable(Protocol):
    """A file that is open for reading bytes; it is read from where it stands."""

    def read(self, size: int = ..., /) -> bytes: ...


#: A path or `shard.tar#member`; a photo file's content, or the file, open; or a picture: Pillow's,
#: or an array of bytes (height, width), (height, width, 3) in the order RGB, or with alpha.
Photo = str | os.PathLike[str] | bytes | bytearray | Readable | Image.Image | NDArray[Any]
_KINDS = (str, os.PathLike, bytes, bytearray, Readable, Image.Image, np.ndarray)
_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with alpha


@dataclass(slots=True)
class PhotoRecord(Record):
    """A record with its photo: a file's content, a picture, or why there is none."""

    photo: bytes | Image.Image | RecordProblem = b""

    def decode(self, target: int | None, limits: PhotoLimits, official: bool) -> Image.Image:
        """The photo as `decoding.load_photo` gives it; RecordProblem names its `source`."""
        try:
            if isinstance(self.photo, RecordProblem):
                raise self.photo
            if isinstance(self.photo, Image.Image):
                return self.photo
            check_bytes(len(self.photo), limits.bytes)
            return decode_photo(self.photo, target=target, limits=limits, official=official)
        except RecordProblem as problem:
            message = f"{self.source}: {problem.message}"
            raise RecordProblem(message, code=problem.code) from problem


def is_photo(value: object) -> bool:
    """Whether this is one photo, not several."""
    return isinstance(value, _KINDS)


def photo_record(photo: Photo, place: str, limits: PhotoLimits, official: bool) -> Record:
    """The record of a photo, which `place` names where it has no name itself.

    Files are read and pictures are converted here, as neither can be shared between threads.
    TypeError for what is no photo.
    """
    if isinstance(photo, str | os.PathLike):
        return Record({"image": encode_name(os.fspath(photo))}, "python", 1)
    name: Any = getattr(photo, "filename", None) or getattr(photo, "name", None)
    named = isinstance(name, str)  # a file's may be its number
    made = PhotoRecord({"image": encode_name(name)} if named else {}, name if named else place)
    try:
        made.photo = _content(photo, limits, official)
    except RecordProblem as problem:
        made.photo = problem
    return made


def _content(photo: Photo, limits: PhotoLimits, official: bool) -> bytes | Image.Image:
    if isinstance(photo, np.ndarray):
        photo = _picture(photo)
    if isinstance(photo, Image.Image):
        check_size(photo.width, photo.height, limits.pixels)
        try:
            return rgb(photo.copy(), official)
        except Exception as error:  # of a file that is read only now
            reason = " ".join(str(error).lower().split()) or type(error).__name__
            raise RecordProblem(f"damaged: {reason}", code="unreadable_image") from error
    if isinstance(photo, bytes | bytearray):
        return bytes(photo)
    if not isinstance(photo, Readable):
        raise TypeError(f"not a photo: {type(photo).__name__}")
    try:
        content = photo.read(limits.bytes + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RecordProblem(reason, code="unreadable_image") from error
    if not isinstance(content, bytes):
        raise TypeError("not a photo: a file that is open as text (open it as 'rb')")
    return content


def _picture(pixels: NDArray[Any]) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in _CHANNELS:
        shape = ", ".join(map(str, pixels.shape))
        message = (
            f"an array of {pixels.dtype} ({shape}) is no picture: uint8 is, of (height, width) or "
            "(height, width, 1, 3 or 4 channels)"
        )
        raise RecordProblem(message, code="unreadable_image")
    if not pixels.size:
        raise RecordProblem("the array is empty", code="unreadable_image")
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels)
