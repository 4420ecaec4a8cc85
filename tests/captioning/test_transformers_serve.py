"""`caption` against the server of transformers: a protocol that is somebody else's, and a model."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from tests.support import read_rows, wait_for

pytest.importorskip("fastapi")

CAPTIONS = {"red": "A red wall in the sun.", "blue": "Blue water at night."}
PROMPT = "Name it."


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of the server, and the name of its model."""
    from tests.captioning.tiny_vision_model import write_model

    folder = tmp_path_factory.mktemp("vision")
    write_model(folder / "model", PROMPT, CAPTIONS)
    words = ["serve", "model", "--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    log = folder / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "transformers.cli.transformers", *words], cwd=folder,
            stdout=stream, stderr=stream, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip

    def port() -> str:
        assert server.poll() is None, log.read_text()
        found = re.search(r"running on http://127.0.0.1:(\d+)", log.read_text())
        return found[1] if found else ""

    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port()}/v1", "model"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_a_model_of_transformers_sees_the_photos(served, ramctl, tmp_path, monkeypatch):
    url, model = served
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    colours = ["red", "blue", "blue", "red"] * 4
    for number, colour in enumerate(colours):
        Image.new("RGB", (300 + 99 * number, 400), colour).save(tmp_path / f"{number:02}.png")
    (tmp_path / "ask.txt").write_text(PROMPT)
    words = ["caption", "--model", model, "--prompt", "ask.txt", "-R", ".", "--stats", "stats.json"]
    done = ramctl(*words, "-o", "out.jsonl")
    assert done.returncode == 0, done.messages
    rows = read_rows(tmp_path / "out.jsonl")
    assert [row["captions"] for row in rows] == [[CAPTIONS[colour]] for colour in colours]
    assert {row["captioner"] for row in rows} == {model}
    stats = json.loads((tmp_path / "stats.json").read_text())
    n_letters = sum(len(CAPTIONS[colour]) + 1 for colour in colours)  # and an end
    assert stats["tokens_out"] == n_letters
    assert stats["tokens_in"] == len(colours) * (4 + len(PROMPT) + 1)  # 4 patches, a line's end

    done = ramctl("caption", "--model", "other", "00.png", "01.png")
    assert (done.returncode, done.stdout) == (1, b"") and "pinned to 'model'" in done.messages
    line = next(row for row in ramctl("doctor").stdout.decode().splitlines() if url in row)
    assert line.endswith(f"{url} answers: {model}")
