"""A running `ramctl serve`, asked as programs ask it."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.command import Ramctl
from tests.forked import Forked
from tests.tagging.conftest import LABELS, colours
from tests.tagging.test_search import with_axes

__all__ = ["colours"]

MAX_BYTES, MAX_SECONDS = 200_000, 3


def photo(colour: str, form: str = "PNG") -> bytes:
    """The file of a photo of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(content, form)
    return content.getvalue()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    fields: dict
    text: str


class Server(NamedTuple):
    """A process that serves, and its port."""

    process: Forked | subprocess.Popen
    port: int

    @property
    def place(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method="POST", path="/tag", body=None, **headers: str) -> Answer:
        """The answer to a request; `_` in the name of a header is `-`."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            line.request(method, path, body, named)
            got = line.getresponse()
            content = got.read()
        finally:
            line.close()
        is_json = got.headers["content-type"] == "application/json"
        fields = json.loads(content) if is_json else {}
        return Answer(got.status, dict(got.headers), fields, content.decode(errors="replace"))


@contextmanager
def served(*words: object, folder: Path, first: Path | str = ""):
    """`ramctl serve` with these options, at a free port, and with the modules in `first`."""
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name, reason="needs the extra [serve]")
    path = {"PYTHONPATH": os.pathsep.join([str(first), *sys.path])} if first else {}
    with answering(Ramctl(folder).start("serve", "--port", "0", *words, **path)) as server:
        yield server


@contextmanager
def answering(process: Forked | subprocess.Popen):
    """The server that a process becomes, which is ended after the block."""
    try:
        line = process.stderr.readline()
        found = re.search(rb"http://127\.0\.0\.1:(\d+)/ tags photos", line)
        assert found, line + process.stderr.read()
        yield Server(process, int(found[1]))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stderr.close()


@pytest.fixture(scope="session")
def server(colours, tmp_path_factory):
    """One that sees colours, with narrow limits and without torch."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "modules").mkdir()
    missing = "raise ModuleNotFoundError('no torch', name='torch')"
    (folder / "modules" / "torch.py").write_text(missing)
    (folder / "red.png").write_bytes(photo("red"))
    limits = ["--max-bytes", MAX_BYTES, "--max-seconds", MAX_SECONDS]
    with served("--model", colours, *limits, folder=folder, first=folder / "modules") as running:
        yield running


ORIGIN = "https://app.example"


@pytest.fixture(scope="session")
def searching(colours, tmp_path_factory):
    """One with an index of three photos, an access log, and for the page ORIGIN too."""
    folder = tmp_path_factory.mktemp("searching")
    model = with_axes(colours, folder / "colours", np.eye(len(LABELS)))
    (folder / "photos").mkdir()
    for colour in ("red", "green", "blue"):
        (folder / "photos" / f"{colour}.png").write_bytes(photo(colour))
    words = ["-R", "photos", "--model", model, "--embedding", "-o", "tags.jsonl"]
    assert Ramctl(folder)("tag", *words).returncode == 0
    words = ["--index", "tags.jsonl", "--allow-origin", ORIGIN]
    with served("--model", model, *words, folder=folder) as running:
        yield running
