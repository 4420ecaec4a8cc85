"""Texts for image trainers, `IMG.txt`: tags on one line, after a trigger word and a caption.

A text cannot state who wrote a word, so each folder has a record of what ramctl wrote into its
texts. A word of that record that is no longer in the text was deleted by somebody: it is refused.
"""

from dataclasses import dataclass
from typing import Literal

from ramctl.labels import normalise
from ramctl.records.record import JsonObject
from ramctl.tagging.output_formats import join_tags


@dataclass(frozen=True, slots=True)
class TextOptions:
    """The form of texts, and what happens to existing ones."""

    trigger: str = ""  # the first word of every text
    with_caption: bool = False  # before the tags
    existing_text: Literal["append", "replace", "keep"] = "append"

    def caption(self, record: JsonObject) -> str:
        """The caption before the tags; empty where none is to be written."""
        return caption_of(record) if self.with_caption else ""

    def line(self, record: JsonObject) -> str:
        """The whole text of a record."""
        parts = (self.trigger, self.caption(record), join_tags(record["tags"]))
        return ", ".join(filter(None, parts))


def caption_of(record: JsonObject) -> str:
    """A record's first generated caption, else its first caption; empty without any."""
    captions = record.get("generated_captions") or record.get("captions") or [""]
    return " ".join(str(captions[0]).split())


def split_tags(line: str) -> list[str]:
    """The tags of a line that `join_tags` made."""
    parts = line.replace("\\,", "\0").split(",")  # NUL stands for a comma inside a tag
    return [tag.strip().replace("\0", ",") for tag in parts if tag.strip()]


def as_text(content: bytes | None) -> str:
    """A text without surrounding white space; ValueError for what is not UTF-8."""
    return (content or b"").decode("utf-8-sig").strip()


def text_decisions(text: str, earlier: JsonObject) -> tuple[list[str], list[str]]:
    """The words that ramctl wrote into a text and that are still there, and the refused ones.

    `earlier` is the row of the text in TextRecords.
    """
    present = set(map(normalise, split_tags(text)))
    given, refused = earlier.get("given", []), earlier.get("refused", [])
    refused = [word for word in [*refused, *given] if normalise(word) not in present]
    return [word for word in given if normalise(word) in present], refused


def merged_text(
    content: bytes | None, record: JsonObject, options: TextOptions, earlier: JsonObject
) -> tuple[bytes, JsonObject]:
    """The new content of a text, and what its folder is to record of it.

    The text has the record's tags on one line, after its caption where requested. `append` keeps
    the existing line and adds what it lacks. Refused words are never written again. ValueError for
    content that is not UTF-8.
    """
    text = as_text(content)
    given, refused = earlier.get("given", []), earlier.get("refused", [])
    if content is not None:
        given, refused = text_decisions(text, earlier)
    excluded = set(map(normalise, refused))
    tags = [tag for tag in record["tags"] if normalise(tag) not in excluded]
    old = text if options.existing_text == "append" else ""
    present = set(map(normalise, split_tags(old)))
    caption = options.caption(record)
    new = [tag for tag in tags if normalise(tag) not in present]
    trigger = "" if normalise(options.trigger) in present else options.trigger
    parts = (trigger, old, "" if caption in old else caption, join_tags(new))
    line = ", ".join(filter(None, parts))
    decisions: JsonObject = {
        "given": list(dict.fromkeys([*given, *tags] if old else tags)),
        "refused": list(dict.fromkeys(refused)),
    }
    generated = (caption if record.get("generated_captions") else "") or earlier.get("caption")
    if generated and generated in line:
        decisions["caption"] = generated
    return f"{line}\n".encode(), decisions
