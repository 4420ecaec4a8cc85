"""Texts for image trainers, `IMG.txt`: tags on one line, after a trigger word and a caption."""

import re
from dataclasses import dataclass
from typing import Literal

from ramctl.records.labels import normalise
from ramctl.records.output_formats import join_tags
from ramctl.records.record import JsonObject

_COMMA = re.compile(r"(?<!\\),")
# Lines, a full stop, or five words without a comma: no list of tags.
_SENTENCE = re.compile(r"\n|[.!?。！？]\s*(,|$)|(?:[^\s,]+ +){4}[^\s,]")  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The form of texts, and what happens to existing ones."""

    trigger: str = ""  # the first word of every text
    with_caption: bool = False  # before the tags
    existing_text: Literal["append", "replace", "keep"] = "append"


def caption_of(record: JsonObject) -> str:
    """A record's first generated caption, else its first caption; empty without any."""
    captions = record.get("generated_captions") or record.get("captions") or [""]
    return " ".join(str(captions[0]).split())


def split_tags(line: str) -> list[str]:
    """The tags of a line that `join_tags` made."""
    tags = (part.replace("\\,", ",").strip() for part in _COMMA.split(line))
    return [tag for tag in tags if tag]


def as_text(content: bytes | None) -> str:
    """A text without surrounding white space; ValueError for what is not UTF-8."""
    return (content or b"").decode("utf-8-sig").strip()


def merged_text(content: bytes | None, record: JsonObject, options: TextOptions) -> bytes | None:
    """The text with a record's tags; None where it stays as it is.

    `append` adds to a list of tags what it lacks: the other tags at its end, trigger and caption
    before it. A text that begins with the trigger, or is no list, stays. ValueError for content
    that is not UTF-8.
    """
    if content is not None and options.existing_text == "keep":
        return None
    text = as_text(content) if options.existing_text == "append" else ""
    trigger, present = options.trigger, {"", *map(normalise, split_tags(text))}
    if _SENTENCE.search(text) or (trigger and normalise(text).startswith(normalise(trigger))):
        return None
    trigger = "" if normalise(trigger) in present else trigger
    caption = caption_of(record) if options.with_caption else ""
    new = [tag for tag in record["tags"] if normalise(tag) not in present]
    parts = [trigger, "" if caption in text else caption, text, join_tags(new)]
    merged = f"{', '.join(filter(None, parts))}\n".encode()
    return merged if any(parts) and merged != content else None
