"""Read JSON files: COCO captions, Visual Genome regions, SBU, lists of objects, RAM's format.

Item by item, so that memory does not grow with the file.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from io import BufferedReader
from itertools import zip_longest
from typing import Any

from ramctl.captions.source import Source, with_usual_names
from ramctl.errors import RunProblem
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject


def read_coco(source: Source) -> Iterator[Item]:
    """One record per annotation of a COCO captions file; the names of photos are in memory."""
    names = {
        str(row["id"]): row["file_name"]
        for row in _listed(source, "images")
        if isinstance(row, dict) and "id" in row and isinstance(row.get("file_name"), str)
    }
    for number, row in enumerate(_listed(source, "annotations"), 1):
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str):
            yield source.reject(number, "missing_field", "annotation without caption", row)
            continue
        image_id = str(row.get("image_id"))
        image = names.get(image_id, image_id)
        yield source.record({"image": image, "captions": [row["caption"]]}, number)


def read_visual_genome(source: Source) -> Iterator[Item]:
    """One record per photo of Visual Genome's region_descriptions.json, phrases as captions."""
    for number, row in enumerate(_items(source), 1):
        regions = row.get("regions") if isinstance(row, dict) else None
        if not isinstance(regions, list) or not all(isinstance(r, dict) for r in regions):
            yield source.reject(number, "missing_field", "no regions", row)
            continue
        phrases = [region["phrase"] for region in regions if isinstance(region.get("phrase"), str)]
        image = row.get("id", regions[0].get("image_id") if regions else None)
        yield source.record({"image": f"{image}.jpg", "captions": phrases}, number)


def read_sbu(source: Source) -> Iterator[Item]:
    """One record per photo of SBU's parallel lists `image_urls` and `captions`."""
    pairs = zip_longest(_listed(source, "image_urls"), _listed(source, "captions"))
    for number, (url, caption) in enumerate(pairs, 1):
        if url is None or caption is None:
            yield source.reject(number, "missing_field", "no pair", url or caption)
            continue
        yield source.record({"image": url, "captions": [caption]}, number)


def read_objects(source: Source) -> Iterator[Item]:
    """One record per object of a JSON list; photo and caption have usual names."""
    for number, row in enumerate(_items(source), 1):
        if not isinstance(row, dict):
            yield source.reject(number, "bad_json", "not a JSON object", row)
            continue
        yield source.record(with_usual_names(row, source.columns), number)


def read_ram(source: Source) -> Iterator[Item]:
    """One record per object of the RAM authors' training JSON, with labels in place of ids.

    RAM++ leaves `parse_label_id` out, Tag2Text `union_label_id`.
    """
    if not (labels := source.labels):
        raise RunProblem("--from ram needs --labels: the tag list that the ids refer to")
    for number, row in enumerate(_items(source), 1):
        try:
            caption = row["caption"]
            captions = caption if isinstance(caption, list) else [caption]
            fields: JsonObject = {"image": row["image_path"], "captions": captions}
            union = _tags(row.get("union_label_id"), labels)
            parsed = [_tags(ids, labels) for ids in row.get("parse_label_id") or []]
        except (KeyError, TypeError, IndexError) as error:
            yield source.reject(number, "bad_field", f"not a RAM record: {error!r}", row)
            continue
        fields["tags"] = union or list(dict.fromkeys(tag for tags in parsed for tag in tags))
        if parsed:
            fields["caption_tags"] = parsed
        yield source.record(fields, number)


def _tags(ids: list[int] | None, labels: Sequence[str]) -> list[str]:
    if ids and min(ids) < 0:
        raise IndexError("a negative id")
    return [labels[i] for i in ids or []]


def _listed(source: Source, key: str) -> Iterator[Any]:
    """The items of the list under `key` of the top-level object; RunProblem without that list."""
    is_empty = True
    for item in _items(source, f"{key}.item"):
        is_empty = False
        yield item
    if is_empty and [] not in _items(source, key):
        raise RunProblem(f"{source.name}: not the expected JSON: no list {key!r}")


def _items(source: Source, prefix: str = "item") -> Iterator[Any]:
    """The items of the top-level list, or what ijson finds by `prefix` in the top-level object.

    RunProblem where the text is not of that shape.
    """
    import ijson

    opening, kind = (b"[", "list") if prefix == "item" else (b"{", "object")
    with open_input(source.name) as stream:
        text = BufferedReader(stream)  # type: ignore[type-var]
        try:
            # ijson yields nothing where the text is of another shape; a byte order mark ends it.
            text.read(len(BOM_UTF8) if text.peek(1).startswith(BOM_UTF8) else 0)
            if text.peek(1).lstrip()[:1] != opening:
                raise RunProblem(f"{source.name}: not the expected JSON: not a JSON {kind}")
            yield from ijson.items(text, prefix, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunProblem(f"{source.name}: not the expected JSON: {reason}") from error
        finally:
            text.detach()
