"""A reader of each caption format: JSON files, tables, texts, tars, texts beside photos."""

import re
import tarfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from ramctl.captions.source import (
    TAG_FIELDS,
    USUAL,
    Source,
    read_rows,
    split_tags,
    text_lines,
    with_usual_names,
)
from ramctl.errors import RunProblem
from ramctl.records.files import plain_name
from ramctl.records.inputs import TarHeader, open_input
from ramctl.records.record import Item, JsonObject, Reject

#: The forms of a line: Flickr8k.token.txt (name.jpg#0 TAB caption); CC12M (address TAB caption)
#: and CC3M (caption TAB address); plain captions.
TOKEN = (re.compile(r"(?P<image>.+)#\d+\t(?P<caption>.*)"),)
CONCEPTUAL = (
    re.compile(r"(?P<image>https?://[^\t]*)\t(?P<caption>[^\t]*)"),
    re.compile(r"(?P<caption>[^\t]*)\t(?P<image>[^\t]*)"),
)
PLAIN = (re.compile(r"\s*(?P<caption>\S.*?)\s*"),)
PHOTO_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})


def read_coco(source: Source) -> Iterator[Item]:
    """One record per annotation of a COCO captions file."""
    images, annotations = _json_lists(source, "images", "annotations")
    names = {
        str(row["id"]): row["file_name"]
        for row in images
        if isinstance(row, dict) and {"id", "file_name"} <= row.keys()
    }

    def fields_of(row: JsonObject) -> JsonObject:
        image_id = str(row["image_id"])
        return {"image": names.get(image_id, image_id), "captions": [row["caption"]]}

    return _records(source, annotations, fields_of)


def read_visual_genome(source: Source) -> Iterator[Item]:
    """One record per photo of Visual Genome's region_descriptions.json, phrases as captions."""

    def fields_of(row: JsonObject) -> JsonObject:
        phrases = [region["phrase"] for region in row["regions"]]
        return {"image": f"{row['id']}.jpg", "captions": phrases}

    return _records(source, _json_lists(source)[0], fields_of)


def read_sbu(source: Source) -> Iterator[Item]:
    """One record per photo of SBU's parallel lists `image_urls` and `captions`."""
    urls, captions = _json_lists(source, "image_urls", "captions")
    if len(urls) != len(captions):
        raise RunProblem(f"{source.name}: {len(urls)} image_urls, but {len(captions)} captions")
    for number, (url, caption) in enumerate(zip(urls, captions, strict=True), 1):
        yield source.record({"image": url, "captions": [caption]}, number)


def read_objects(source: Source) -> Iterator[Item]:
    """One record per object of a JSON list; photo and caption have usual names."""
    return _records(source, _json_lists(source)[0], lambda x: with_usual_names(x, source.columns))


def read_ram(source: Source) -> Iterator[Item]:
    """One record per object of the RAM authors' training JSON, with labels in place of ids.

    RAM++ leaves `parse_label_id` out, Tag2Text `union_label_id`.
    """
    labels = source.labels
    if not labels:
        raise RunProblem("--from ram needs --labels: the tag list that the ids refer to")

    def fields_of(row: JsonObject) -> JsonObject:
        caption = row["caption"]
        captions = caption if isinstance(caption, list) else [caption]
        by_caption = [[labels[n] for n in ids] for ids in row.get("parse_label_id") or []]
        tags = [labels[n] for n in row.get("union_label_id") or []]
        tags = tags or list(dict.fromkeys(chain(*by_caption)))
        fields = {"image": row["image_path"], "captions": captions, "tags": tags}
        return fields | ({"caption_tags": by_caption} if by_caption else {})

    return _records(source, _json_lists(source)[0], fields_of)


def _json_lists(source: Source, *keys: str) -> list[list[Any]]:
    """The lists under keys of the JSON object in a file; without keys, the list in it."""
    with open_input(source.name) as stream:
        try:
            content = orjson.loads(stream.read().removeprefix(BOM_UTF8))
        except ValueError as error:
            raise RunProblem(f"{source.name}: not the expected JSON: {error}") from error
    found = {"": content}
    if keys:
        found = {key: content.get(key) if isinstance(content, dict) else None for key in keys}
    for key, rows in found.items():
        if not isinstance(rows, list):
            reason = f"no list {key!r}" if key else "not a list"
            raise RunProblem(f"{source.name}: not the expected JSON: {reason}")
    return [*found.values()]


