"""What other programs write about photos: FiftyOne's exports, the RAM authors' lists."""

from collections.abc import Iterator

from ramctl.errors import RunProblem
from ramctl.readers.json_lists import items_of, pairs_of
from ramctl.readers.source import Source
from ramctl.records.inputs import open_input
from ramctl.records.record import Item, JsonObject

SAMPLES = "samples.json"


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
