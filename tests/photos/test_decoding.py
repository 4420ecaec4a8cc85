"""Photos of every odd kind: upright, on white, with eight bits, or a problem of their record."""

import io
import random
import sys
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, features

from ramctl.errors import RecordProblem
from ramctl.photos import decoding
from ramctl.photos.decoding import decode_photo, load_photo, photo_size, record_photo
from ramctl.records.record import Record
from tests.support import problem_of, read_rows


def picture(size=(64, 48), mode="RGB", seed=0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(photo: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, kind, **options)
    return stream.getvalue()


def damaged(data: bytes, name: str, number: int = 60) -> Iterator[bytes]:
    """A file's content with bytes flipped, cut, doubled and replaced; always the same."""
    draw = random.Random(name)
    for _ in range(number):
        content = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            start = draw.randrange(len(data))
            end = start + draw.choice((1, 1, 4, 100))
            part = bytes(content[start:end])
            noise = bytes(byte ^ 1 << draw.randrange(8) for byte in part)
            content[start:end] = draw.choice((noise, noise, b"", part * 3, b"\xff\xff", b"[{1e999"))
        yield bytes(content[: draw.choice((None, None, draw.randrange(len(data))))])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_photo_is_decoded_or_its_record_s_problem(form):
    for content in damaged(encoded(picture((24, 16)), form), form):
        with suppress(RecordProblem):
            decode_photo(content)


@pytest.mark.shared
def test_every_odd_file_is_a_photo_or_a_problem_as_its_index_says(shared):
    folder = shared / "data/photos/odd"
    for row in read_rows(folder / "index.jsonl"):
        try:
            photo = load_photo(row["file"], folder)
        except RecordProblem as problem:
            assert row["expect"] != "ok", f"{row['file']}: {problem.message}"
            assert problem.code in ("unreadable_image", "too_large")
            assert "\n" not in problem.message and len(problem.message) < 120
        else:
            assert row["expect"] in ("ok", "error or partial"), row["file"]
            assert photo.mode == "RGB"


def test_a_jpeg_less_than_twice_the_target_is_decoded_in_full():
    data = encoded(picture((440, 440)), "JPEG")
    assert decode_photo(data, target=224).size == (440, 440)
    assert decode_photo(encoded(picture((448, 448)), "JPEG"), target=224).size == (224, 224)


def test_transparency_becomes_white():
    photo = picture(mode="RGBA")
    photo.putalpha(0)
    for kind in ("PNG", "WEBP"):
        assert np.asarray(decode_photo(encoded(photo, kind, lossless=True))).min() == 255


def test_cmyk_shows_its_colours():
    red = Image.new("RGB", (32, 32), (200, 30, 30)).convert("CMYK")
    mean = np.asarray(decode_photo(encoded(red, "JPEG", quality=95))).mean((0, 1))
    assert np.abs(mean - [200, 30, 30]).max() < 6


def test_heic_is_read_with_its_extra_and_named_without(monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heif")
    stream = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), (20, 200, 20))).save(stream)
    photo = decode_photo(stream.getvalue())
    assert photo.size == (64, 48)
    assert np.abs(np.asarray(photo).mean((0, 1)) - [20, 200, 20]).max() < 8
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    problem = problem_of(decode_photo, stream.getvalue())
    assert problem.code == "unreadable_image" and "'ramctl[heif]'" in problem.message


def marked(size) -> Image.Image:
    """Green, with the first corner blue, by which its turn is known."""
    photo = Image.new("RGB", size, (0, 200, 0))
    photo.paste((0, 0, 200), (0, 0, size[0] // 2, size[1] // 2))
    return photo


def blue_corner(photo: Image.Image) -> tuple[int, int]:
    small = np.asarray(photo.resize((2, 2), Image.Resampling.BOX)).astype(int)
    y, x = np.unravel_index((small[..., 2] - small[..., 1]).argmax(), (2, 2))
    return int(x), int(y)


TURNS = list(enumerate([(0, 0), (1, 0), (1, 1), (0, 1)] * 2, 1))  # by EXIF


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photos_are_turned_upright(tmp_path, form):
    for orientation, corner in TURNS:
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "photo").write_bytes(encoded(marked((64, 32)), form, exif=exif))
        photo = load_photo("photo", tmp_path)
        size = (64, 32) if orientation < 5 else (32, 64)
        assert photo.size == photo_size("photo", tmp_path) == size
        assert blue_corner(photo) == corner


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_limit_is_the_most_pixels_that_are_decoded(form, monkeypatch):
    data = encoded(picture((20, 10)), form)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 200)
    assert decode_photo(data).size == (20, 10)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 199)
    problem = problem_of(decode_photo, data)
    assert problem.code == "too_large"
    assert "20x10 pixels, more than the limit of 199" in problem.message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((2, 2), 0x4321, np.uint16), 0x43),
        (np.full((2, 2), 0.5, np.float32), 127),
        (np.full((2, 2), 200.0, np.float32), 200),
        (np.full((2, 2), 77, np.int32), 77),
        (np.full((2, 2), 0x4000, np.int32), 0x40),
    ],
)
def test_other_depths_come_to_eight_bits(values, expected):
    data = encoded(Image.fromarray(values), "TIFF")
    assert decode_photo(data).getpixel((0, 0)) == (expected,) * 3


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_whatever_brand_comes_first():
    data = encoded(Image.new("RGB", (64, 48), (20, 200, 20)), "AVIF")
    assert decode_photo(data).size == (64, 48)
    renamed = data[:8] + b"mif1" + data[12:]
    assert b"avif" in data[16:40] and decode_photo(renamed).size == (64, 48)


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert decode_photo(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_hide_the_photo():
    data = encoded(picture(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode_photo(data).size == (64, 48)


def test_a_problem_of_a_listed_photo_names_it(tmp_path):
    record = Record({"image": "none.jpg"}, "list.jsonl", 3, tmp_path)
    with pytest.raises(RecordProblem, match=r"none\.jpg: no such file in .+ \(--root names"):
        record_photo(record)
    with pytest.raises(RecordProblem, match=r"^no such file"):
        record_photo(Record({"image": "none.jpg"}, "none.jpg", None, tmp_path))


def test_a_file_whose_own_name_looks_like_a_member_is_read(tmp_path):
    (tmp_path / "odd.tar#a.jpg").write_bytes(encoded(picture(), "JPEG"))
    assert load_photo("odd.tar#a.jpg", tmp_path).size == (64, 48)