def _records(
    source: Source, rows: Iterable[Any], fields_of: Callable[[JsonObject], JsonObject]
) -> Iterator[Item]:
    """The record of each row of a JSON list, or its reject where it is of another shape."""
    for number, row in enumerate(rows, 1):
        try:
            fields = fields_of(row)
        except KeyError as error:
            yield source.reject(number, "missing_field", f"no {error}", row)
        except (TypeError, AttributeError, IndexError):
            yield source.reject(number, "bad_field", "not an object of this format", row)
        else:
            yield source.record(fields, number)


def read_csv(source: Source) -> Iterator[Item]:
    """One record per row of a table with a header: open_clip's (filepath, title), Flickr's, tags.

    The delimiter is whichever of tab, `|`, `;` and comma the header holds most often.
    Columns named `tags`, `labels` or `keywords` are tags, split at `,`, `;` or `|`.
    """
    for number, row in read_rows(source):
        if isinstance(row, Reject):
            yield row
            continue
        source.columns.check(source.name, row)
        name = next((name for name in row if name.casefold() in TAG_FIELDS), None)
        tags = {} if name is None else {"tags": split_tags(row.pop(name))}
        yield source.record(with_usual_names(row, source.columns) | tags, number)


def read_lines(source: Source, forms: Sequence[re.Pattern[str]]) -> Iterator[Item]:
    """One record per line of a text; the forms of a line have groups `image` and `caption`."""
    for number, line in enumerate(text_lines(source), 1):
        text = line.rstrip("\r\n")
        found = next(filter(None, (form.fullmatch(text) for form in forms)), None)
        if found:
            yield source.record(with_usual_names(found.groupdict(), USUAL), number)
        elif text.strip():
            yield source.reject(number, "bad_field", "not a line of this format", text)


def read_tar(source: Source) -> Iterator[Item]:
    """One record per sample of a webdataset tar; captions from `.txt` or `.json` members.

    Members of a sample are adjacent and share the name up to the first dot. The photo is named
    `shard.tar#member`, and not read. For a damaged archive the last item is a reject.
    """
    shard = PurePosixPath(plain_name(source.name)).name
    number, damage, key = 1, "", ""
    fields: JsonObject = {}
    texts: dict[str, bytes] = {}
    with open_input(source.name) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=TarHeader) as archive:
                for member in filter(tarfile.TarInfo.isfile, archive):
                    before, (key, suffix) = key, _split(member.name)
                    if key != before and (fields or texts):
                        yield _sample(source, fields, texts, number)
                        number, fields, texts = number + 1, {}, {}
                    if suffix in PHOTO_SUFFIXES:
                        fields["image"] = f"{shard}#{member.name}"
                    elif suffix in ("txt", "json"):
                        opened = archive.extractfile(member)
                        texts[suffix] = opened.read() if opened else b""
        except (tarfile.TarError, OSError, ValueError) as error:
            damage = f"not a readable tar archive: {error}"
    if fields or texts:
        yield _sample(source, fields, texts, number)
    if damage:
        yield source.reject(number + 1, "unreadable_image", damage, "")


def _split(name: str) -> tuple[str, str]:
    """The sample that a member belongs to, and its suffix."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.parent / stem), suffix.rpartition(".")[2].lower()


def _sample(source: Source, fields: JsonObject, texts: dict[str, bytes], number: int) -> Item:
    try:
        described = orjson.loads(texts.get("json", b"{}"))
    except ValueError as error:
        return source.reject(number, "bad_json", f"bad JSON: {error}", texts["json"])
    if isinstance(described, dict):
        fields = with_usual_names(described, source.columns) | fields
    if "txt" in texts:
        fields["captions"] = [texts["txt"].decode("utf-8-sig", "surrogateescape").strip()]
    return source.record(fields, number)


def read_captions(source: Source) -> Iterator[Item]:
    """One record per photo in a folder that has a `.txt` beside it: each line is a caption."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        captions = [line.strip() for line in text.splitlines() if line.strip()]
        yield source.record({"image": image, "captions": captions}, number)


def read_tags(source: Source) -> Iterator[Item]:
    """One record per photo in a folder that has a `.txt` with tags, joined by commas, beside it."""
    for number, (image, text) in enumerate(_sidecars(source), 1):
        yield source.record({"image": image, "tags": split_tags(text)}, number)


def _sidecars(source: Source) -> Iterator[tuple[str, str]]:
    """The photos in a folder and below, each with the text beside it."""
    for path in sorted(Path(source.name).rglob("*")):
        text = path.with_suffix(".txt")
        if path.suffix[1:].lower() in PHOTO_SUFFIXES and text.is_file():
            yield str(path), text.read_text("utf-8-sig", errors="surrogateescape")
