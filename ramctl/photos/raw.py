"""Decode raw files of cameras: the JPEG preview in them, else the sensor data.

LibRaw reads them, through rawpy (extra `[raw]`).
"""

import io
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.records.extras import needs

RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".srw", ".x3f",
})  # fmt: skip
_ORIENTATION = 0x0112
# How the camera was held, in LibRaw.
_UPSIDE_DOWN, _ANTICLOCKWISE, _CLOCKWISE = 3, 5, 6
_TURNS = {
    _UPSIDE_DOWN: Image.Transpose.ROTATE_180,
    _ANTICLOCKWISE: Image.Transpose.ROTATE_90,
    _CLOCKWISE: Image.Transpose.ROTATE_270,
}


def is_raw_name(name: str) -> bool:
    """Whether a file name has the extension of a camera's raw files."""
    return os.path.splitext(name)[1].lower() in RAW_SUFFIXES  # noqa: PTH122 (fast)


def raw_size(data: bytes) -> tuple[int, int]:
    """Width and height of the upright photo; ValueError for damage, RecordProblem as below."""
    with _opened(data) as raw:
        sizes = raw.sizes
    is_turned = sizes.flip in (_ANTICLOCKWISE, _CLOCKWISE)
    return (sizes.height, sizes.width) if is_turned else (sizes.width, sizes.height)


def decode_raw(
    data: bytes,
    target: int | None,
    decode: Callable[[bytes], Image.Image],
    one_at_a_time: Callable[[int, int], AbstractContextManager[None]],
) -> Image.Image:
    """The upright photo, from its preview where that is large enough.

    Large enough is `target` (px, both sides), else half of the photo. `decode` decodes a JPEG
    preview; the sensor data are decoded in a block of `one_at_a_time`. ValueError for damage;
    RecordProblem without rawpy, and for too many pixels.
    """
    with _opened(data) as raw:
        import rawpy

        width, height = raw.sizes.width, raw.sizes.height
        try:
            preview = _preview(raw, target or min(width, height) // 2, decode)
            if preview is not None:
                return preview
            half = target is not None and min(width, height) >= 2 * target
            with one_at_a_time(width, height):
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
