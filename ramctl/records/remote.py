"""Files at URLs (s3://, gs://, https:// ...), read through fsspec.

The base of relative photo names is a Path, even if it is a URL: `s3:/bucket/folder`. The photo of a
record must lie below the base, so that no record can fetch a file from elsewhere.
"""

import io
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ENAMETOOLONG, ENOENT
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote

from ramctl.errors import RamctlError, RecordProblem, RunProblem
from ramctl.parts import require
from ramctl.records.files import is_url, plain_name
from ramctl.records.pipes import folder_of

Result = TypeVar("Result")
WAITS_S = (1.0, 5.0, 20.0)  # between attempts
COPY_BYTES = 1 << 24  # of a file that are requested at a time
SILENCE_S = 60.0  # without data, after which an attempt over HTTP fails
MAX_ANSWER_S = 3600.0  # of one HTTP answer; the rest is requested anew
_BASE = re.compile(r"([a-z][a-z0-9+.-]+):(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_NO_HOST = "@"  # in a base, stands for the missing host of `file:///folder`
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_GONE = (404, 410)
_HTTP = ("http://", "https://")
_MAX_NAME = 1000  # bytes; S3 takes 1024
_PERMANENT = (PermissionError, NotImplementedError)
# The fields of different file systems that change with a file; the first one present counts. A tag
# of the content comes before a time, which a copy of the file does not keep.
_VERSION = (
    "ETag", "etag", "md5Hash", "Content-MD5", "blob_id", "mtime", "Last-Modified", "LastModified",
    "last_modified", "updated", "modified", "modify",
)  # fmt: skip


def photo_base(name: str, root: str | None = None) -> Path:
    """The base of relative photo names: `root`, else the folder of an input."""
    place = root or plain_name(name)
    if is_url(place):
        scheme, _, rest = place.partition("://")
        folder = rest if root else rest.rpartition("/")[0]
        return Path(f"{scheme}:/{_NO_HOST if rest.startswith('/') else ''}{folder}")
    path = Path(root) if root else folder_of(name)
    return path if base_url(path) is None else path.absolute()  # for a folder that is called `s3:`


def base_url(base: Path) -> str | None:
    """The URL that a base is; None for a folder."""
    match = _BASE.fullmatch(base.as_posix())
    return f"{match[1]}://{(match[2] or '').removeprefix(_NO_HOST)}" if match else None


def url_below(base: Path, name: str) -> str:
    """The URL of a photo or archive; RecordProblem for a name that leads out of the base."""
    root = base_url(base)
    inside = name.removeprefix(f"{root}/")
    parts = re.split(r"[/\\]", unquote(inside))
    # fsspec joins URLs by `::`.
    if not inside or not parts[0] or ".." in parts or "::" in inside or is_url(inside):
        raise RecordProblem(f"not below {root}", code="missing_image")
    # Servers answer %00 or %ff with the errors of an outage.
    is_text = f"{inside}{unquote(inside)}".isprintable() and "\ufffd" not in unquote(inside)
    if not is_text or len(inside.encode("utf-8", "replace")) > _MAX_NAME:
        raise RecordProblem("not a valid file name at a URL", code="missing_image")
    return f"{root}/{inside}"


def attempted(url: str, do: Callable[[], Result]) -> Result:
    """Call a function, several times if it fails; FileNotFoundError, else RunProblem."""
    for wait in (*WAITS_S, None):
        try:
            return do()
        except RamctlError:
            raise
        except Exception as error:  # each file system raises its own
            if _is_absent(error):
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), url) from error
            if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
                error = error.__cause__
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            if isinstance(error, _PERMANENT):
                raise RunProblem(f"{url}: {reason}") from error
            if wait is None:
                raise RunProblem(f"{url}: failed {len(WAITS_S) + 1} times: {reason}") from error
            time.sleep(wait)
    raise AssertionError


def _is_absent(error: BaseException) -> bool:
    """Whether an error means that the store answered that there is no such file.

    Over HTTP fsspec raises FileNotFoundError for any failure, whose cause is the real error.
    """
    # The HTTP status in errors of aiohttp, botocore and huggingface_hub.
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    if getattr(error, "errno", None) == ENAMETOOLONG or status in _GONE:
        return True
    cause = error.__cause__
    is_answer = cause is None or isinstance(cause, LookupError) or _is_absent(cause)
    return isinstance(error, _ABSENT) and is_answer


