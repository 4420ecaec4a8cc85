"""Records: the JSON objects that commands exchange, their rejects, and the fields they share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Self

from ramctl.errors import RecordProblem, RunProblem

#: One JSON object as it was read, including fields that are not ours.
JsonObject = dict[str, Any]

STDIN = "-"  # the name of standard input

# Where a tag comes from: values of the field `sources`.
HUMAN, PARSED = "human", "parsed"
BY_CAPTION, BY_TAG = "generated-caption", "generated-tag"
_MAX_NAMES, _MAX_NAME_LENGTH = 12, 40  # in a message
MODELS = {BY_CAPTION, BY_TAG}  # the sources that are models of the data engine


@dataclass(slots=True)
class Record:
    """One input object and where it came from.

    `base` is the folder that a relative `image` refers to. For `--resume`, `key` names the input
    (its position where empty) and `stamp` changes when its content does.
    """

    fields: JsonObject
    source: str = "-"
    line: int | None = None
    base: Path = field(default_factory=Path)
    key: str = ""
    stamp: str = ""

    @property
    def place(self) -> str:
        """`file:line` for messages, or the file alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Reject:
    """An input that a stage could not process: where it stands, why, and the input itself."""

    source: str
    line: int | None
    stage: str
    code: str
    message: str
    record: JsonObject | None = None
    raw: str | None = None
    stamp: str = ""  # the record's, for `--resume`

    @classmethod
    def of(cls, record: Record, problem: RecordProblem, stage: str) -> Self:
        """The reject of a record that has a problem in a stage."""
        return cls(
            record.source, record.line, stage, problem.code, problem.message,
            record=record.fields, stamp=record.stamp,
        )  # fmt: skip

    @property
    def place(self) -> str:
        """`file:line` for messages, or the file alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}"

    def to_json(self) -> JsonObject:
        """The object in the file of `--rejects`."""
        names = ("source", "line", "stage", "code", "message")
        inner = {"raw": self.raw or ""} if self.record is None else {"record": self.record}
        return {name: getattr(self, name) for name in names} | inner

    def fail(self) -> NoReturn:
        """Raise RunProblem, as `--strict` does at the first reject."""
        raise RunProblem(f"{self.place}: {self.message} (--strict)")


#: What readers yield, in input order.
Item = Record | Reject


def require_utf8(name: str) -> None:
    """Raise RecordProblem for the name of a photo that JSON cannot hold."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        message = "the name is not UTF-8: rename it (convmv -f latin1 -t utf8 --notest FILE)"
        raise RecordProblem(message, code="bad_utf8") from error


def shown_name(name: str) -> str:
    """A file name for messages: other bytes than UTF-8 as `\\xNN`."""
    try:
        content = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # from JSON; no file can have this name
        content = name.encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def listed_names(names: Iterable[str]) -> str:
    """The first names of fields or columns, shortened for a message of one line."""
    shown = [" ".join(name.split())[:_MAX_NAME_LENGTH] for name in islice(names, _MAX_NAMES + 1)]
    return ", ".join([*shown[:_MAX_NAMES], *["..."][: len(shown) > _MAX_NAMES]])


def image_name(fields: JsonObject) -> str:
    """The record's photo as a path or `shard.tar#member`; RecordProblem when there is none."""
    if "image" not in fields:
        raise RecordProblem("no image field", code="missing_field")
    name = fields["image"]
    if not isinstance(name, str) or not name:
        message = "image is empty" if name == "" else "image is not a path"
        raise RecordProblem(message, code="bad_field")
    return name


def checked(fields: JsonObject, name: str, form: str, fits: Callable[[Any], bool]) -> Any:
    """The value of a field, None where absent; RecordProblem for one that does not fit."""
    value = fields.get(name)
    if value is None or fits(value):
        return value
    raise RecordProblem(f"{name} is not {form}", code="bad_field")


def _holds(value: Any, *types: type) -> bool:
    return isinstance(value, list) and set(types).issuperset(map(type, value))


def _maps_to(value: Any, *types: type) -> bool:
    return isinstance(value, dict) and set(types).issuperset(map(type, value.values()))


