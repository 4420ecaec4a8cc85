"""A running `ramctl serve`, asked as programs ask it."""

import http.client
import json
import re
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ramctl.checkpoints.bundle import TOKENIZER, Bundle, BundleWriter, embedded_bundle
from tests.command import Ramctl
from tests.forked import Forked
from tests.support import command

__all__ = ["command"]

MAX_BYTES = 200_000


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


def mini_without(path: Path, *files: str) -> Path:
    """A copy of the embedded model that lacks some of its files."""
    with BundleWriter(path) as writer:
        writer.copy_files(Bundle.open(embedded_bundle()), without=files)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One with words of its own, which writes no captions and takes small photos."""
    before = f"from ramctl.apps import server; server.MAX_BYTES = {MAX_BYTES}"
    folder = tmp_path_factory.mktemp("server")
    model = mini_without(folder / "model", TOKENIZER)
    (folder / "words.txt").write_text("cat\ntemple\nflower\n")
    words = ["serve", "--port", "0", "--model", model, "--labels", "words.txt"]
    with answering(Ramctl(folder).start(*words, before=before)) as running:
        yield running