@cache
def _http_options() -> dict[str, Any]:
    """Options of fsspec's HTTP file system: timeouts, and a check of redirects."""
    from aiohttp import ClientTimeout, TraceConfig

    trace = TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    timeout = ClientTimeout(total=MAX_ANSWER_S, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "trace_configs": [trace]}}


async def _check_redirect(session: object, context: object, redirect: Any) -> None:
    """Refuse redirects to another server or file name, which records could abuse."""

    def place(url: Any) -> tuple[object, ...]:
        return url.scheme, url.host, url.port, url.path.rstrip("/").rpartition("/")[2]

    response, old = redirect.response, redirect.url
    new = old.join(type(old)(response.headers.get("Location", "")))
    safer = old.with_scheme("https") if (old.scheme, old.port) == ("http", 80) else old
    if place(new) not in (place(old), place(safer)):
        response.close()
        raise PermissionError(f"redirects to {new}, another server or file")


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL or path, and the path in it.

    Made at each use: instances that fsspec caches are for one process and one thread.
    """
    require("remote", url)
    from fsspec.core import url_to_fs

    try:
        options = _http_options() if url.lower().startswith(_HTTP) else {}
        return cast(tuple[Any, str], url_to_fs(url, use_listings_cache=False, **options))
    except (ImportError, ValueError) as error:  # of a file system that is not installed
        raise RunProblem(f"{url}: {error}") from error


def facts_of(url: str) -> tuple[int | None, str]:
    """The size of a file, if known, and a text that changes with the file."""

    def request() -> dict[str, Any]:
        system, path = file_system(url)
        return cast(dict[str, Any], system.info(path))

    facts = attempted(url, request)
    version = next((facts[name] for name in _VERSION if facts.get(name)), None)
    return facts["size"], repr((facts["size"], version))


def exists(url: str) -> bool:
    """Whether there is a file at a URL; RunProblem where the store does not answer."""
    try:
        facts_of(url)
    except FileNotFoundError:
        return False
    return True


@lru_cache(1)  # photos of one archive come one after the other
def exists_below(base: Path, name: str) -> bool:
    """Whether a file of this name is below a base that is a URL."""
    try:
        return exists(url_below(base, name))
    except RecordProblem:
        return False


def read_url(url: str, size: int) -> bytes:
    """The first `size` bytes of a file at a URL."""
    content = bytearray()
    with open_url(url, COPY_BYTES) as stream:
        while block := stream.read(min(size - len(content), COPY_BYTES)):
            content += block
    return bytes(content)


class _UrlFile(io.RawIOBase):
    """A file at a URL; a failed read is repeated."""

    def __init__(self, url: str, start: int) -> None:
        self._url = url
        self._position = start
        self._stream: Any = None
        attempted(url, self._open)

    def _open(self) -> None:
        self._drop()
        system, path = file_system(self._url)
        if not self._url.lower().startswith(_HTTP):
            self._stream = system.open(path, "rb")
            if self._position:
                self._stream.seek(self._position)
            return
        # One request for the whole rest; ranges need an answer that is not compressed.
        headers = {"Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
        # Any size: it is not used, and saves a request.
        self._stream = system.open(path, "rb", block_size=0, size=1, headers=headers)
        n_skipped = self._position if self._stream.r.status != 206 else 0
        while n_skipped:  # a server without ranges sends the whole file again
            if not (block := self._stream.read(min(n_skipped, COPY_BYTES))):
                raise EOFError("is shorter than before")
            n_skipped -= len(block)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(Exception):
                stream.close()

    def _read(self, size: int) -> bytes:
        try:
            if self._stream is None:
                self._open()
            data = cast(bytes, self._stream.read(size))
            whole = getattr(self._stream, "size", None)
            if not data and size and whole is not None and self._position < whole:
                raise EOFError(f"ends after {self._position} of {whole} bytes")
        except BaseException:
            self._drop()
            raise
        return data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = attempted(self._url, lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()


def open_url(url: str, buffering: int, start: int = 0) -> BinaryIO:
    """Open a file at a URL to read it once, from a byte on; FileNotFoundError if it is missing."""
    return io.BufferedReader(_UrlFile(url, start), buffering)