def listed(fields: JsonObject, name: str) -> list[str]:
    """The list of strings in a field; empty where absent."""
    return checked(fields, name, "a list of strings", lambda x: _holds(x, str)) or []


def lists_in(fields: JsonObject, name: str) -> list[list[str]]:
    """The lists of strings in a field, parallel to captions; empty where absent."""

    def fits(value: Any) -> bool:
        return _holds(value, list) and all(_holds(names, str) for names in value)

    return checked(fields, name, "a list of lists of strings", fits) or []


def numbers_in(fields: JsonObject, name: str) -> dict[str, float]:
    """The number of each tag in a field; empty where absent."""
    fits = lambda x: _maps_to(x, int, float)  # noqa: E731
    return checked(fields, name, "an object of numbers", fits) or {}


def kinds_of(fields: JsonObject) -> dict[str, str]:
    """The kind of each tag; empty where absent."""
    return checked(fields, "kinds", "an object of strings", lambda x: _maps_to(x, str)) or {}


def lists_by_tag(fields: JsonObject, name: str) -> dict[str, list[str]]:
    """The list of strings of each tag in a field, such as `sources`; empty where absent."""

    def fits(value: Any) -> bool:
        return _maps_to(value, list) and all(_holds(names, str) for names in value.values())

    return checked(fields, name, "an object of lists of strings", fits) or {}


def removed_from(fields: JsonObject) -> list[JsonObject]:
    """The entries of `removed`; empty where absent."""

    def fits(value: Any) -> bool:
        return _holds(value, dict) and all(isinstance(entry.get("tag"), str) for entry in value)

    return checked(fields, "removed", "a list of objects with a tag", fits) or []


def scored_boxes(fields: JsonObject) -> dict[str, list[Any]]:
    """The `[box, score]` of each tag that has one; boxes of other programs have no score."""

    def is_scored(value: Any) -> bool:
        if not (isinstance(value, list) and len(value) == 2 and _holds(value[:1], list)):
            return False
        box, score = value
        return _holds(box, int, float) and len(box) == 4 and isinstance(score, int | float)

    boxes = fields.get("boxes")
    pairs = boxes.items() if isinstance(boxes, dict) else ()
    return {tag: value for tag, value in pairs if is_scored(value)}


def is_tagged(fields: JsonObject) -> bool:
    """Whether the record has tags that are not only the predictions of `ramctl tag`.

    Those come with `scores` and without `sources`.
    """
    return "tags" in fields and ("scores" not in fields or "sources" in fields)


def decided_tags(fields: JsonObject) -> tuple[list[str], list[str]] | None:
    """The predicted tags that a person confirmed and refused; None without such decisions."""
    if not ("confirmed" in fields or "refused" in fields):
        return None
    return listed(fields, "confirmed"), listed(fields, "refused")


def tag_language(fields: JsonObject) -> str:
    """The language of a record's tags, as `tag --lang` writes it; empty for English."""
    language = fields.get("tag_language")
    return language if isinstance(language, str) else ""


def captions_of(fields: JsonObject) -> list[str]:
    """The human captions: `captions`, else `caption` as one."""
    if fields.get("captions") is not None or fields.get("caption") is None:
        return listed(fields, "captions")
    return [checked(fields, "caption", "a string", lambda x: isinstance(x, str))]


def tags_by_caption(fields: JsonObject) -> list[set[str]]:
    """The tags of each caption; empty without `caption_tags`."""
    return [*map(set, lists_in(fields, "caption_tags"))]


def barred_tags(fields: JsonObject) -> list[str]:
    """The tags that must not be added again: removed, absent or refused ones."""
    removed = [entry["tag"] for entry in removed_from(fields)]
    return [*removed, *listed(fields, "negatives"), *listed(fields, "refused")]


PER_TAG = ("kinds", "scores", "sources", "boxes")


def set_tags(fields: JsonObject, tags: list[str]) -> None:
    """Replace `tags`, and drop the values of other tags in the fields PER_TAG."""
    fields["tags"] = tags
    for name in PER_TAG:
        if isinstance(per_tag := fields.get(name), dict):
            fields[name] = {tag: per_tag[tag] for tag in tags if tag in per_tag}
