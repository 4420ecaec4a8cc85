"""Metadata embedded in photos: the XMP packet, and keywords and descriptions outside of it."""

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import IptcImagePlugin

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import MAX_PIXELS, open_photo, read_photo, unknown_format
from ramctl.photos.raw import is_raw_name

_CHARSET, _UTF8 = (1, 90), b"\x1b%G"  # of IPTC-IIM
_IPTC = {(2, 25): "keywords", (2, 120): "description"}  # record and data set
_XMP, _DESCRIPTION, _XP_KEYWORDS = 700, 0x010E, 0x9C9E  # TIFF and Exif tags


def read_embedded(name: str, base: Path = Path()) -> tuple[bytes | None, dict[str, list[str]]]:
    """A photo's XMP packet; its texts in IPTC-IIM, before those in Exif, by name: `keywords`
    (also of Windows) and `description`.

    Damaged metadata are skipped, and all of a raw file that Pillow cannot open. RecordProblem for
    other photos that cannot be opened.
    """
    data = read_photo(name, base)
    try:
        photo = open_photo(data)
    except (OSError, ValueError, SyntaxError) as error:
        if is_raw_name(name):
            return None, {}
        raise RecordProblem(unknown_format(data), code="unreadable_image") from error
    xmp: bytes | None = None
    texts: defaultdict[str, list[str]] = defaultdict(list)
    # Decoders raise all kinds of errors for damaged metadata.
    with suppress(Exception):
        if photo.format == "PNG" and photo.width * photo.height <= MAX_PIXELS:
            photo.load()  # exiftool writes text behind the pixels
        packet = photo.info.get("xmp") or photo.info.get("XML:com.adobe.xmp")
        packet = packet or getattr(photo, "tag_v2", {}).get(_XMP)
        xmp = packet.encode() if isinstance(packet, str) else packet
    with suppress(Exception):
        facts: dict[tuple[int, int], Any] = IptcImagePlugin.getiptcinfo(photo) or {}
        # UTF-8 where they are, or the photo declares it; else the encoding of old Windows programs.
        otherwise = "utf-8" if facts.get(_CHARSET) == _UTF8 else "cp1252"
        for key, what in _IPTC.items():
            values = facts.get(key, [])
            for value in values if isinstance(values, list) else [values]:
                texts[what].append(_decoded(value, otherwise))
    with suppress(Exception):
        value = photo.getexif().get(_XP_KEYWORDS, b"")
        texts["keywords"] += bytes(value).decode("utf-16-le").rstrip("\0").split(";")
    with suppress(Exception):
        # Pillow decodes each byte of a text as a character.
        text = _decoded(photo.getexif()[_DESCRIPTION].encode("latin-1"), "cp1252")
        texts["description"].append(text.split("\0")[0])
    stripped = {what: [text.strip(" \t\r\n\0") for text in texts[what]] for what in texts}
    return xmp or None, {what: [*filter(None, found)] for what, found in stripped.items()}


def _decoded(value: bytes, otherwise: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode(otherwise, "replace")
