"""A web server of this process whose answers go wrong as a test says."""

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SILENT, SHORT, CHUNKED = "silent", "short", "chunked"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "WebServer"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("?")
        self.server.asked.append(f"{self.command} {self.path}")
        of_path = self.server.faults.get(path, self.server.faults.get("*", iter(())))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = next(of_path, None)
        if self.server.behind and (fault is None or fault == SHORT):
            self._pass_on(body, is_short=fault == SHORT)
            return
        content = self.server.files.get(path)
        headers = dict(self.server.headers)
        status = 200
        if fault == SILENT:
            self.server.over.wait(60)
            self.close_connection = True
            return
        if isinstance(fault, int):
            status, content = fault, b""
        elif isinstance(fault, str) and "/" in fault:
            status, content, headers["Location"] = 302, b"", fault
        elif content is None:
            status, content = 404, b""
        elif isinstance(content, str):  # a page
            content, headers["Content-Type"] = content.encode(), "text/html"
        if self.server.gives_parts and (part := self.headers.get("Range")) and status == 200:
            start, _, end = part.removeprefix("bytes=").partition("-")
            stop = int(end) + 1 if end else len(content)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status, content = 206, content[int(start) : stop]
        self.send_response(status)
        if fault == CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(content))
        for name, value in headers.items():
            self.send_header(name, value if isinstance(value, str) else value(content))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == SHORT:
            content, self.close_connection = content[: len(content) // 2], True
        if fault == CHUNKED:
            half = len(content) // 2
            for piece in (content[:half], content[half:], b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            return
        self.wfile.write(content)

    def _pass_on(self, body: bytes, *, is_short: bool) -> None:
        host = self.server.behind
        connection = http.client.HTTPConnection(host)
        connection.request(self.command, self.path, body, {**self.headers, "Host": host})
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        if is_short and content:
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)
        connection.close()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


class WebServer(ThreadingHTTPServer):
    """Files by path, and for each path the faults of the next answers: a status, a place to go to,
    SILENT (no answer), SHORT (half the body) or CHUNKED (no fault, but no length either). Those
    of `*` are for all paths. It may stand in front of another server.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.files: dict[str, bytes | str] = {}
        self.faults: dict[str, Iterator[int | str | None]] = {}
        self.headers: dict[str, str | Callable[[bytes], str]] = {}  # the same, or by the content
        self.asked: list[str] = []
        self.gives_parts = True
        self.behind = ""  # host and port of the server that has the files
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "WebServer":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that left
