"""Read tables of tags and scores, for `eval` and `--distill`: with a header, or lists of tags."""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ramctl.captions.caption_tables import delimiter_of, not_utf8, read_rows
from ramctl.captions.source import IMAGE_FIELDS, TAG_FIELDS, Source
from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.inputs import PEEK, first_bytes, open_input
from ramctl.records.record import Item, JsonObject

# Headings in lower case, the surest first. pandas writes its index under none.
_PHOTOS = (*IMAGE_FIELDS, "image_id", "imageid", "img", "photo", "file", "key", "id", "name")
_INDEX = ("", "unnamed: 0", "index")
_LABELS = ("label", "tag", "class", "category", "label_name", "labelname", "class_name")
_SCORES = ("scores", "score", "confidence", "probability", "prob")
_MISSING = ("", "nan", "na", "null", "none")
_DECIMAL = re.compile(r"(.*[:=])?\s*[-+]?\d*\.\d+(e[-+]?\d+)?", re.IGNORECASE)
_FORMS = "image,tags or image,label,score, or the photo and a number for each label"


def is_headed(name: str) -> bool:
    """Whether the first line of a table names its columns; a list of tags has none."""
    start = first_bytes(name).decode("utf-8-sig", "replace")
    lines = (start.splitlines() or [""])[:2]
    rows = [*csv.reader(lines, delimiter=delimiter_of(lines[0])), [], []]
    first, *others = [cell.strip().casefold() for cell in rows[0]] or [""]
    sure = first in _INDEX or not {first, *others}.isdisjoint((*TAG_FIELDS, *_LABELS))
    if sure and not {*others}.isdisjoint(IMAGE_FIELDS):
        return True
    if len(start) >= PEEK // 2 and "\n" not in start:  # no photo has so many tags
        return True
    cells = rows[1][1 : len(rows[0])]
    is_wide = any(map(_is_number, cells)) and all(map(_is_value, cells))
    return bool(others) and (
        first in _PHOTOS
        or others[0] in TAG_FIELDS
        or (is_wide and not any(map(_is_number, others)))
    )


def read_list(source: Source) -> Iterator[Item]:
    """One record per line `id,tag,tag`: the RAM authors' annotations, and their `pred.txt`."""
    with open_input(source.name) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise RunProblem(f"{source.name}:{number}: not UTF-8 text") from error
            image, *tags = text.split(",")
            odd = [cell for cell in tags or [image] if re.search(r'[\t;|]|^"', cell)]
            if odd := [*odd, *filter(_DECIMAL.fullmatch, tags)]:
                message = (
                    f"{odd[0]!r}: no line id,tag,tag; name columns in a header (image,label,score)"
                )
                yield source.reject(number, "bad_field", message, text)
            elif image.strip():
                yield source.record({"image": image, "tags": [tag for tag in tags if tag]}, number)


def read_table(source: Source) -> Iterator[Item]:
    """One record per photo of a table with a header; RunProblem where it is not understood.

    Where each row has one label, photos are in the order of their first rows.
    """
    columns: _Columns | None = None
    names: list[str] = []
    photos: dict[str, tuple[int, dict[str, float]]] = {}  # of a table with a row for each label
    for number, row in read_rows(source):
        cells = [cell.strip() for cell in row]
        bad = not_utf8(source, number, ",".join(row))
        if not names:
            if bad:
                raise RunProblem(f"{source.name}:{number}: {bad.message}")
            names = cells
            while len(names) > 1 and not names[-1]:  # a line may end with a delimiter
                names.pop()
            continue
        if bad:
            yield bad
            continue
        try:
            if len(cells) < len(names) or any(cells[len(names) :]):
                raise RecordProblem(f"{len(cells)} columns, not {len(names)}", code="bad_field")
            columns = columns or _Columns.find(source.name, names, cells)
            image, scores = cells[columns.photo], columns.scores(cells)
            if columns.is_long:
                known = photos.setdefault(image, (number, {}))[1]
                known |= {tag: max(score, known.get(tag, score)) for tag, score in scores.items()}
                continue
            fields: JsonObject = {"image": image, "scores": scores}
            if columns.tags is not None:
                by_name = dict(zip(map(str.casefold, names), cells, strict=False))
                others = by_name.keys() & {"uncertain", "negatives"}
                fields |= {name: _split(by_name[name]) for name in others} | {"tags": list(scores)}
            elif scores and _is_binary(scores):
                fields |= {"tags": _with_value(scores, 1)}
            yield source.record(fields, number)
        except RecordProblem as problem:
            yield source.reject(number, problem.code, str(problem), ",".join(row))
    is_truth = all(_is_binary(scores) for _, scores in photos.values())
    has_negatives = is_truth and any(0 in scores.values() for _, scores in photos.values())
    for image, (number, scores) in photos.items():
        fields = {"image": image, "scores": scores}
        fields |= {"tags": _with_value(scores, 1)} if is_truth else {}
        # As OpenImages lists them: other labels are unknown.
        fields |= {"negatives": _with_value(scores, 0)} if has_negatives else {}
        yield source.record(fields, number)


