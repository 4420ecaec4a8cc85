"""Read tables of tags and scores, for `eval` and `--distill`: with a header, or lists of tags."""

import math
import re
from collections.abc import Iterator, Mapping

from ramctl.captions.source import (
    IMAGE_FIELDS,
    TAG_FIELDS,
    Source,
    delimiter_of,
    read_rows,
    text_lines,
)
from ramctl.errors import RecordProblem
from ramctl.records.record import Item, JsonObject, Reject

# Names of columns in lower case, the surest first.
_PHOTOS = (*IMAGE_FIELDS, "image_id", "imageid", "img", "photo", "file", "key", "id", "name")
_LABELS = ("label", "tag", "class", "category", "label_name", "labelname", "class_name")
_SCORES = ("scores", "score", "confidence", "probability", "prob")
_MISSING = ("", "nan")
_NOT_IN_A_LIST = re.compile(r'[\t;|"]|,\s*\d*\.\d+\s*(,|$)')  # delimiters, quotes, scores


def read_tags(source: Source) -> Iterator[Item]:
    """One record per photo of a table: with a header, which begins with the photo, or a list."""
    header = next(text_lines(source), "")
    first = header.split(delimiter_of(header))[0].strip('"\r\n ').casefold()
    return _read_table(source) if first in _PHOTOS else _read_list(source)


def _read_list(source: Source) -> Iterator[Item]:
    """One record per line `id,tag,tag`: the RAM authors' annotations, and their `pred.txt`."""
    for number, line in enumerate(text_lines(source), 1):
        text = line.rstrip("\r\n")
        image, *tags = text.split(",")
        if _NOT_IN_A_LIST.search(text):
            message = "no line id,tag,tag; name columns in a header (image,label,score)"
            yield source.reject(number, "bad_field", message, text)
        elif image.strip():
            yield source.record({"image": image, "tags": [tag for tag in tags if tag]}, number)


def _read_table(source: Source) -> Iterator[Item]:
    """One record per photo of a table with a header.

    Where each row has one label, photos are in the order of their first rows.
    """
    photos: dict[str, tuple[int, dict[str, float]]] = {}  # of a table with a row for each label
    names: dict[str, str] = {}  # of columns, by the same in lower case
    for number, row in read_rows(source):
        if isinstance(row, Reject):
            yield row
            continue
        if not names:
            names = {name.casefold(): name for name in row}
            photo = next(iter(row))
            tags, label, score = (
                next((names[name] for name in usual if name in names), "")
                for usual in (TAG_FIELDS, _LABELS, _SCORES)
            )
            is_list = bool(tags)
            is_long = bool(label) and not (is_list or _is_number(row[label]))
        try:
            if is_list:
                fields: JsonObject = {"scores": _list_scores(row[tags], row.get(score))}
                fields["tags"] = [*fields["scores"]]
                for name in {"uncertain", "negatives"} & names.keys():
                    fields[name] = _split(row[names[name]])
            elif is_long:
                known = photos.setdefault(row[photo], (number, {}))[1]
                if tag := row[label]:
                    known[tag] = max(_number(row.get(score, "1")), known.get(tag, -math.inf))
                continue
            else:
                others = (item for item in row.items() if item[0] != photo)
                scores = {name: _number(x) for name, x in others if x.lower() not in _MISSING}
                fields = {"scores": scores}
                if scores and _is_binary(scores):
                    fields["tags"] = _with_value(scores, 1)
            yield source.record({"image": row[photo], **fields}, number)
        except RecordProblem as problem:
            yield source.reject(number, problem.code, str(problem), [*row.values()])
    is_truth = all(_is_binary(scores) for _, scores in photos.values())
    has_negatives = is_truth and any(0 in scores.values() for _, scores in photos.values())
    for image, (number, scores) in photos.items():
        fields = {"image": image, "scores": scores}
        if is_truth:
            fields["tags"] = _with_value(scores, 1)
        if has_negatives:  # as OpenImages lists them: other labels are unknown
            fields["negatives"] = _with_value(scores, 0)
        yield source.record(fields, number)


def _list_scores(tags: str, scores: str | None) -> dict[str, float]:
    """The score of each tag in a cell; 1 without a column of scores."""
    names = _split(tags)
    if scores is None:
        return dict.fromkeys(names, 1.0)
    numbers = [_number(text) for text in re.findall(r"[^\s,;|]+", scores)]
    if len(names) != len(numbers):
        raise RecordProblem(f"{len(numbers)} scores, but {len(names)} tags", code="bad_field")
    return dict(zip(names, numbers, strict=True))


def _split(text: str) -> list[str]:
    """The tags in a cell; `\\,` is a comma in a tag."""
    parts = (part.strip().replace("\\,", ",") for part in re.split(r"(?<!\\)[,;|]", text))
    return [*filter(None, parts)]


def _with_value(scores: Mapping[str, float], value: int) -> list[str]:
    return [tag for tag, score in scores.items() if score == value]


def _is_binary(scores: Mapping[str, float]) -> bool:
    return {0, 1}.issuperset(scores.values())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str) -> float:
    if not _is_number(text):
        raise RecordProblem(f"{text!r} is no finite number", code="bad_field")
    return float(text)
