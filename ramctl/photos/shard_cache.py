"""Read photos at URLs; whole archives are copied once into the cache folder of the user.

Processes that need the same archive wait for the one that copies it. If the copies would exceed
`RAMCTL_SHARD_CACHE` bytes, those that were not read for the longest time are deleted. (The caches
of fsspec have no such limit, and each process would make its own copy.)
"""

import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from threading import Thread

from ramctl.errors import RamctlError, RecordProblem, RunProblem, UsageProblem
from ramctl.photos.archives import TarIndex, check_bytes, split_member
from ramctl.records import files
from ramctl.records.remote import COPY_BYTES, base_url, facts_of, open_url, read_url, url_below

VARIABLE = "RAMCTL_SHARD_CACHE"
DEFAULT = "64G"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_MAX_OPEN = 16
_open: dict[str, TarIndex] = {}  # by URL, the most recent last
_copies: dict[str, Path] = {}  # by URL, those that this process uses


def read_remote_photo(name: str, base: Path, max_bytes: int) -> bytes:
    """The file of a photo below a base that is a URL; RunProblem if it cannot be reached."""
    inside = split_member(name)
    url = url_below(base, inside[0] if inside else name)
    if inside:
        return _archive(url).read(inside[1], max_bytes)
    try:
        content = read_url(url, max_bytes + 1)
    except FileNotFoundError as error:
        raise RecordProblem("no such file", code="missing_image") from error
    check_bytes(len(content), max_bytes)
    return content


def copy_ahead(name: str, base: Path, mixed: int) -> None:
    """Start a thread that copies the archive of a photo that is needed soon.

    It does nothing if the cache cannot hold the `mixed` archives in use and as many more. Problems
    are reported when the photo is read.
    """
    inside = split_member(name)
    if inside is None or base_url(base) is None:
        return

    def copy() -> None:
        with suppress(RamctlError, OSError):
            url = url_below(base, inside[0])
            size, _ = facts_of(url)
            if 2 * mixed * (size or 0) <= cache_limit():
                _copy_of(url)

    Thread(target=copy, name="ramctl-archive", daemon=True).start()


def cache_limit() -> int:
    """The bytes of all copies, from `RAMCTL_SHARD_CACHE`: a number with K, M, G or T."""
    text = os.environ.get(VARIABLE) or DEFAULT
    match = re.fullmatch(r"(\d+)([KMGT]?)", text.strip().upper().removesuffix("B"))
    if not match:
        raise UsageProblem(f"{VARIABLE}: {text!r} is not a number of bytes such as 200G")
    return int(match[1]) * _UNITS[match[2]]


def _archive(url: str) -> TarIndex:
    """The archive at a URL, from a copy that stays open, also after it is deleted."""
    index = _open.pop(url, None)
    while index is None:
        with suppress(FileNotFoundError):  # another process has deleted the copy
            if url not in _copies or not _copies[url].exists():
                _copies[url] = _copy_of(url)
            index = TarIndex(_copies[url])
    index.touch()
    _open[url] = index
    for oldest in list(_open)[:-_MAX_OPEN]:
        _open.pop(oldest, None)
    return index


def _copy_of(url: str) -> Path:
    """The copy of the current version of an archive, made if needed."""
    try:
        size, version = facts_of(url)
    except FileNotFoundError as error:
        raise RecordProblem("no such archive", code="missing_image") from error
    folder = files.user_cache("shards")
    key = hashlib.blake2b(f"{url}\n{version}".encode("utf-8", "surrogatepass"), digest_size=16)
    copy = folder / f"{key.hexdigest()}.tar"
    if copy.exists():
        return copy
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = files.part_path(copy)
        with files.open_alone(part) as stream:
            try:
                if copy.exists():  # made meanwhile
                    part.unlink()
                    return copy
                _make_room(folder, size or 0, url)
                with open_url(url, COPY_BYTES) as source:
                    while block := source.read(COPY_BYTES):
                        stream.write(block)
                        if size is None:
                            _make_room(folder, stream.tell(), url)
                stream.flush()
                os.fsync(stream.fileno())
                files.move_into_place(part, copy)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except FileNotFoundError as error:
        if error.filename == url:
            raise RecordProblem("no such archive", code="missing_image") from error
        raise
    except OSError as error:
        reason = files.full_disk(error) or error.strerror or str(error)
        raise RunProblem(f"{folder}: {reason} (copying {url}; see {VARIABLE})") from error
    return copy


def _make_room(folder: Path, n_bytes: int, url: str) -> None:
    """Delete the copies that were not read for the longest time until `n_bytes` fit in."""
    limit, free = cache_limit(), shutil.disk_usage(folder).free
    if n_bytes > limit:
        excess = f"{n_bytes} bytes, more than all copies may take ({limit})"
        raise RunProblem(f"{url}: {excess}: see {VARIABLE}")
    if n_bytes > free:
        _open.clear()  # an open file keeps its space when it is deleted
    copies, total = [], n_bytes
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            if path.suffix == ".tar":
                facts = path.stat()
                copies.append((facts.st_atime_ns, path, facts.st_size))
                total += facts.st_size
            elif path.suffix == ".part" and not files.is_open_alone(path):  # of a killed process
                path.unlink()
    for _, path, size in sorted(copies):
        if total <= limit and n_bytes <= free:
            break
        path.unlink(missing_ok=True)
        total, free = total - size, free + size
