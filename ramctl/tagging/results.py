"""Tags of an earlier run: records that `ramctl tag` wrote, in the place of a model."""

from collections.abc import Callable, Mapping

from ramctl.errors import RecordProblem, UsageProblem
from ramctl.inference.label_set import Threshold
from ramctl.labels import read_threshold
from ramctl.records.record import JsonObject, Record, json_type, set_tags, string_list
from ramctl.tagging.scorers import TaggerOptions
from ramctl.tagging.selection import SelectionOptions

_NEED_THE_MODEL = (
    "labels", "precision", "preprocess", "dense", "boxes", "caption", "specified_tags",
    "caption_length",
)  # fmt: skip
_CHOICES_OF_LABELS = {"leaf": "--leaf", "language": "--lang", "kinds": "--kinds"}


def read_results(options: TaggerOptions) -> Callable[[Record], JsonObject]:
    """A function that gives a tagged record with the tags that the options leave of its own.

    It raises RecordProblem for a record without `tags`. UsageProblem for options that only a
    model can follow.
    """
    defaults = TaggerOptions()
    for name in _NEED_THE_MODEL:
        if getattr(options, name) != getattr(defaults, name):
            raise UsageProblem(f"--from-tags has no model for --{name.replace('_', '-')}")
    choice = options.choice
    for name, option in _CHOICES_OF_LABELS.items():
        if getattr(choice, name) not in (None, False):
            raise UsageProblem(f"--from-tags has no model for {option}")
    threshold = _number(options.threshold)

    def read(record: Record) -> JsonObject:
        fields = record.fields
        if "tags" not in fields:
            raise RecordProblem("no tags field", code="missing_field")
        scores = _scores(fields)
        given = string_list(fields, "tags")
        kept = [tag for tag in given if _is_kept(tag, scores, threshold, choice)]
        set_tags(fields, kept[: choice.top])
        if choice.rename:
            _rename(fields, choice.rename)
        return fields

    return read


def _number(threshold: Threshold | None) -> float | None:
    if threshold is None:
        return None
    number = read_threshold(str(threshold))
    if number is None:
        raise UsageProblem("--from-tags takes a number as --threshold")
    return number


def _scores(fields: JsonObject) -> Mapping[str, float]:
    scores = fields.get("scores", {})
    values = scores.values() if isinstance(scores, dict) else [None]
    if not all(isinstance(value, int | float) for value in values):
        message = f"scores is not an object of numbers (got {json_type(scores)})"
        raise RecordProblem(message, code="bad_field")
    return dict(scores)


def _is_kept(
    tag: str, scores: Mapping[str, float], threshold: float | None, choice: SelectionOptions
) -> bool:
    if tag in choice.exclude or (choice.include is not None and tag not in choice.include):
        return False
    return threshold is None or scores.get(tag, 1.0) > threshold


def _rename(fields: JsonObject, names: Mapping[str, str]) -> None:
    """Rename tags in every field; of two that get one name the first stays."""
    fields["tags"] = list(dict.fromkeys(names.get(tag, tag) for tag in fields["tags"]))
    for name in ("kinds", "scores", "sources", "boxes"):
        per_tag = fields.get(name)
        if isinstance(per_tag, dict):
            renamed = {names.get(tag, tag): value for tag, value in reversed(per_tag.items())}
            fields[name] = {tag: renamed[tag] for tag in fields["tags"] if tag in renamed}
