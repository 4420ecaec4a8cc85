"""What other programs write about photos: FiftyOne, panoptic segmenters, RAM's own, MKT."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from ramctl.errors import RunProblem
from ramctl.parts import require
from ramctl.readers.json_lists import items_of, pairs_of
from ramctl.readers.source import Source
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject, Reject, encode_name

SAMPLES, LOGITS, DECISIONS = "samples.json", "logits.pth", "pred.txt"
MKT_TITLE = "Top-10 Predictions:"
# Six characters of a score: where there is an exponent, its digits are lost.
_MKT_LINE = re.compile(r"(\S.*?)\s*(-?\d\.\d+)(e.*)?")


def read_fiftyone(source: Source) -> Iterator[Item]:
    """One record per sample of a FiftyOneDataset: its Classifications, else its Classification.

    RunProblem where several fields of the samples could be meant: a field with confidences comes
    before one without.
    Source: FiftyOneDatasetExporter (`samples.json`) in fiftyone.
    """
    field = _label_field(source)
    for number, sample in enumerate(items_of(source, "samples"), 1):
        try:
            image, labels = sample["filepath"], _classifications(sample.get(field))
            yield _with_labels(source, image, labels, number)
        except (KeyError, TypeError, AttributeError) as error:
            yield source.reject(number, "bad_field", f"not a sample: {error!r}", sample)


def _label_field(source: Source) -> str:
    fields: dict[str, bool] = {}  # whether some label has a confidence
    for sample in items_of(source, "samples"):
        for name, value in sample.items() if isinstance(sample, dict) else ():
            if isinstance(value, dict) and "Classification" in str(value.get("_cls")):
                labels = value.get("classifications", [value])
                is_sure = isinstance(labels, list) and any(
                    isinstance(label, dict) and label.get("confidence") is not None
                    for label in labels
                )
                fields[name] = fields.get(name, False) or is_sure
    named = [name for name, is_sure in fields.items() if is_sure] or list(fields)
    if len(named) != 1:
        which = f"several: {', '.join(named)}; select_fields() keeps one" if named else "none"
        raise RunProblem(f"{source.name}: expected one field of classifications, found {which}")
    return named[0]


def _classifications(value: JsonObject | None) -> list[JsonObject]:
    if value is None:
        return []
    return list(value["classifications"]) if "classifications" in value else [value]


def read_fiftyone_labels(source: Source) -> Iterator[Item]:
    """One record per photo of a FiftyOneImageClassificationDataset, as `tag -f fiftyone` writes.

    Source: FiftyOneImageClassificationDatasetExporter (`labels.json`) in fiftyone.
    """
    classes = list(items_of(source, "classes"))
    for number, (image, target) in enumerate(pairs_of(source, "labels"), 1):
        try:
            found = target if isinstance(target, list) else [target]
            labels = [
                label if isinstance(label, dict) else {"label": label}
                for label in found
                if label is not None
            ]
            for label in labels:
                if isinstance(label["label"], int):
                    label["label"] = classes[label["label"]]
            yield _with_labels(source, image, labels, number)
        except (KeyError, TypeError, IndexError) as error:
            yield source.reject(number, "bad_field", f"not a photo's labels: {error!r}", target)


def _with_labels(source: Source, image: str, labels: list[JsonObject], number: int) -> Item:
    """The record of a photo: scores where its labels have confidences, tags where some has none."""
    scores = {label["label"]: label.get("confidence") for label in labels}
    fields: JsonObject = {"image": image}
    if None in scores.values() or not scores:
        fields["tags"] = list(scores)
    if None not in scores.values():
        fields["scores"] = scores
    return source.record(fields, number)


def read_panoptic(source: Source) -> Iterator[Item]:
    """One record per photo with the names of its segments' categories as tags.

    Source: `predictions.json` of detectron2's COCOPanopticEvaluator, with which ODISE and SEEM
    evaluate, and COCO's own panoptic annotations: `file_name` is the mask's.
    """
    names = _by_id(source, "categories", "name")
    photos = _by_id(source, "images", "file_name")
    for number, row in enumerate(items_of(source, "annotations"), 1):
        try:
            image = photos.get(row["image_id"]) or PurePosixPath(row["file_name"]).stem
            tags = [names[segment["category_id"]] for segment in row["segments_info"]]
        except (KeyError, TypeError) as error:
            yield source.reject(number, "bad_field", f"not a photo's segments: {error!r}", row)
            continue
        yield source.record({"image": image, "tags": list(dict.fromkeys(tags))}, number)


def _by_id(source: Source, key: str, field: str) -> JsonObject:
    try:
        return {row["id"]: row[field] for row in items_of(source, key)}
    except (KeyError, TypeError) as error:
        raise RunProblem(f"{source.name}: not COCO's {key}: {error!r}") from error


def read_list(source: Source) -> Iterator[Item]:
    """One record per line `id,tag,tag`: the RAM authors' annotations, and their `pred.txt`."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            try:
                image, *tags = line.decode("utf-8-sig").rstrip("\r\n").split(",")
            except UnicodeDecodeError as error:
                raise RunProblem(f"{source.name}:{number}: not UTF-8 text") from error
            if image.strip():
                yield source.record({"image": image, "tags": [tag for tag in tags if tag]}, number)


