"""Files at URLs (s3://, gs://, https:// ...), read and written through fsspec.

The base of relative photo names is a Path, also where it is a URL: `s3:/bucket/folder`. What a
record names lies below its base, so that no record has anything fetched from elsewhere.
"""

import io
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from errno import ENAMETOOLONG, ENOENT
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote

from ramctl.errors import RamctlError, RecordProblem, RunProblem
from ramctl.parts import require
from ramctl.records.files import replacing

Result = TypeVar("Result")
WAITS_S = (1.0, 5.0, 20.0)  # between tries
COPY_BYTES = 1 << 24  # of a whole file that are asked for at a time
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BASE = re.compile(r"([a-z][a-z0-9+.-]+):(?:/(.*))?", re.IGNORECASE | re.DOTALL)
_NO_HOST = "@"  # in a base, in the place of the host that `file:///folder` does not have
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_LONGEST_NAME = 1000  # bytes; S3 takes 1024
_BAD_REQUESTS = (400, 414)  # what a server says of a name that no file of it can have
_HOPELESS = (PermissionError, NotImplementedError)
# What tells that a file is another one now, by the names that file systems have for it.
_VERSION = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated")


def is_url(name: str) -> bool:
    """Whether a name is a URL and no path."""
    return _URL.match(name) is not None


def photo_base(name: str, root: str | None = None) -> Path:
    """The base of relative photo names: `root`, else the folder of the input `name`."""
    place = root or name
    if is_url(place):
        scheme, _, rest = place.partition("://")
        folder = rest if root else rest.rpartition("/")[0]
        return Path(f"{scheme}:/{_NO_HOST if rest.startswith('/') else ''}{folder}")
    path = Path(root) if root else Path(name).parent
    return path if base_url(path) is None else path.absolute()  # a folder called `s3:`


def base_url(base: Path) -> str | None:
    """The URL that a base is; None for a folder."""
    found = _BASE.fullmatch(base.as_posix())
    return f"{found[1]}://{(found[2] or '').removeprefix(_NO_HOST)}" if found else None


def url_below(base: Path, name: str) -> str | None:
    """The URL of a photo or archive, below the URL that its base is; None where that is a folder.

    RecordProblem for a name that leads out of the base.
    """
    root = base_url(base)
    if root is None:
        return None
    inside = name.removeprefix(f"{root}/")
    parts = re.split(r"[/\\]", unquote(inside))
    # fsspec takes `::` for what joins two URLs.
    if not inside or not parts[0] or ".." in parts or "::" in inside or is_url(inside):
        raise RecordProblem(f"not below {root}", code="missing_image")
    if not inside.isprintable() or len(inside.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise RecordProblem("no name of a file at a URL", code="missing_image")
    return f"{root}/{inside}"


def attempted(url: str, do: Callable[[], Result]) -> Result:
    """What the function returns, which is tried several times, as networks fail.

    FileNotFoundError where nothing is at the URL; else RunProblem that names it.
    """
    for wait in (*WAITS_S, None):
        try:
            return do()
        except RamctlError:
            raise
        except Exception as error:  # each file system raises its own
            if _is_absent(error):
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT), url) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, _HOPELESS):
                raise RunProblem(f"{url}: {reason}") from error
            if wait is None:
                tries = len(WAITS_S) + 1
                raise RunProblem(f"{url}: failed {tries} times: {reason}") from error
            time.sleep(wait)
    raise AssertionError


def _is_absent(error: Exception) -> bool:
    """Whether an error says that there is no such file, and no more."""
    is_bad_name = getattr(error, "errno", None) == ENAMETOOLONG
    is_bad_name |= getattr(error, "status", None) in _BAD_REQUESTS
    return is_bad_name or isinstance(error, _ABSENT)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL or path, and its name for it.

    Asked for at each use: those that fsspec keeps are for one process and one thread.
    """
    require("remote", url)
    from fsspec.core import url_to_fs

    try:
        return cast(tuple[Any, str], url_to_fs(url, use_listings_cache=False))
    except (ImportError, ValueError) as error:  # that file system is not installed
        raise RunProblem(f"{url}: {error}") from error


def facts_of(url: str) -> tuple[int | None, str]:
    """The size of a file, if it is known, and a text that changes when the file does."""

    def ask() -> tuple[int | None, str]:
        system, path = file_system(url)
        facts = system.info(path)
        version = [facts["size"], *(facts.get(name) for name in _VERSION)]
        return facts["size"], repr(version)

    return attempted(url, ask)


def exists(url: str) -> bool:
    """Whether there is a file at a URL."""
    try:
        facts_of(url)
    except FileNotFoundError:
        return False
    return True


@lru_cache(1)  # photos of one archive come one after the other
def exists_below(base: Path, name: str) -> bool:
    """Whether there is a file of that name below the URL that `base` is."""
    try:
        url = url_below(base, name)
    except RecordProblem:
        return False
    return url is not None and exists(url)


def read_url(url: str, size: int) -> bytes:
    """The content of a small file at a URL, no more than its first bytes."""

    def read() -> bytes:
        system, path = file_system(url)
        with system.open(path, "rb") as stream:
            return cast(bytes, stream.read(size))

    return attempted(url, read)


class _UrlFile(io.RawIOBase):
    """A file at a URL from its start to its end; a read that failed is tried again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._position = 0
        self._stream: Any = None
        attempted(url, self._open)

    def _open(self) -> None:
        system, path = file_system(self._url)
        stream = system.open(path, "rb")
        if self._position:
            stream.seek(self._position)
        self._stream = stream

    def _read(self, size: int) -> bytes:
        if self._stream is None:
            self._open()
        try:
            data = cast(bytes, self._stream.read(size))
            whole = getattr(self._stream, "size", None)
            if not data and size and whole is not None and self._position < whole:
                raise EOFError(f"ends after {self._position} of {whole} bytes")
        except BaseException:
            self._stream = None
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
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super().close()


def open_url(url: str, buffering: int) -> BinaryIO:
    """The file at a URL, to be read once; FileNotFoundError where there is none."""
    return io.BufferedReader(_UrlFile(url), buffering)


def upload(source: Path, url: str) -> None:
    """Copy a file to a URL or path, where it appears whole or not at all."""

    def put() -> None:
        system, path = file_system(url)
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(source), f"{path}.part")
        system.mv(f"{path}.part", path)

    attempted(url, put)


def download(url: str, target: Path) -> None:
    """Copy a file from a URL or path; FileNotFoundError where there is none."""
    with open_url(url, COPY_BYTES) as source, replacing(target) as stream:
        shutil.copyfileobj(source, stream, COPY_BYTES)


def names_at(url: str) -> list[str]:
    """The names in a folder at a URL or path, sorted; none where there is no folder."""

    def look() -> list[str]:
        system, path = file_system(url)
        found = system.ls(path, detail=False)
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    try:
        return attempted(url, look)
    except FileNotFoundError:
        return []


def delete(url: str) -> None:
    """Delete a file, if it is there."""

    def remove() -> None:
        system, path = file_system(url)
        system.rm_file(path)

    with suppress(FileNotFoundError):
        attempted(url, remove)
