"""A server of chat completions that answers with recorded captions, and with every fault."""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from ramctl.photos.decoding import load_photo
from tests.support import DATA, read_rows

KEY = "sk-v3ry-s3cr3t"
NAMES = ("tiny-vl", "tiny-text")
CAPTION = "A brown horse stands in a green field."
#: Faults that are an answer: its text, and how it ended.
ANSWERS = {
    "cut early": ("A brown horse, and beside it", "length"),
    "empty": ("", "stop"),
    "half a character": ("A brown horse \ud83dstands in a green field.", "stop"),
    "refusal": ("I'm sorry, but I can't help with describing this photo.", "stop"),
    "filtered": ("", "content_filter"),
    "think": (f"<think>\nIt is a horse. The image shows a barn?\n</think>\n\n{CAPTION}", "stop"),
    "introduction": ("The image shows a brown horse stands in a green field.", "stop"),
}
#: Faults that are an error: the status, headers and body.
ERRORS = {
    "429": (429, {}, {"error": {"message": "slow down"}}),
    "500": (500, {}, {"error": {"message": f"crashed with {KEY}"}}),
    "503": (503, {}, {"error": {"message": "loading the model"}}),
    "401": (401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    "404": (404, {}, {"error": {"message": "model 'x' not found"}}),
    "400": (400, {}, {"error": {"message": "the image is too small"}}),
    "400 filter": (400, {}, {"error": {"message": "filtered", "code": "content_filter"}}),
    "moved": (307, {"Location": "http://elsewhere.example/v1"}, {}),
    "garbage": (200, {}, b'{"choices": [{"mess'),
    "page": (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
    "error of 200": (200, {}, {"error": {"message": "upstream is down"}}),
    "no choices": (200, {}, {"choices": []}),
}  # fmt: skip


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        models = [{"id": name, "object": "model"} for name in NAMES]
        self.reply(200, {}, {"object": "list", "data": models})

    def do_POST(self):
        server = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append((self.path, headers, body))
            server.n_at_once += 1
            server.max_at_once = max(server.max_at_once, server.n_at_once)
        try:
            time.sleep(server.delay_s)
            self.answer(server, body)
        finally:
            with server.lock:
                server.n_at_once -= 1

    def answer(self, server, body):
        photo = photo_of(body)
        with server.lock:
            fault = server.faults.pop(0) if server.faults else server.fault_of(photo)
        if refused := next((name for name in server.refused_settings if name in body), None):
            error = {"message": f"Unsupported: {refused}", "param": refused}
            return self.reply(400, {}, {"error": error})
        if fault in ERRORS:
            return self.reply(*ERRORS[fault])
        if fault == "closed":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return None
        text, end = ANSWERS.get(fault) or (server.caption_of(photo), "stop")
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": end}
        usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
        made = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
        return self.reply(200, {}, made | {"choices": [choice], "usage": usage})

    def reply(self, status, headers, body):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": len(content), **headers}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        with suppress(OSError):  # of a client that has not waited
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def photo_of(body: dict) -> Image.Image:
    """The photo in a request, which is sent as the command promises."""
    picture, _ = body["messages"][0]["content"]
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    photo = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (photo.format, photo.mode, dict(photo.getexif())) == ("JPEG", "RGB", {})
    return photo


def look(photo: Image.Image) -> np.ndarray:
    """What a photo looks like, whatever its size."""
    return np.asarray(photo.convert("RGB").resize((8, 8)), np.float32)


def of_test_photos() -> Callable[[Image.Image], str]:
    """The captions of tests/data, of the photo that looks most like a given one."""
    rows = read_rows(DATA / "captions.jsonl")
    known = np.stack([look(load_photo(row["image"], DATA)) for row in rows])

    def caption_of(photo: Image.Image) -> str:
        return rows[np.square(known - look(photo)).sum((1, 2, 3)).argmin()]["captions"][-1]

    return caption_of


class RecordedServer:
    """The server, running in a thread until `stop`."""

    def __init__(self, caption_of: Callable[[Image.Image], str]) -> None:
        self.caption_of = caption_of
        self.faults: list[str] = []  # of the next requests
        self.fault_of: Callable[[Image.Image], str] = lambda photo: ""
        self.refused_settings: set[str] = set()
        self.requests: list[tuple[str, dict, dict]] = []
        self.delay_s, self.n_at_once, self.max_at_once = 0.0, 0, 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
        self._server.daemon_threads = True
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,)).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
