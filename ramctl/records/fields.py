"""The fields that commands share, and the type of each, checked where records are read."""

import binascii
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from ramctl.errors import RecordProblem
from ramctl.records.record import JsonObject, object_in

Check = Callable[[Any], bool]
_STRING = {str}


class Form(NamedTuple):
    """The type of a field in words, and a check of values other than null."""

    words: str
    fits: Check


def _holds(kind: type, *types: type) -> Check:
    """A check for lists, or objects, of values of these types."""
    allowed = {*types}
    if kind is dict:
        return lambda x: type(x) is dict and allowed.issuperset(map(type, x.values()))
    return lambda x: type(x) is list and allowed.issuperset(map(type, x))


_are_strings, _are_numbers = _holds(list, str), _holds(list, int, float)
_is_scored, _are_scores = _holds(list, list, int, float), _holds(dict, int, float)
_are_objects, _are_lists = _holds(list, dict), _holds(list, list)
_are_lists_by_name = _holds(dict, list)


def _hold_strings(lists: Iterable[list[Any]]) -> bool:
    return _STRING.issuperset(map(type, chain.from_iterable(lists)))


def _is_vector(value: Any) -> bool:
    if type(value) is list:  # from another program; only `search` refuses it
        return True
    _, colon, text = value.partition(":") if type(value) is str else ("", "", "")
    try:
        return bool(colon) and len(binascii.a2b_base64(text, strict_mode=True)) % 2 == 0
    except ValueError:
        return False


def _is_box(value: Any) -> bool:
    is_box = _are_numbers(value) and len(value) == 4
    return is_box and value[0] <= value[2] and value[1] <= value[3]


def _has_score(value: Any) -> bool:
    return len(value) == 2 and type(value[1]) is not list


def _are_boxes(value: Any) -> bool:
    """Whether a value is a box with its score, or the boxes of a class."""
    return _is_scored(value) and all(map(_is_box, value[:1] if _has_score(value) else value))


STRINGS = Form("a list of strings", _are_strings)
FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("captions", "generated_captions", "tags"), STRINGS),
    **dict.fromkeys(("negatives", "uncertain", "confirmed", "refused"), STRINGS),
    **dict.fromkeys(
        ("caption_tags", "generated_caption_tags"),
        Form("a list of lists of strings", lambda x: _are_lists(x) and _hold_strings(x)),
    ),
    **dict.fromkeys(("scores", "salience"), Form("an object of numbers", _are_scores)),
    "caption": Form("a string", lambda x: type(x) is str),
    "kinds": Form("an object of strings", _holds(dict, str)),
    "sources": Form(
        "an object of lists of strings",
        lambda x: _are_lists_by_name(x) and _hold_strings(x.values()),
    ),
    # `eval` makes it an array while it reads the line.
    "dense": Form("a list of numbers", lambda x: hasattr(x, "dtype") or _are_numbers(x)),
    "embedding": Form("a vector of `ramctl tag --embedding`", _is_vector),
    "boxes": Form(  # a list comes from detectors
        "an object of [[x0, y0, x1, y1], score]",
        lambda x: type(x) is list or (type(x) is dict and all(map(_are_boxes, x.values()))),
    ),
    "removed": Form(
        "a list of objects with a tag",
        lambda x: _are_objects(x) and all(type(value.get("tag")) is str for value in x),
    ),
}
# The fields that a command checks; it passes other fields on, whatever they hold.
FOR_PHOTOS = {"generated_captions": STRINGS}
FOR_CAPTIONS = {name: FORMS[name] for name in ("caption", "captions", "tags")}
FOR_PREDICTIONS = {name: FORMS[name] for name in ("dense", "scores", "tags")}
FOR_TRUTH = dict.fromkeys(("tags", "uncertain", "negatives", "confirmed", "refused"), STRINGS)
FOR_EXPORT = {
    name: FORMS[name]
    for name in ("tags", "scores", "boxes", "caption", "captions", "generated_captions", "refused")
}
FOR_COLUMNS = FOR_EXPORT | {name: FORMS[name] for name in ("dense", "embedding", "salience")}
_TYPES = {
    type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string",
    list: "a list",
}  # fmt: skip


def require_forms(fields: JsonObject, forms: Mapping[str, Form] = FORMS) -> None:
    """Raise RecordProblem for a field of another type; null counts as absent."""
    for name, value in fields.items():
        if value is None or (form := forms.get(name)) is None or form.fits(value):
            continue
        inner = value.values() if type(value) is dict else value if type(value) is list else ()
        holding = " and ".join(dict.fromkeys(map(_json_type, inner)))
        got = _json_type(value) + (holding and f" holding {holding}")
        raise RecordProblem(f"{name} is not {form.words} (got {got})", code="bad_field")


def string_list(fields: JsonObject, name: str) -> list[str]:
    """The list of strings in a field, empty when absent; RecordProblem for anything else."""
    require_forms(fields, {name: STRINGS})
    return fields.get(name) or []


def scored_boxes(fields: JsonObject) -> dict[str, list[Any]]:
    """The `[box, score]` of each tag that has one; boxes of other programs have no score."""
    return {tag: value for tag, value in object_in(fields, "boxes").items() if _has_score(value)}


def _json_type(value: Any) -> str:
    return _TYPES.get(type(value), "an object")
