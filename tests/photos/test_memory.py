"""What decoding photos takes, of all that are decoded at once."""

import struct
import subprocess
import sys
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import decode_photo, rgb
from ramctl.photos.limits import PhotoLimits, TimeLeft

# Of this process alone: what getrusage says begins with what the one before it had.
HIGHEST = (
    "import re, sys; from pathlib import Path\n"
    "def highest():\n"
    "    status = Path('/proc/self/status').read_text()\n"
    "    return int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) * 1024\n"
)
PEAK = HIGHEST + (
    "from ramctl.photos.decoding import load_photo\n"
    "before = highest()\n"
    "photo = load_photo(sys.argv[1], target=256)\n"
    "print(highest() - before)\n"
)
needs_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")


def png(side: int, colours: int, n_bytes: int) -> bytes:
    """A PNG without anything in it but zeros: `colours` as PNG counts them, bytes a pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 16 if n_bytes == 2 else 8, colours, 0, 0, 0)
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side * n_bytes)) for _ in range(side))
    data = chunk(b"IHDR", head) + chunk(b"IDAT", rows + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def webp(side: int) -> bytes:
    """A WebP of one colour, of some dozen bytes whatever its size."""
    bits, n_bits = 0, 0
    # Sides, no alpha, version, no transforms, cache or groups; five codes of one symbol each.
    fields = [(side - 1, 14), (side - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    fields += [(1, 1), (0, 1), (0, 1), (0, 1)] * 5
    for value, width in fields:
        bits |= value << n_bits
        n_bits += width
    data = b"\x2f" + bits.to_bytes((n_bits + 7) // 8 + 1, "little")
    data += b"\0" * (len(data) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def peak_of(path: Path) -> int:
    """Bytes more than before that a process takes for decoding a photo."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, check=True)
    return int(done.stdout)


@needs_linux
@pytest.mark.parametrize(
    ("colours", "n_bytes", "each"), [(2, 3, 4), (6, 4, 4), (0, 2, 2), (0, 1, 1)],
    ids=["RGB", "RGBA", "16 bits", "grey"],
)  # fmt: skip
def test_a_large_picture_is_in_memory_once(tmp_path, colours, n_bytes, each):
    side = 6000
    (tmp_path / "large.png").write_bytes(png(side, colours, n_bytes))
    assert peak_of(tmp_path / "large.png") < side**2 * each + 90_000_000


def test_what_decoding_would_take_counts_not_only_the_pixels():
    data = webp(9990)
    assert len(data) < 100
    with pytest.raises(RecordProblem, match="decoding it takes 1697 MB, more than") as caught:
        decode_photo(data, limits=PhotoLimits(pixels=100_000_000))
    assert caught.value.code == "too_large"
    assert decode_photo(webp(500)).size == (500, 500)


def test_a_large_picture_shrunk_is_that_picture():
    small = np.random.default_rng(0).integers(0, 256, (50, 50, 4), np.uint8)
    for mode in ("RGB", "RGBA", "L", "LA", "P", "CMYK"):
        photo = Image.fromarray(small, "RGBA").resize((1500, 1500)).convert(mode)
        whole = rgb(photo)
        expected = np.asarray(whole.reduce(3), int)
        assert np.abs(np.asarray(rgb(photo, divisor=3), int) - expected).max() <= 2, mode


LIMITS = PhotoLimits(pixels=20_000_000)  # 96 MB


def room_for(n_megabytes: int, seconds: float):
    limits = replace(LIMITS, seconds=seconds, patient=False)
    return TimeLeft(limits).room(n_megabytes * 1_000_000)


def test_photos_wait_for_room():
    with room_for(56, 30):
        with room_for(40, 30):
            pass
        with pytest.raises(TimeoutError), room_for(41, 0.1):
            pass
    with room_for(96, 30):
        pass
    with pytest.raises(RecordProblem, match="more than the limit"), room_for(97, 30):
        pass


def test_a_photo_that_takes_too_long_keeps_its_room_until_its_decoder_ends(monkeypatch):
    released, limits = threading.Event(), replace(LIMITS, seconds=0.2)

    def slow(self: Image.Image) -> None:
        assert released.wait(30)

    data = png(4000, 2, 3)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", slow, raising=False)
    with pytest.raises(RecordProblem, match="not decoded after"):
        decode_photo(data, limits=limits)
    with pytest.raises(TimeoutError), room_for(60, 0.1):
        pass
    released.set()
    with room_for(60, 30):
        pass
