"""Read captions beside their photos: webdataset and img2dataset tars, folders of `.txt`."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

import orjson

from ramctl.captions.caption_tables import not_utf8
from ramctl.captions.source import Source, split_tags, with_usual_names
from ramctl.records.files import plain_name
from ramctl.records.inputs import TarHeader, open_input
from ramctl.records.record import Item, JsonObject

PHOTO_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_DAMAGE = (tarfile.TarError, OSError, ValueError)


def read_tar(source: Source) -> Iterator[Item]:
    """One record per sample of a webdataset tar; captions from `.txt` or `.json` members.

    Members of a sample are adjacent and share the name up to the first dot. The photo is named
    `shard.tar#member`, and not read. For a damaged archive the last item is a reject.
    """
    shard = PurePosixPath(plain_name(source.name)).name
    number = 1
    with open_input(source.name) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=TarHeader) as archive:
                damage: list[Exception] = []  # comes after the sample that it is in
                files = _files(archive, damage)
                for _, members in groupby(files, lambda member: _split(member.name)[0]):
                    sample: JsonObject = {}
                    for member in members:
                        suffix = _split(member.name)[1]
                        if suffix in PHOTO_SUFFIXES:
                            sample["image"] = f"{shard}#{member.name}"
                        elif suffix in ("txt", "json"):
                            opened = archive.extractfile(member)
                            sample[suffix] = opened.read() if opened else b""
                    if sample:
                        yield _sample(source, sample, number)
                        number += 1
                if damage:
                    raise damage[0]
        except _DAMAGE as error:
            message = f"not a readable tar archive: {error}"
            yield source.reject(number, "unreadable_image", message, "")


def _files(archive: tarfile.TarFile, damage: list[Exception]) -> Iterator[tarfile.TarInfo]:
    """The files in an archive, up to where it is damaged."""
    try:
        yield from filter(tarfile.TarInfo.isfile, archive)
    except _DAMAGE as error:
        damage.append(error)


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
        text = sample["txt"].decode("utf-8-sig", "surrogateescape").strip()
        if bad := not_utf8(source, number, text, sample.get("image", "")):
            return bad
        fields["captions"] = [text]
    if "image" not in fields and "captions" not in fields:
        return source.reject(number, "missing_field", "a sample without photo and text", "")
    return source.record(fields, number)


def read_captions(source: Source) -> Iterator[Item]:
    """One record per photo in a folder that has a `.txt` beside it: each line is a caption."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        captions = [line.strip() for line in text.splitlines() if line.strip()]
        fields = {"image": image, "captions": captions}
        yield not_utf8(source, number, text, image) or source.record(fields, number)


def read_tags(source: Source) -> Iterator[Item]:
    """One record per photo in a folder that has a `.txt` with tags, joined by commas, beside it."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        fields = {"image": image, "tags": split_tags(text)}
        yield not_utf8(source, number, text, image) or source.record(fields, number)


def _sidecars(source: Source) -> Iterator[tuple[str, str]]:
    """The photos in a folder and below, each with the text beside it."""
    for path in sorted(Path(source.name).rglob("*")):
        text = path.with_suffix(".txt")
        if path.suffix[1:].lower() in PHOTO_SUFFIXES and text.is_file():
            yield str(path), text.read_text("utf-8-sig", errors="surrogateescape")
