"""Find photos: in folders, archives, records, and lists on standard input."""

import os
import tarfile
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.photos.archives import member_of, open_archive
from ramctl.photos.raw import RAW_SUFFIXES
from ramctl.records.files import is_file, is_folder, is_url, plain_name
from ramctl.records.inputs import TarHeader, open_input, photo_base, read_inputs, require_files
from ramctl.records.jsonl import parse_line
from ramctl.records.record import STDIN, Item, Record, Reject, require_utf8, shown_name

_RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
SUFFIXES = RAW_SUFFIXES | {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff",
    ".bmp", ".ppm", ".pgm", ".ico", ".heic", ".heif", ".hif", ".avif", ".jp2",
}  # fmt: skip
# Thumbnails and deleted files of network drives and systems; hidden folders are skipped too.
_SYSTEM_FOLDERS = frozenset({
    "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", "__MACOSX",
})  # fmt: skip


def is_photo_name(name: str) -> bool:
    """Whether a file name has a photo's extension, in either case."""
    stem, dot, suffix = name.rpartition(".")  # a path takes ten times as long
    return bool(stem) and stem[-1] != "/" and (dot + suffix).lower() in SUFFIXES


def xmp_names(photo: Path) -> tuple[Path, Path]:
    """Both names of a photo's XMP sidecar."""
    return photo.with_name(photo.name + ".xmp"), photo.with_suffix(".xmp")


class Neighbours:
    """Find photos of the same stem in a folder, as it was when first listed."""

    def __init__(self) -> None:
        self._listing = lru_cache(16)(_names_by_stem)

    def __call__(self, photo: Path) -> list[str]:
        """The names of the other photos beside this one with its stem: `a.png` for `a.jpg`."""
        names = self._listing(photo.parent).get(photo.stem, [])
        return [name for name in names if name != photo.name]


def _names_by_stem(folder: Path) -> dict[str, list[str]]:
    by_stem: dict[str, list[str]] = {}
    with suppress(OSError):  # nothing is written there either
        for name in filter(is_photo_name, sorted(path.name for path in folder.iterdir())):
            by_stem.setdefault(Path(name).stem, []).append(name)
    return {stem: names for stem, names in by_stem.items() if len(names) > 1}


@dataclass(frozen=True, slots=True)
class PhotoInputs:
    """The inputs on the command line, and how to read them."""

    names: Sequence[str] = ()
    root: str | None = None  # base of relative names in lists and records
    recursive: bool = False
    null: bool = False  # names on standard input end with NUL instead of newline
    stage: str = "tag"
    skipped: Counter[str] | None = None  # counts the other files of folders by their endings


def photo_items(inputs: PhotoInputs) -> Iterator[Item]:
    """The record of each photo, in order; files of a folder by name.

    The record of a photo has only `image`, the name as given. UsageProblem, before anything is
    read, for a folder without `recursive`, and for a list, archive or folder that does not exist.
    """
    for name in inputs.names:
        is_list = plain_name(name).lower().endswith((*_RECORDS, ".tar"))
        if is_url(name) and not is_list:
            raise UsageProblem(f"{name}: an input at a URL must be records, or a tar of photos")
        if is_folder(name):
            if not inputs.recursive:
                raise UsageProblem(f"{name} is a folder; -R takes the photos in it")
        elif is_list or (inputs.recursive and not is_photo_name(name)):
            require_files([name])
    return _items(inputs)


def _items(inputs: PhotoInputs) -> Iterator[Item]:
    for name in inputs.names:
        if plain_name(name).lower().endswith(_RECORDS):
            yield from read_inputs([name], inputs.root, inputs.stage)
        elif is_url(name):
            yield from _from_url(name)
        elif name == STDIN:
            yield from _from_list(inputs)
        else:
            yield from _expand(name, Path(), inputs)


def _expand(name: str, base: Path, inputs: PhotoInputs) -> Iterator[Item]:
    if inputs.recursive and is_folder(base / name):
        yield from _walk(name, base, inputs)
    elif name.lower().endswith(".tar") and is_file(base / name):
        yield from _archive(name, base, inputs)
    else:
        yield _photo(name, base, inputs)


