"""`ramctl serve`: a page that tags photos, and `POST /tag` for programs.

Photos come as bytes: no request can name a file of this machine.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from ramctl.apps.gallery import render
from ramctl.errors import RamctlError, RecordProblem, RunProblem, UsageProblem
from ramctl.inference.selection import SelectionOptions
from ramctl.inference.tagger import Tagger, TaggerOptions
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject
from ramctl.records.report import Report

MAX_TAGGERS = 4  # in memory; the page has one for tags, a threshold, boxes with a caption, words
MAX_BYTES = 30_000_000  # of a photo


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `ramctl serve`."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    model: str = "mini"
    labels: str | None = None  # a file of words, instead of the model's
    device: str = "auto"


def run(options: ServeOptions) -> Report:
    """Serve until a signal; RunProblem when the address is in use."""
    report = Report("serve")
    with PhotoServer(options, report) as server:
        place = f"http://{options.host}:{server.server_port}/"
        report.notify(f"{place} tags photos with {options.model}; Ctrl-C ends it")
        if options.host not in ("127.0.0.1", "localhost"):
            report.warn("there is no password: anybody who reaches this address can use it")
        server.serve_forever()
    return report


class PhotoServer(ThreadingHTTPServer):
    """Tags the photos of requests, each in a thread, as many at a time as the model can."""

    request_queue_size = 64

    def __init__(self, options: ServeOptions, report: Report) -> None:
        self.report = report
        self.page = render("serve.html", model=options.model, max_bytes=MAX_BYTES).encode()
        self._open = lru_cache(MAX_TAGGERS)(partial(_open, options))
        tagger = self._open()
        tagger.tag(Image.new("RGB", (8, 8)))  # loads now what the first photo would load
        self._turns = threading.Semaphore(tagger.runner.side_by_side)
        try:
            super().__init__((options.host, options.port), _Request)
        except OSError as error:
            raise RunProblem(f"{options.host}:{options.port}: {error.strerror}") from error

    def tag(self, photo: bytes, query: str) -> JsonObject:
        """The record that `ramctl tag` writes with these options, without `image`."""
        given = _read(query)
        choice = SelectionOptions(given.pop("top", None), given.pop("lang", None))
        choice.check()
        threshold = given.pop("threshold", None)
        if "labels" in given:
            given["lang"] = choice.lang
        opened = self._open(scores_all=threshold is not None, **given)
        chosen = opened.vocabulary.with_threshold(threshold)
        tagger = Tagger(opened.runner, chosen, replace(opened.options, choice=choice))
        with self._turns:
            record = tagger.tag(photo).record
        record.pop("image", None)
        return record

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client has left."""


def _open(
    options: ServeOptions, *, scores_all: bool = False, labels: tuple[str, ...] = (),
    precision: float | None = None, boxes: bool = False, caption: bool = False,
    lang: str | None = None,
) -> Tagger:  # fmt: skip
    tagger_options = TaggerOptions(
        labels=list(labels) or options.labels, threshold=0.0 if scores_all else None,
        precision=precision, choice=SelectionOptions(lang=lang), boxes=boxes, caption=caption,
        device=options.device,
    )  # fmt: skip
    return Tagger.open(options.model, tagger_options)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def _is_yes(text: str) -> bool:
    return {"": True, "1": True, "true": True, "0": False, "false": False}[text.lower()]


_PARAMETERS: dict[str, Callable[[str], Any]] = {
    "threshold": float, "precision": float, "top": int, "labels": _words, "lang": str,
    "boxes": _is_yes, "caption": _is_yes,
}  # fmt: skip


def _read(query: str) -> dict[str, Any]:
    """The parameters of a request by name; UsageProblem for others, and other values."""
    given = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _PARAMETERS:
            raise UsageProblem(f"{name!r} is not one of {', '.join(_PARAMETERS)}")
        try:
            given[name] = _PARAMETERS[name](text)
        except (KeyError, ValueError) as error:
            raise UsageProblem(f"{name}: {text[:20]!r} is not a value of it") from error
    return given


class _Request(BaseHTTPRequestHandler):
    server: PhotoServer
    protocol_version = "HTTP/1.1"  # with which curl does not wait before it sends a large photo
    timeout = 30  # seconds of silence after which a connection is closed

    def do_GET(self) -> None:
        """Answer with the page."""
        if self.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Tag the photo that is the body."""
        path, _, query = self.path.partition("?")
        length = self.headers.get("content-length", "")
        if path != "/tag":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal():
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MAX_BYTES:
            message = f"the photo has more than {MAX_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)
        else:
            self._tag(self.rfile.read(int(length)), query)

    def _tag(self, photo: bytes, query: str) -> None:
        try:
            self._send(HTTPStatus.OK, dumps(self.server.tag(photo, query)))
        except RecordProblem as problem:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, problem.code, problem.message)
        except RamctlError as problem:
            # Parameters have the names of options.
            self._refuse(HTTPStatus.BAD_REQUEST, "usage", problem.message.replace("--", ""))
        except Exception as error:
            self.server.report.warn(f"{type(error).__name__}: {error}")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._refuse(status, status.name.lower(), status.phrase)

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        self._send(status, dumps({"code": code, "message": message}))

    def _send(self, status: HTTPStatus, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")  # what is left of a request is no other request
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: there is no log of requests."""