def read_logits(source: Source, label_lists: Sequence[Sequence[str]]) -> Iterator[Item]:
    """One record per row of the RAM authors' `logits.pth`: probabilities (N, C), despite its name.

    Photos and their tags are those of `pred.txt` beside it; the columns are the first label list
    of that length. RunProblem where one of the two does not fit.
    Source: the authors' batch_inference.py.
    """
    require("train", f"{source.name}: a file of torch")
    import torch

    folder = Path(source.name) if Path(source.name).is_dir() else Path(source.name).parent
    path = folder / LOGITS if Path(source.name).is_dir() else Path(source.name)
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
        n_rows, n_columns = table.shape
    except Exception as error:
        reason = str(error).partition("\n")[0] or "it ends too early"
        raise RunProblem(f"{path}: not a table of numbers: {reason}") from error
    photos = list(read_list(Source(str(folder / DECISIONS), source.base, source.stage)))
    if len(photos) != n_rows:
        raise RunProblem(f"{path}: {n_rows} rows for {len(photos)} photos in {DECISIONS}")
    names = next((list(names) for names in label_lists if len(names) == n_columns), None)
    if names is None:
        lengths = " and ".join(str(len(names)) for names in label_lists) or "none"
        given = f"--classes and --labels list {lengths}" if label_lists else "see --classes"
        raise RunProblem(f"{path}: {n_columns} columns are the labels of what list? ({given})")
    for number, (photo, row) in enumerate(zip(photos, table, strict=True), 1):
        if isinstance(photo, Reject):
            yield photo
            continue
        first = {"label_names": names} if number == 1 else {}
        yield source.record(photo.fields | first | {"dense": row.tolist()}, number)


def read_mkt(source: Source) -> Iterator[Item]:
    """One record per text file with what MKT's inference.py prints of one photo: ten scores.

    The photo has the file's name, `dog.txt` or `dog.jpg.txt`; a folder holds such files.
    """
    place = Path(source.name)
    paths = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
    for number, path in enumerate(paths, 1):
        image = path.relative_to(place if place.is_dir() else place.parent).with_suffix("")
        _, title, ranking = path.read_text("utf-8", "replace").partition(MKT_TITLE)
        found = map(_MKT_LINE.fullmatch, filter(None, map(str.strip, ranking.splitlines())))
        scores = {match[1]: 0.0 if match[3] else float(match[2]) for match in found if match}
        if title:
            fields = {"image": encode_name(str(image)), "scores": scores}
            yield source.record(fields, number)
        else:
            message = f"{path.name} has no {MKT_TITLE!r}"
            yield source.reject(number, "missing_field", message, "")
