"""A thousand photos through rate limits, an outage, a kill and an endpoint that goes for good."""

import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests.captioning.recorded_server import CAPTION, serving
from tests.support import read_rows, wait_for

N_PHOTOS, BITS = 1000, 16
WORDS = [
    "caption",
    "--model",
    "m",
    "-R",
    "photos",
    "-j8",
    "-o",
    "out.jsonl",
    "--rejects",
    "no.jsonl",
]
HASTY = """
from ramctl.captions import endpoint
endpoint.PATIENCE_S, endpoint.PAUSE_S = 10, 0.1
"""


def photo_of(number: int) -> Image.Image:
    """A photo with squares, black for 0 and white for 1, that a JPEG does not change much."""
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    return Image.fromarray(np.kron(np.reshape(bits, (4, 4)), np.ones((8, 8))).astype(np.uint8))


def number_of(photo: Image.Image) -> int:
    """The number that `photo_of` has drawn."""
    grey = np.asarray(photo.convert("L")).reshape(4, 8, 4, 8).mean((1, 3)).ravel()
    return sum(int(value > 127) << bit for bit, value in enumerate(grey))


@pytest.fixture
def chat(monkeypatch):
    for server in serving(lambda photo: f"{CAPTION} Its number is {number_of(photo)}."):
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.mark.slow
def test_no_record_is_lost_or_doubled(chat, ramctl, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(N_PHOTOS):
        photo_of(number).save(tmp_path / "photos" / f"{number:04}.png")
    refused = {*range(7, N_PHOTOS, 100)}
    limited = iter(["429", "500", "closed", "garbage", "503"] * 3)

    def fault_of(photo):
        if number_of(photo) in refused:
            return "refusal"
        return next(limited, "") if len(chat.requests) % 40 == 0 else ""

    chat.fault_of = fault_of
    run = ramctl.start(*WORDS, before=HASTY)
    wait_for(lambda: len(chat.requests) > 300)
    chat.stop()  # an outage
    time.sleep(2)
    chat.start()
    wait_for(lambda: len(chat.requests) > 600)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    n_killed = len((tmp_path / "out.jsonl.part").read_bytes().splitlines())
    assert 400 < n_killed < 700

    run = ramctl.start(*WORDS, "--resume", before=HASTY)
    wait_for(lambda: len(chat.requests) > 800)
    chat.stop()  # for good
    _, err = run.communicate()
    assert (run.returncode, err.decode().splitlines()[-1]) == (
        1, f"ramctl caption: {chat.url}: [Errno 111] Connection refused",
    )  # fmt: skip
    assert n_killed < len(read_rows(tmp_path / "out.jsonl.part")) < 900
    chat.start()

    done = ramctl(*WORDS, "--resume")
    assert done.returncode == 3, done.messages
    rows, rejects = (read_rows(tmp_path / name) for name in ("out.jsonl", "no.jsonl"))
    kept = [number for number in range(N_PHOTOS) if number not in refused]
    assert [row["image"] for row in rows] == [f"photos/{number:04}.png" for number in kept]
    assert [row["captions"] for row in rows] == [
        [f"{CAPTION} Its number is {number}."] for number in kept
    ]
    assert [row["source"] for row in rejects] == [f"photos/{n:04}.png" for n in sorted(refused)]
    assert {row["code"] for row in rejects} == {"refused"}
    assert chat.max_at_once <= 8
