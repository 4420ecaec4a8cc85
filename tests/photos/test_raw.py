"""Raw files of cameras, HEIC and AVIF: read with their extras, named without them."""

import sys

import numpy as np
import pytest
from PIL import Image, features

from ramctl.errors import RecordProblem
from ramctl.photos import decoding
from ramctl.photos.decoding import decode_photo, load_photo, photo_size
from tests.photos.raw_files import dng
from tests.photos.test_decoding import blue_corner, encoded, marked
from tests.support import problem_of

RAW = "a.dng"  # the name by which a file is one


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


def test_a_damaged_preview_leaves_the_photo(rawpy):
    data = bytearray(dng(preview=marked((320, 240))))
    start = data.index(b"\xff\xd8\xff")
    data[start + 20 : start + 400] = bytes(380)
    assert np.asarray(decode_photo(bytes(data), RAW, target=224)).mean((0, 1))[0] > 200


def test_damaged_and_too_large_raw_files_are_problems(rawpy, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 640 * 480 - 1)
    problem = problem_of(decode_photo, dng(), RAW)
    assert (problem.code, "640x480" in problem.message) == ("too_large", True)
    problem = problem_of(decode_photo, b"FUJIFILMCCD-RAW " + bytes(1000), RAW)
    assert problem.code == "unreadable_image"
    assert problem.message.startswith("damaged: ") and "b'" not in problem.message


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("preview", [None, marked((320, 240))], ids=["sensor", "preview"])
def test_a_raw_file_that_is_cut_is_the_whole_photo_or_none(rawpy, preview):
    data = dng(preview=preview)
    whole = decode_photo(data, RAW, target=224).tobytes()
    for cut in range(1, len(data), len(data) // 20):
        try:
            assert decode_photo(data[:cut], RAW, target=224).tobytes() == whole
        except RecordProblem as problem:
            assert problem.code == "unreadable_image"


def test_without_its_extra_a_raw_file_is_named_not_taken_for_its_stamp(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rawpy", None)
    (tmp_path / "a.dng").write_bytes(dng(preview=marked((320, 240))))
    for read in (load_photo, photo_size):
        problem = problem_of(read, "a.dng", tmp_path)
        assert problem.message == "a raw file needs the extra raw: pip install 'ramctl[raw]'"
        assert problem.code == "unreadable_image"


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_whatever_brand_comes_first():
    data = encoded(Image.new("RGB", (64, 48), (20, 200, 20)), "AVIF")
    assert decode_photo(data).size == (64, 48)
    renamed = data[:8] + b"mif1" + data[12:]
    assert b"avif" in data[16:40] and decode_photo(renamed).size == (64, 48)
