"""What photos' files say of themselves before they are decoded."""

import struct

_HEIF_BRANDS = frozenset((b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
COMPRESSION = 259  # a TIFF tag
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_JXL_BITS = (9, 13, 18, 30)  # of a side


def visits(data: bytes) -> int:
    """Pixels times scans of a JPEG that is decoded scan by scan; 0 where nothing is read twice.

    Each scan of a progressive JPEG may go over all of the photo.
    """
    place, n_pixels, n_colours = 2, 0, 0
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            width = int.from_bytes(data[place + 7 : place + 9], "big")
            n_pixels, n_colours = height * width, data[place + 9]
            if marker not in (0xC0, 0xC1):
                break
        elif marker == 0xDA:
            if data[place + 4] == n_colours:  # all of them are in this scan
                return 0
            break
        is_padding = marker == 0xFF
        place += 1 if is_padding else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return n_pixels * data.count(b"\xff\xda")


def first_tags(data: bytes) -> dict[int, int]:
    """The tags of a TIFF's first page, with the first value of each (or where that is)."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return {}
    order = "<" if data[:2] == b"II" else ">"
    tags = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (number,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * number, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, place)
            value = "H" if kind == 3 else "I"
            (tags[tag],) = struct.unpack_from(order + value, data, place + 8)
    except struct.error:  # it is cut
        pass
    return tags


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG XL; ValueError where it ends before them."""
    place = 0
    while not data.startswith(b"\xff\x0a", place):  # a box, which may hold the picture
        length, name = struct.unpack_from(">I4s", data, place)
        head = 16 if length == 1 else 8
        if name in (b"jxlc", b"jxlp"):
            place += head + 4 * (name == b"jxlp")
            break
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, place + 8)
        if length < head:
            raise ValueError("no picture in it")
        place += length
    rest = int.from_bytes(data[place + 2 : place + 18], "little")

    def take(n_bits: int) -> int:
        nonlocal rest
        value = rest & ((1 << n_bits) - 1)
        rest >>= n_bits
        return value

    is_small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take(_JXL_BITS[take(2)]) + 1

    height, ratio = side(), take(3)
    if not ratio:
        return side(), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def is_heif(data: bytes) -> bool:
    """Whether this is a HEIF, and no AVIF."""
    names = brands(data)
    return bool(names & _HEIF_BRANDS) and not names & AVIF_BRANDS


def brands(data: bytes) -> set[bytes]:
    """What an ISO media file says that it can be read as."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
