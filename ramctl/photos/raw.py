"""Decode raw files of cameras: the JPEG preview in them, else the sensor data.

LibRaw reads them, through rawpy (extra `[raw]`).
"""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.parts import needs
from ramctl.photos.limits import TimeLeft, check_size

_MAGIC = re.compile(
    rb"FUJIFILMCCD-RAW|FOVb|\0MRM|IIRO|IIRS|MMOR|IIU\0|II\x1a\0\0\0HEAP|....ftypcrx "
    rb"|II\*\0....(?:CR\x02|IIII)|MM\0\*....MMMM",
    re.DOTALL,
)
_SUBFILE, _COMPRESSION, _SUB_IFDS, _DNG_VERSION = 254, 259, 330, 50706  # TIFF tags
_REDUCED = 1  # a subfile that is a smaller copy of another
_CAMERA_COMPRESSIONS = (32767, 34713, 65535)  # Sony, Nikon, Pentax
_ORIENTATION = 0x0112
_BYTES_A_PIXEL, _HALF_BYTES_A_PIXEL = 24, 10  # of the sensor, at full and half size
# How the camera was held, in LibRaw.
_UPSIDE_DOWN, _ANTICLOCKWISE, _CLOCKWISE = 3, 5, 6
_TURNS = {
    _UPSIDE_DOWN: Image.Transpose.ROTATE_180,
    _ANTICLOCKWISE: Image.Transpose.ROTATE_90,
    _CLOCKWISE: Image.Transpose.ROTATE_270,
}


def is_raw(data: bytes) -> bool:
    """Whether a file is a camera's raw file; many are TIFFs whose first page is a thumbnail."""
    if _MAGIC.match(data):
        return True
    tags = _first_tags(data)
    is_thumbnail = tags.get(_SUBFILE) == _REDUCED and _SUB_IFDS in tags
    return is_thumbnail or _DNG_VERSION in tags or tags.get(_COMPRESSION) in _CAMERA_COMPRESSIONS


def _first_tags(data: bytes) -> dict[int, int]:
    """The tags of a TIFF's first page, with the first value of each, or its offset."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    order = "<" if data[:2] == b"II" else ">"
    tags = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (number,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * number, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, place)
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place + 8)
    except struct.error:  # cut off, perhaps before the tag that leads to the photo
        tags[_SUB_IFDS] = 0
    return tags


def raw_size(data: bytes) -> tuple[int, int]:
    """Width and height of the upright photo; ValueError for damage, RecordProblem as below."""
    with _opened(data) as raw:
        sizes = raw.sizes
    is_turned = sizes.flip in (_ANTICLOCKWISE, _CLOCKWISE)
    return (sizes.height, sizes.width) if is_turned else (sizes.width, sizes.height)


def decode_raw(
    data: bytes, target: int | None, decode: Callable[[bytes], Image.Image], time_left: TimeLeft
) -> Image.Image:
    """The upright photo, from its preview where that is large enough.

    Large enough is `target` (px, both sides), else half of the photo. `decode` decodes a JPEG
    preview. ValueError for damage; RecordProblem without rawpy, and for too many pixels.
    """
    with _opened(data) as raw:
        import rawpy

        size = raw.sizes.width, raw.sizes.height
        check_size(*size, time_left.limits.pixels)
        min_side = target or min(size) // 2
        try:
            if (preview := _preview(raw, min_side, decode)) is not None:
                return preview
            half = target is not None and min(size) >= 2 * target
            n_sensors = raw.sizes.raw_width * raw.sizes.raw_height
            needed = n_sensors * (_HALF_BYTES_A_PIXEL if half else _BYTES_A_PIXEL) + 2 * len(data)
            with time_left.room(needed):
                return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half))
        except rawpy.LibRawError as error:
            raise ValueError(_reason(error)) from error


def _opened(data: bytes) -> Any:
    try:
        import rawpy
    except ImportError as error:
        raise RecordProblem(needs("a raw file", "raw"), code="unreadable_image") from error
    try:
        return rawpy.imread(io.BytesIO(data))
    except rawpy.LibRawError as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)


def _preview(raw: Any, min_side: int, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """The upright preview; None if it is missing, too small or damaged."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if thumbnail.format != rawpy.ThumbFormat.JPEG:
        photo = Image.fromarray(thumbnail.data)
        return _upright(photo, raw.sizes) if min(photo.size) >= min_side else None
    try:
        with Image.open(io.BytesIO(thumbnail.data), formats=("JPEG",)) as header:
            is_small = min(header.size) < min_side
            # LibRaw adds the tag to a preview without Exif data.
            has_turn = _ORIENTATION in header.getexif()
        upright = None if is_small else decode(thumbnail.data)
    except (RecordProblem, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return upright if upright is None or has_turn else _upright(upright, raw.sizes)


def _upright(photo: Image.Image, sizes: Any) -> Image.Image:
    """Turn a preview without orientation as the raw data are turned.

    Some cameras have turned it already: then its shape differs from the sensor's.
    """
    is_like_sensor = (photo.width > photo.height) == (sizes.width > sizes.height)
    turn = _TURNS.get(sizes.flip) if is_like_sensor else None
    return photo if turn is None else photo.transpose(turn)
