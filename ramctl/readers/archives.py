"""Captions beside their photos: webdataset and img2dataset tars, folders of `.txt` files."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import orjson

from ramctl.readers.source import Source, split_tags, with_usual_names
from ramctl.records.files import plain_name
from ramctl.records.inputs import TarHeader, open_input
from ramctl.records.record import Item, JsonObject, encode_name

PHOTO_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
MAX_TEXT = 1 << 22
_DAMAGE = (tarfile.TarError, OSError, ValueError, ArithmeticError, RecursionError)
EMPTY_READS = 3  # that a sound archive may cause at its end


def read_tar(source: Source) -> Iterator[Item]:
    """One record per sample of a webdataset tar; captions from `.txt` or `.json` members.

    Members of one sample share the name up to the first dot and stand together. The photo is
    `shard.tar#member` and skipped unread. Where the archive is damaged, a reject comes last.
    """
    shard = PurePosixPath(plain_name(source.name)).name
    number = 1
    with open_input(source.name) as stream:
        try:
            with tarfile.open(fileobj=_Ending(stream), mode="r|", tarinfo=TarHeader) as archive:  # type: ignore[call-overload]
                files = _Files(archive)
                for _, members in groupby(files, lambda member: _split(member.name)[0]):
                    sample: JsonObject = {}
                    for member in members:
                        suffix = _split(member.name)[1]
                        if suffix in PHOTO_SUFFIXES:
                            sample["image"] = f"{shard}#{member.name}"
                        elif suffix in ("txt", "json") and member.size <= MAX_TEXT:
                            opened = archive.extractfile(member)
                            sample[suffix] = opened.read() if opened else b""
                    if sample:
                        yield _sample(source, sample, number)
                        number += 1
                files.check()
        except _DAMAGE as error:
            # The archive is damaged here; what came before is good.
            message = f"not a readable tar archive: {error}"
            yield source.reject(number, "unreadable_image", message, "")


class _Files:
    """The files in an archive, up to where it is damaged; of the last sample what was read."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._damage: BaseException | None = None

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            yield from (member for member in self._archive if member.isfile())
        except _DAMAGE as error:
            self._damage = error

    def check(self) -> None:
        """Raise what ended the files, unless it is the archive's end."""
        if self._damage is not None:
            raise self._damage


class _Ending:
    """A stream that fails when it is read on and on beyond its end.

    `tarfile` skips a member by reads, and would go on for hours where a header claims terabytes.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._n_empty = stream, 0

    def read(self, size: int) -> bytes:
        """Up to so many bytes; `tarfile.ReadError` after some reads that gave none."""
        content = self._stream.read(size)
        self._n_empty = 0 if content else self._n_empty + 1
        if self._n_empty > EMPTY_READS:
            raise tarfile.ReadError("unexpected end of data")
        return content


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.parent / stem), suffix.rpartition(".")[2].lower()


def _sample(source: Source, sample: JsonObject, number: int) -> Item:
    fields: JsonObject = {"image": sample["image"]} if "image" in sample else {}
    if "json" in sample:
        try:
            described = orjson.loads(sample["json"])
        except ValueError as error:
            return source.reject(number, "bad_json", f"bad JSON: {error}", sample["json"])
        if isinstance(described, dict):
            fields = with_usual_names(described, source.columns) | fields
    if "txt" in sample:
        fields["captions"] = [sample["txt"].decode("utf-8", "replace").strip()]
    if "image" not in fields and "captions" not in fields:
        return source.reject(number, "missing_field", "a sample without photo and text", "")
    return source.record(fields, number)


def read_captions(source: Source) -> Iterator[Item]:
    """One record per photo in a folder that has a `.txt` beside it: each line is a caption."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        captions = [line.strip() for line in text.splitlines() if line.strip()]
        yield source.record({"image": image, "captions": captions}, number)


def read_tags(source: Source) -> Iterator[Item]:
    """The same where the `.txt` holds tags joined by commas."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        yield source.record({"image": image, "tags": split_tags(text)}, number)


def _sidecars(source: Source) -> Iterator[tuple[str | JsonObject, str]]:
    """The photos in a folder and in those below, each with the text beside it."""
    for path in sorted(Path(source.name).rglob("*")):
        text = path.with_suffix(".txt")
        if path.suffix[1:].lower() in PHOTO_SUFFIXES and text.is_file():
            yield encode_name(str(path)), text.read_text("utf-8", errors="replace")