class _Columns(NamedTuple):
    """The columns of a table by number; where `tags` is None, `values` has one for each label."""

    photo: int
    tags: int | None
    score: int | None
    values: dict[str, int]
    is_long: bool  # a photo has several rows, with a label each

    @classmethod
    def find(cls, source: str, names: Sequence[str], cells: Sequence[str]) -> "_Columns":
        """Understand a header, with the first row; RunProblem where that is not possible."""
        keys = [name.casefold() for name in names]

        def column(*usual: str) -> int | None:
            return next((keys.index(name) for name in usual if name in keys), None)

        if double := next((name for name in names if name and names.count(name) > 1), None):
            raise RunProblem(f"{source}:1: two columns {double!r}")
        tags, score = column(*TAG_FIELDS, *_LABELS), column(*_SCORES)
        # A table of numbers with other columns too has a column for each label.
        is_narrow = {*keys} <= {*_PHOTOS, *_INDEX, *TAG_FIELDS, *_LABELS, *_SCORES}
        if tags is not None and (is_narrow or not _is_number(cells[tags])):
            is_long = keys[tags] in _LABELS or (score is not None and keys[score] != "scores")
            return cls(column(*_PHOTOS) or 0, tags, score, {}, is_long)
        photo = 0 if keys[0] in _PHOTOS else column(*IMAGE_FIELDS) or 0
        values = {
            name: number
            for number, name in enumerate(names)
            if number != photo and keys[number] not in _INDEX
        }
        text = next((name for name, number in values.items() if not _is_value(cells[number])), None)
        if text or not values:
            found = f"column {text!r} is no score" if text else "only one column"
            raise RunProblem(f"{source}:1: {found}; expected {_FORMS}")
        return cls(photo, None, None, values, False)

    def scores(self, cells: Sequence[str]) -> dict[str, float]:
        """The scores by tag in a row, 1 where it has none; RecordProblem for other content."""
        if self.tags is None:
            present = {
                n: cells[i] for n, i in self.values.items() if cells[i].lower() not in _MISSING
            }
            return {name: _number(text) for name, text in present.items()}
        text = cells[self.tags]
        if self.score is None:
            return dict.fromkeys(_split(text), 1.0)
        numbers = [_number(number) for number in re.findall(r"[^\s,;|\[\]]+", cells[self.score])]
        for delimiters in ("",) if self.is_long else (",", ";", "|"):
            if len(tags := _split(text, delimiters)) == len(numbers):
                return dict(zip(tags, numbers, strict=True))
        raise RecordProblem(f"{len(numbers)} scores, but not as many tags", code="bad_field")


def _split(text: str, delimiters: str = ",;|") -> list[str]:
    """The tags in a cell; `\\,` is a comma in a tag. It may be a list as Python writes it."""
    parts = re.split(rf"(?<!\\)[{delimiters}]", text.strip("[]")) if delimiters else [text]
    quotes = " '\"" if text.startswith("[") else " "
    tags = [tag.strip(quotes).replace("\\,", ",") for tag in parts if tag.strip(quotes)]
    if scored := next(filter(_DECIMAL.fullmatch, tags), None):
        raise RecordProblem(f"{scored!r} is no tag; scores need a column", code="bad_field")
    return tags


def _with_value(scores: dict[str, float], value: int) -> list[str]:
    return [tag for tag, score in scores.items() if score == value]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_value(text: str) -> bool:
    return text.strip().casefold() in _MISSING or _is_number(text)


def _is_binary(scores: dict[str, float]) -> bool:
    return {0, 1}.issuperset(scores.values())


def _number(text: str) -> float:
    if not _is_number(text):
        raise RecordProblem(f"{text!r} is no finite number", code="bad_field")
    return float(text)