def _walk(folder: str, base: Path, inputs: PhotoInputs) -> Iterator[Item]:
    """The photos and archives below a folder; links to folders are skipped."""
    try:
        with os.scandir(base / folder) as listing:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing)
    except OSError as error:
        message = f"cannot list the folder: {error.strerror}"
        yield _unreadable(folder, "unreadable_image", message, inputs)
        return
    for name, is_below in entries:
        path = os.path.join(folder, name)  # noqa: PTH118 (keeps ./ as the user wrote it)
        if name.startswith(".") or (is_below and name in _SYSTEM_FOLDERS):
            continue
        if is_below:
            yield from _walk(path, base, inputs)
        elif is_photo_name(name):
            yield _photo(path, base, inputs)
        elif name.lower().endswith(".tar"):
            yield from _archive(path, base, inputs)
        elif inputs.skipped is not None and not name.lower().endswith((".xmp", ".txt")):
            inputs.skipped[f"{Path(name).suffix or 'other'} files skipped"] += 1


def _archive(name: str, base: Path, inputs: PhotoInputs) -> Iterator[Item]:
    try:
        for member in open_archive(base / name).members():
            if is_photo_name(member):
                yield _photo(f"{name}#{member}", base, inputs)
    except RecordProblem as problem:
        yield _unreadable(name, problem.code, problem.message, inputs)


def _from_url(url: str) -> Iterator[Item]:
    """The photos of a tar archive at a URL, which is read as it arrives."""
    from ramctl.photos.decoding import PhotoRecord  # loads Pillow

    with (
        open_input(url) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=TarHeader) as archive,
    ):
        for header in archive:
            if is_photo_name(header.name) and (member := archive.extractfile(header)) is not None:
                name = f"{url}#{header.name}"
                yield PhotoRecord(
                    {"image": name}, shown_name(name), None, key=name,
                    stamp=f"{header.size}-{float(header.mtime)}", photo=member.read(),
                )  # fmt: skip


def _unreadable(name: str, code: str, message: str, inputs: PhotoInputs) -> Item:
    return Reject(shown_name(name), None, inputs.stage, code, message, raw="")


def _photo(name: str, base: Path, inputs: PhotoInputs) -> Item:
    shown = shown_name(name)
    try:
        require_utf8(name)
    except RecordProblem as problem:
        return Reject(shown, None, inputs.stage, problem.code, problem.message, raw=shown)
    return Record({"image": name}, shown, None, base, name, photo_stamp(name, base))


def photo_stamp(name: str, base: Path) -> str:
    """The size and time of a photo; empty for a missing one."""
    inside = member_of(name, base)
    try:
        if inside:
            return open_archive(base / inside[0]).stamp(inside[1])
        # Of paths half the time of a resume of 100,000 photos would go into taking them apart.
        facts = os.stat(os.path.join(base, name))  # noqa: PTH116, PTH118
    except (OSError, ValueError, RecordProblem):
        return ""
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _from_list(inputs: PhotoInputs) -> Iterator[Item]:
    """The photos of the names and records on standard input."""
    base = photo_base(STDIN, inputs.root)
    with open_input(STDIN) as stream:
        for number, entry in enumerate(_entries(stream, null=inputs.null), 1):
            line = entry if inputs.null or number > 1 else entry.removeprefix(BOM_UTF8)
            if not inputs.null and line.lstrip().startswith(b"{"):
                yield parse_line(line, STDIN, number, base, inputs.stage)
            elif name := os.fsdecode(line):
                yield from _expand(name, base, inputs)


def _entries(stream: BinaryIO, *, null: bool) -> Iterator[bytes]:
    """The entries of a list as soon as they arrive, without terminators."""
    if not null:
        yield from (line.rstrip(b"\r\n") for line in stream)
        return
    rest = b""
    for block in iter(partial(cast(BufferedReader, stream).read1, 1 << 16), b""):
        *complete, rest = (rest + block).split(b"\0")
        yield from complete
    yield rest
