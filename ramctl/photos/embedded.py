"""What a photo's own file says about it: its XMP packet and its keywords outside of XMP."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import IptcImagePlugin

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import open_photo, read_photo

_CHARSET, _KEYWORDS = (1, 90), (2, 25)  # IPTC-IIM, record and data set
_UTF8 = b"\x1b%G"
_XMP, _XP_KEYWORDS = 700, 0x9C9E  # TIFF and Exif tags


def read_embedded(name: str, base: Path = Path()) -> tuple[bytes | None, list[str]]:
    """A photo's XMP packet, and its keywords of IPTC-IIM and of Windows (Exif XPKeywords).

    Nothing where it cannot be read or is damaged.
    """
    try:
        photo = open_photo(read_photo(name, base))
    except (RecordProblem, OSError, ValueError, SyntaxError):
        return None, []
    xmp: bytes | None = None
    words: list[str] = []
    # Damaged metadata are no programs' keywords; what decoders raise for them is anything.
    with suppress(Exception):
        if photo.format == "PNG":
            photo.load()  # exiftool puts its text behind the pixels
        packet = photo.info.get("xmp") or photo.info.get("XML:com.adobe.xmp")
        packet = packet or getattr(photo, "tag_v2", {}).get(_XMP)
        xmp = packet.encode() if isinstance(packet, str) else packet
    with suppress(Exception):
        facts: dict[tuple[int, int], Any] = IptcImagePlugin.getiptcinfo(photo) or {}
        values = facts.get(_KEYWORDS, [])
        # In UTF-8 where the photo says so or they are; else what old Windows programs wrote.
        otherwise = "utf-8" if facts.get(_CHARSET) == _UTF8 else "cp1252"
        for value in values if isinstance(values, list) else [values]:
            try:
                words.append(value.decode("utf-8"))
            except UnicodeDecodeError:
                words.append(value.decode(otherwise, "replace"))
    with suppress(Exception):
        value = photo.getexif().get(_XP_KEYWORDS, b"")
        words += bytes(value).decode("utf-16-le").rstrip("\0").split(";")
    return xmp or None, [word.strip() for word in words if word.strip()]
