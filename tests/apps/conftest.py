"""A running `ramctl serve`, asked as programs ask it."""

import http.client
import io
import json
import re
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.command import Ramctl
from tests.forked import Forked
from tests.tagging.conftest import colours

__all__ = ["colours"]

MAX_BYTES = 200_000


def photo(colour: str, form: str = "PNG") -> bytes:
    """The file of a photo of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(content, form)
    return content.getvalue()


class Answer(NamedTuple):
    status: int
    fields: dict


class Server(NamedTuple):
    """A process that serves, and its port."""

    process: Forked | subprocess.Popen
    port: int

    @property
    def place(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method="POST", path="/tag", body=None) -> Answer:
        """The answer to a request."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body)
            got = line.getresponse()
            content = got.read()
        finally:
            line.close()
        is_json = got.headers["content-type"] == "application/json"
        return Answer(got.status, json.loads(content) if is_json else {})

    def status_of(self, head: str) -> bytes:
        """The status of the answer to a request without a body."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as line:
            line.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode())
            return line.recv(100).split()[1]


@contextmanager
def served(*words: object, folder: Path, before: str = ""):
    """`ramctl serve` with these options, at a free port; `before` is Python that runs first."""
    with answering(Ramctl(folder).start("serve", "--port", "0", *words, before=before)) as server:
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
    """One that sees colours, writes no captions and takes small photos."""
    before = f"from ramctl.apps import server; server.MAX_BYTES = {MAX_BYTES}"
    folder = tmp_path_factory.mktemp("server")
    with served("--model", colours, folder=folder, before=before) as running:
        yield running
