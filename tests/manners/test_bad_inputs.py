"""Inputs that crash, hang or fill the memory of a careless reader: each is a reject, and alone."""

import json
import os
import tarfile
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from ramctl.photos.decoding import decode_photo, load_photo
from ramctl.photos.finding import PhotoInputs
from ramctl.records.record import Record, Reject
from tests.photos.test_decoding import encoded, picture
from tests.support import DATA, problem_of, read_photo_inputs

PHOTO = DATA / "photos" / "steps.jpg"


def test_whatever_a_decoder_raises_is_the_photo_s_own_problem(monkeypatch):
    """Errors that no decoder documents; tests/fuzz draws those that damaged photos make."""
    for error in (RuntimeError("boom"), KeyError("x"), ZeroDivisionError()):
        monkeypatch.setattr(Image, "open", Mock(side_effect=error))
        assert problem_of(decode_photo, encoded(picture(), "PNG")).code == "unreadable_image"


def test_the_photos_of_a_folder_with_pipes_and_devices_are_tagged(tmp_path, ramctl, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("a.jpg")
    Path("b.jpg").symlink_to("/dev/zero")
    Path("c.jpg").write_bytes(PHOTO.read_bytes())
    Path("d.avif").write_bytes(b"\0\0\0\x1cftypavif" + bytes(range(256)))
    done = ramctl("tag", "-R", ".", "--rejects", "rejects")
    assert (done.returncode, [row["image"] for row in done.rows]) == (3, ["./c.jpg"])
    rejects = [json.loads(line) for line in Path("rejects").read_text().splitlines()]
    assert [(row["source"], row["code"]) for row in rejects] == [
        (name, "unreadable_image") for name in ("./a.jpg", "./b.jpg", "./d.avif")
    ]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar header; a size beyond what octal digits hold, or below 0, in base 256."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    digits = size.to_bytes(11, "big", signed=True) if size < 0 else size.to_bytes(11, "big")
    block[124:136] = (b"\xff" if size < 0 else b"\x80") + digits
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def archive_of(tmp_path: Path, *parts: bytes) -> str:
    """An archive with a good photo, then these."""
    photo = encoded(picture(), "PNG")
    info = tarfile.TarInfo("good.png")
    info.size = len(photo)
    good = info.tobuf() + photo + bytes(-len(photo) % 512)
    (tmp_path / "a.tar").write_bytes(good + b"".join(parts))
    return str(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([header("bad.png", 1 << 40), b"x" * 1024], "the archive ends inside this member"),
        # Newer Pythons refuse a negative size themselves, in words of their own.
        ([header("bad.png", -(1 << 40)), bytes(1024)], "not a readable tar archive: "),
        (
            [b"\1" * 512, header("bad.png", 0), bytes(1024)],
            "not a readable tar archive: invalid header",
        ),
        ([header("x", 512, tarfile.GNUTYPE_LONGNAME) + b"y" * 512] * 3000, "not a readable tar"),
    ],
    ids=["1 TB", "negative", "no header", "chain"],
)
def test_headers_that_lie_are_rejects_of_their_own(parts, message, tmp_path):
    name = archive_of(tmp_path, *parts)
    assert load_photo(f"{name}#good.png").size == (64, 48)
    problem = problem_of(load_photo, f"{name}#bad.png")
    assert problem.code == "unreadable_image" and message in problem.message
    found = list(read_photo_inputs(PhotoInputs([name])))
    assert isinstance(found[0], Record) and found[0].fields == {"image": f"{name}#good.png"}
    assert isinstance(found[-1], Reject) and len(found) <= 3
