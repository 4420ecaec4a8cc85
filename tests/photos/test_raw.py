"""Raw files of cameras, here small and of one colour: read with their extra, named without it."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from ramctl.photos import decoding
from ramctl.photos.decoding import decode_photo, load_photo, photo_size
from tests.photos.test_decoding import blue_corner, marked
from tests.support import problem_of

RAW = "a.dng"  # the name by which a file is one
_FORMS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 10: "ii"}  # of TIFF's types
_IDENTITY = [(1, 1), (0, 1), (0, 1), (0, 1), (1, 1), (0, 1), (0, 1), (0, 1), (1, 1)]
_LATER = 0xFEDCBA98  # in place of a place that is not known yet
Tags = dict[int, tuple[int, object]]  # by number, with type and values


class _Tiff(bytearray):
    """A little-endian TIFF that grows at its end."""

    def put(self, data: bytes) -> int:
        """Append and return the place."""
        self.extend(b"\0" * (-len(self) % 4))
        place = len(self)
        self.extend(data)
        return place

    def page(self, tags: Tags) -> int:
        """Append a page's tags and return the place."""
        rows = [self._row(tag, kind, values) for tag, (kind, values) in sorted(tags.items())]
        return self.put(struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4))

    def _row(self, tag: int, kind: int, values) -> bytes:
        pairs = [value if isinstance(value, tuple) else (value,) for value in values]
        data = values if kind == 2 else b"".join(struct.pack(f"<{_FORMS[kind]}", *p) for p in pairs)
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", self.put(data))
        return struct.pack("<HHI", tag, kind, len(values)) + field


def dng(size=(640, 480), preview: Image.Image | None = None, flip: int = 1, colour="red") -> bytes:
    """A DNG of one colour, with a JPEG preview or without; `flip` is Exif's orientation."""
    width, height = size
    red, green, blue = (value * 200 for value in ImageColor.getrgb(colour))
    sensor = np.empty((height, width), "<u2")
    sensor[0::2, 0::2], sensor[1::2, 1::2] = red, blue
    sensor[0::2, 1::2] = sensor[1::2, 0::2] = green
    tiff = _Tiff(b"II*\0\0\0\0\0")
    raw = tiff.page({
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]),
        262: (3, [32803]), 273: (4, [_LATER]), 277: (3, [1]), 278: (4, [height]),
        279: (4, [sensor.nbytes]), 33421: (3, [2, 2]), 33422: (1, [0, 1, 1, 2]),
    })  # fmt: skip
    tags: Tags = {
        254: (4, [1]), 271: (2, b"Test\0"), 272: (2, b"Camera\0"), 274: (3, [flip]),
        330: (4, [raw]), 50706: (1, [1, 4, 0, 0]), 50708: (2, b"Test Camera\0"),
        50721: (10, _IDENTITY), 50728: (5, [(1, 1)] * 3), 50778: (3, [21]),
    }  # fmt: skip
    if preview is None:
        shown, size, form = bytes(48), (4, 4), (1, 2)
    else:
        stream = io.BytesIO()
        exif = preview.getexif()
        preview.save(stream, "JPEG", quality=95, exif=exif)
        shown, size, form = stream.getvalue(), preview.size, (7, 6)
        if exif:  # comes first in a camera's, where LibRaw looks for it
            shown = shown[:2] + shown[20:]
    tags |= {
        256: (4, [size[0]]), 257: (4, [size[1]]), 258: (3, [8, 8, 8]), 259: (3, [form[0]]),
        262: (3, [form[1]]), 273: (4, [tiff.put(shown)]), 277: (3, [3]), 278: (4, [size[1]]),
        279: (4, [len(shown)]),
    }  # fmt: skip
    tiff[4:8] = struct.pack("<I", tiff.page(tags))
    pixels = tiff.put(sensor.tobytes())  # last, as in most cameras' files
    return bytes(tiff).replace(struct.pack("<I", _LATER), struct.pack("<I", pixels), 1)


@pytest.fixture
def rawpy():
    return pytest.importorskip("rawpy", reason="needs the extra raw")


def test_a_large_preview_is_taken_and_a_small_one_is_not(rawpy):
    data = dng(preview=marked((320, 240)))
    photo = decode_photo(data, RAW, target=224)
    assert (photo.size, blue_corner(photo)) == ((320, 240), (0, 0))
    assert decode_photo(data, RAW).size == (320, 240)  # half of the photo
    for small in (dng(preview=marked((160, 120))), dng()):
        for target, size in ((224, (320, 240)), (300, (640, 480)), (None, (640, 480))):
            photo = decode_photo(small, RAW, target=target)
            red, _, blue = np.asarray(photo).mean((0, 1))
            assert photo.size == size and red > 200 > blue + 100


@pytest.mark.parametrize(("flip", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (1, 0)), (8, (0, 1))])
def test_photos_are_upright(rawpy, flip, corner, tmp_path):
    upright = (240, 320) if flip > 4 else (320, 240)
    data = dng(preview=marked((320, 240)), flip=flip)
    photo = decode_photo(data, RAW, target=150)
    assert (photo.size, blue_corner(photo)) == (upright, corner)
    (tmp_path / "a.dng").write_bytes(data)
    assert photo_size("a.dng", tmp_path) == tuple(2 * side for side in upright)
    assert decode_photo(dng(flip=flip), RAW, target=200).size == upright


@pytest.mark.parametrize(("size", "corner"), [((320, 240), (1, 0)), ((240, 320), (0, 0))])
def test_a_preview_that_does_not_say_it_is_turned_unless_the_camera_has_done_so(
    rawpy, size, corner
):
    preview = marked(size)
    preview.getexif()[0x010F] = "Test"
    photo = decode_photo(dng(preview=preview, flip=6), RAW, target=150)
    assert (photo.size, blue_corner(photo)) == ((240, 320), corner)


def test_damaged_and_too_large_raw_files_are_problems(rawpy, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 640 * 480 - 1)
    problem = problem_of(decode_photo, dng(), RAW)
    assert (problem.code, "640x480" in problem.message) == ("too_large", True)
    problem = problem_of(decode_photo, b"FUJIFILMCCD-RAW " + bytes(1000), RAW)
    assert problem.code == "unreadable_image"
    assert problem.message == "damaged: unsupported file format or not raw file"


def test_without_its_extra_a_raw_file_is_named_not_taken_for_its_stamp(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "a.dng").write_bytes(dng(preview=marked((320, 240))))
    for read in (load_photo, photo_size):
        problem = problem_of(read, "a.dng", tmp_path)
        assert problem.message == "a raw file needs the extra raw: pip install 'ramctl[raw]'"
        assert problem.code == "unreadable_image"
