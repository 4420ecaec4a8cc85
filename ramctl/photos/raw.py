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
_TURNS = {  # by how the camera was held, in LibRaw
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.ROTATE_90,
    6: Image.Transpose.ROTATE_270,
}


def is_raw_name(name: str) -> bool:
    """Whether a file name has the extension of a camera's raw files."""
    return os.path.splitext(name)[1].lower() in RAW_SUFFIXES  # noqa: PTH122 (fast)


def decode_raw(
    data: bytes,
    target: int | None,
    decode_jpeg: Callable[[bytes, int], Image.Image | None],
    one_at_a_time: Callable[[int, int], AbstractContextManager[None]],
) -> Image.Image:
    """The upright photo, from its preview where that is large enough.

    Large enough is `target` (px, both sides), else half of the photo. `decode_jpeg` decodes a
    preview as it is turned; the sensor data are decoded in a block of `one_at_a_time`. ValueError
    for damage; RecordProblem without rawpy, and for too many pixels.
    """
    try:
        import rawpy
    except ImportError as error:
        raise RecordProblem(needs("a raw file", "raw"), code="unreadable_image") from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            width, height = raw.sizes.width, raw.sizes.height
            preview = decode_jpeg(_preview(raw), target or 0)
            if preview is not None and min(preview.size) >= (target or min(width, height) // 2):
                return _upright(preview, raw.sizes)
            half = target is not None and min(width, height) >= 2 * target
            with one_at_a_time(width, height):
                return Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=half))
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(text) from error


def _preview(raw: Any) -> bytes:
    """The JPEG preview; empty where there is none."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return b""
    return thumbnail.data if thumbnail.format == rawpy.ThumbFormat.JPEG else b""


def _upright(preview: Image.Image, sizes: Any) -> Image.Image:
    """Turn a preview as the sensor data are turned.

    Some cameras have turned it already: then its shape differs from the sensor's.
    """
    is_like_sensor = (preview.width > preview.height) == (sizes.width > sizes.height)
    turn = _TURNS.get(sizes.flip) if is_like_sensor else None
    return preview if turn is None else preview.transpose(turn)
