"""Files at URLs (s3://, gs://, https:// ...), read through fsspec.

The base of relative photo names is a Path, also where it is a URL: `s3:/bucket/folder`. What a
record names lies below its base, so that no record has anything fetched from elsewhere.
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
WAITS_S = (1.0, 5.0, 20.0)  # between tries
COPY_BYTES = 1 << 24  # of a whole file that are asked for at a time
SILENCE_S = 60.0  # without an answer, or more of it, after which a try over HTTP has failed
LONGEST_S = 3600.0  # of one answer over HTTP; what is left is asked for anew
_BASE = re.compile(r"([a-z][a-z0-9+.-]+):(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_NO_HOST = "@"  # in a base, in the place of the host that `file:///folder` does not have
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_GONE = (404, 410)
_HTTP = ("http://", "https://")
_LONGEST_NAME = 1000  # bytes; S3 takes 1024
_HOPELESS = (PermissionError, NotImplementedError)
# What tells that a file is another one now, by the names that file systems have for it: the first
# that there is. A tag of its content comes before a time, which a copy of it does not keep.
_VERSION = (
    "ETag", "etag", "md5Hash", "Content-MD5", "blob_id", "mtime", "Last-Modified", "LastModified",
    "last_modified", "updated", "modified", "modify",
)  # fmt: skip


def photo_base(name: str, root: str | None = None) -> Path:
    """The base of relative photo names: `root`, else the folder of the input `name`."""
    place = root or plain_name(name)
    if is_url(place):
        scheme, _, rest = place.partition("://")
        folder = rest if root else rest.rpartition("/")[0]
        return Path(f"{scheme}:/{_NO_HOST if rest.startswith('/') else ''}{folder}")
    path = Path(root) if root else folder_of(name)
    return path if base_url(path) is None else path.absolute()  # a folder called `s3:`


def base_url(base: Path) -> str | None:
    """The URL that a base is; None for a folder."""
    match = _BASE.fullmatch(base.as_posix())
    return f"{match[1]}://{(match[2] or '').removeprefix(_NO_HOST)}" if match else None


def url_below(base: Path, name: str) -> str:
    """The URL of a photo or archive, below the URL that its base is.

    RecordProblem for a name that leads out of the base.
    """
    root = base_url(base)
    inside = name.removeprefix(f"{root}/")
    parts = re.split(r"[/\\]", unquote(inside))
    # fsspec takes `::` for what joins two URLs.
    if not inside or not parts[0] or ".." in parts or "::" in inside or is_url(inside):
        raise RecordProblem(f"not below {root}", code="missing_image")
    # Servers answer to %00 or %ff with errors that they have for outages too.
    is_text = f"{inside}{unquote(inside)}".isprintable() and "\ufffd" not in unquote(inside)
    if not is_text or len(inside.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise RecordProblem("no name of a file at a URL", code="missing_image")
    return f"{root}/{inside}"


def attempted(url: str, do: Callable[[], Result]) -> Result:
    """What the function returns in one of several tries; FileNotFoundError, else RunProblem."""
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
            if isinstance(error, _HOPELESS):
                raise RunProblem(f"{url}: {reason}") from error
            if wait is None:
                raise RunProblem(f"{url}: failed {len(WAITS_S) + 1} times: {reason}") from error
            time.sleep(wait)
    raise AssertionError


def _is_absent(error: BaseException) -> bool:
    """Whether an error is the store's own word that there is no such file.

    Over HTTP fsspec makes FileNotFoundError of whatever goes wrong, with that as its cause.
    """
    # What a server said by HTTP, as aiohttp, botocore and the hub's client tell it.
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status", None) or getattr(response, "status_code", None)
    if getattr(error, "errno", None) == ENAMETOOLONG or status in _GONE:
        return True
    cause = error.__cause__
    is_word = cause is None or isinstance(cause, LookupError) or _is_absent(cause)
    return isinstance(error, _ABSENT) and is_word


@cache
def _http_options() -> dict[str, Any]:
    """Limits to waiting and to redirects, for fsspec's file system for HTTP."""
    from aiohttp import ClientTimeout, TraceConfig

    trace = TraceConfig()
    trace.on_request_redirect.append(_check_redirect)
    timeout = ClientTimeout(total=LONGEST_S, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "trace_configs": [trace]}}


async def _check_redirect(session: object, context: object, seen: Any) -> None:
    """Let a server send us on to itself, and to a file of that name: a record could name others."""

    def place(url: Any) -> tuple[object, ...]:
        return url.scheme, url.host, url.port, url.path.rstrip("/").rpartition("/")[2]

    old, new = seen.url, seen.url.join(type(seen.url)(seen.response.headers.get("Location", "")))
    safer = old.with_scheme("https") if (old.scheme, old.port) == ("http", 80) else old
    if place(new) not in (place(old), place(safer)):
        seen.response.close()
        raise PermissionError(f"redirects to {new}, which was not named")


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL or path, and its name for it.

    Asked for at each use: those that fsspec keeps are for one process and one thread.
    """
    require("remote", url)
    from fsspec.core import url_to_fs

    try:
        options = _http_options() if url.lower().startswith(_HTTP) else {}
        return cast(tuple[Any, str], url_to_fs(url, use_listings_cache=False, **options))
    except (ImportError, ValueError) as error:  # that file system is not installed
        raise RunProblem(f"{url}: {error}") from error


def facts_of(url: str) -> tuple[int | None, str]:
    """The size of a file, if it is known, and a text that changes when the file does."""

    def ask() -> dict[str, Any]:
        system, path = file_system(url)
        return cast(dict[str, Any], system.info(path))

    facts = attempted(url, ask)
    version = next((facts[name] for name in _VERSION if facts.get(name)), None)
    return facts["size"], repr((facts["size"], version))


def exists(url: str) -> bool:
    """Whether there is a file at a URL; RunProblem where the store does not say."""
    try:
        facts_of(url)
    except FileNotFoundError:
        return False
    return True


@lru_cache(1)  # photos of one archive come one after the other
def exists_below(base: Path, name: str) -> bool:
    """Whether there is a file of that name below the URL that `base` is."""
    try:
        return exists(url_below(base, name))
    except RecordProblem:
        return False


def read_url(url: str, size: int) -> bytes:
    """The content of a small file at a URL, no more than its first bytes."""
    content = bytearray()
    with open_url(url, COPY_BYTES) as stream:
        while block := stream.read(min(size - len(content), COPY_BYTES)):
            content += block
    return bytes(content)


class _UrlFile(io.RawIOBase):
    """A file at a URL; a read that failed is tried again."""

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
        # One answer for all that is left. Parts are of what is sent, which must not be packed.
        headers = {"Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
        # A known size, which is not used, saves a question.
        self._stream = system.open(path, "rb", block_size=0, size=1, headers=headers)
        left = 0 if self._stream.r.status == 206 else self._position
        while left:  # a server that gives no parts sends what was read before, too
            if not (block := self._stream.read(min(left, COPY_BYTES))):
                raise EOFError("is shorter than before")
            left -= len(block)

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
    """The file at a URL, to be read once, from a byte on; FileNotFoundError where there is none."""
    return io.BufferedReader(_UrlFile(url, start), buffering)
