"""Pixels of small made-up photos: upright, on white, in eight bits, within the limits."""

import io

import numpy as np
import pytest
from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import PhotoLimits, decode_photo, load_photo, photo_size

ORIENTATION = 0x0112


def encoded(photo: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, form, **options)
    return stream.getvalue()


def half_red(size=(64, 32)) -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, : size[0] // 2, 0] = pixels[:, size[0] // 2 :, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [(1, (64, 32), (8, 16)), (3, (64, 32), (56, 16)), (6, (32, 64), (16, 8)),
     (8, (32, 64), (16, 56))],
)  # fmt: skip
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photos_are_turned_upright(tmp_path, orientation, size, red_at, form):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    (tmp_path / "photo").write_bytes(encoded(half_red(), form, exif=exif))
    photo = load_photo("photo", tmp_path)
    assert photo.size == photo_size("photo", tmp_path) == size
    red, _, blue = photo.getpixel(red_at)
    assert red > 200 > 60 > blue


def test_transparency_is_on_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert decode_photo(encoded(clear, "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_the_limit_is_the_most_pixels_that_are_decoded():
    data = encoded(half_red((20, 10)), "PNG")
    assert decode_photo(data, limits=PhotoLimits(pixels=200)).size == (20, 10)
    with pytest.raises(RecordProblem, match="20x10 pixels, more than the limit of 199"):
        decode_photo(data, limits=PhotoLimits(pixels=199))


def test_a_reduced_decode_covers_its_target():
    data = encoded(half_red((640, 480)), "JPEG")
    assert decode_photo(data).size == (640, 480)
    width, height = decode_photo(data, target=100).size
    assert 100 <= height < 480
    assert 100 <= width < 640


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((2, 2), 0.5, np.float32), 127),
        (np.full((2, 2), 200.0, np.float32), 200),
        (np.full((2, 2), 0x8012, np.uint16), 0x80),
        (np.full((2, 2), 77, np.int32), 77),
        (np.full((2, 2), 0x4000, np.int32), 0x40),
    ],
)
def test_other_depths_come_to_eight_bits(values, expected):
    form = "PNG" if values.dtype == np.uint16 else "TIFF"
    assert decode_photo(encoded(Image.fromarray(values), form)).getpixel((0, 0)) == (expected,) * 3
