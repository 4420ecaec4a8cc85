"""A record as training reads it: tags, captions, and the tags that each caption names."""

from dataclasses import dataclass
from pathlib import Path

from ramctl.errors import RecordProblem
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    JsonObject,
    Record,
    captions_of,
    image_name,
    string_list,
)

GUESSES = {BY_CAPTION, BY_TAG}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption and those of the record's tags that it names itself."""

    text: str
    tags: tuple[str, ...]
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a record says about its photo.

    `is_tagged` is False where nobody said what the photo shows: the record has no `tags`, or those
    of a tagger, which come with `scores` and without `sources`. Only a teacher can tell then.
    `negatives`, where given, are the only tags known to be absent: unlisted ones are unknown.
    `uncertain` tags count neither way. `guessed` are those of the tags that only `generate` gave.
    """

    image: str
    base: Path
    tags: tuple[str, ...]
    captions: tuple[Caption, ...]
    negatives: tuple[str, ...] | None
    uncertain: tuple[str, ...]
    is_tagged: bool = True
    guessed: tuple[str, ...] = ()

    @property
    def n_written(self) -> int:
        """Captions that are not a model's."""
        return sum(not caption.generated for caption in self.captions)


def read_annotation(record: Record) -> Annotation:
    """The annotation of a record; RecordProblem for missing fields and fields of a wrong type."""
    fields = record.fields
    image = image_name(fields)
    is_tagged = "tags" in fields and ("scores" not in fields or "sources" in fields)
    tags = tuple(string_list(fields, "tags")) if is_tagged else ()
    written = _captions(captions_of(fields), fields, "caption_tags", tags)
    generated = _captions(
        string_list(fields, "generated_captions"), fields, "generated_caption_tags", tags,
        generated=True,
    )  # fmt: skip
    negatives = tuple(string_list(fields, "negatives")) if "negatives" in fields else None
    uncertain = tuple(string_list(fields, "uncertain"))
    sources = fields.get("sources")
    guessed: tuple[str, ...] = ()
    if isinstance(sources, dict):
        guessed = tuple(tag for tag in tags if _is_guessed(sources.get(tag)))
    captions = written + generated
    return Annotation(image, record.base, tags, captions, negatives, uncertain, is_tagged, guessed)


def _is_guessed(sources: object) -> bool:
    """Whether a tag's sources say that nobody but a model of the data engine gave it."""
    return isinstance(sources, list) and bool(sources) and GUESSES.issuperset(map(str, sources))


def require_tags(annotation: Annotation) -> None:
    """RecordProblem where nobody said what the photo shows."""
    if not annotation.is_tagged:
        message = "no tags field (ramctl parse writes it), or only a tagger's, beside its scores"
        raise RecordProblem(message, code="missing_field")


def _captions(
    texts: list[str], fields: JsonObject, name: str, tags: tuple[str, ...],
    *, generated: bool = False,
) -> tuple[Caption, ...]:  # fmt: skip
    """Each caption with its own tags that the record still has; all tags where none are given."""
    if fields.get(name) is None:
        return tuple(Caption(text, tags, generated) for text in texts if text.strip())
    own = fields[name]
    if not isinstance(own, list) or len(own) != len(texts):
        raise RecordProblem(f"{name} is not a list parallel to the captions", code="bad_field")
    kept, captions = set(tags), []
    for text, names in zip(texts, own, strict=True):
        if not isinstance(names, list) or not all(isinstance(tag, str) for tag in names):
            raise RecordProblem(f"{name} is not a list of lists of strings", code="bad_field")
        if text.strip():
            # `clean` may have removed a tag from the record after the caption was parsed.
            captions.append(Caption(text, tuple(t for t in names if t in kept), generated))
    return tuple(captions)
