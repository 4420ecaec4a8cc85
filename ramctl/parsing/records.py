"""Records through the parser: captions to `tags`, `caption_tags`, `kinds` and `sources`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ramctl.errors import RecordProblem
from ramctl.parsing.parser import ParsedCaption
from ramctl.records.record import Record, captions_of, string_list

#: A caption of more characters is no caption; the dense descriptions have some 2,000.
MAX_CAPTION = 100_000
#: The tables of the RAM paper count the tags among so many most frequent ones.
COMMON_TAGS = 10_000


def captions_to_parse(record: Record) -> list[str]:
    """The record's captions; RecordProblem where there is nothing to parse or keep."""
    captions = captions_of(record.fields)
    if not captions and not {"captions", "caption", "tags"} & record.fields.keys():
        raise RecordProblem("no captions and no tags", code="missing_field")
    for caption in captions:
        if len(caption) > MAX_CAPTION:
            raise RecordProblem(
                f"a caption of {len(caption)} characters (at most {MAX_CAPTION})", code="too_large"
            )
    string_list(record.fields, "tags")
    return captions


def with_tags(
    record: Record,
    parsed: Sequence[ParsedCaption],
    kinds_of_given: dict[str, str],
    *,
    keep_tags: bool,
    explain: bool,
) -> dict[str, Any]:
    """The record's fields with the tags of its parsed captions.

    Tags that came in stay where there are no captions, and with `keep_tags`; their kinds are
    `kinds_of_given`, their source `human`.
    """
    fields = record.fields
    caption_tags = [caption.tags for caption in parsed]
    kinds: dict[str, str] = {}
    for caption in parsed:
        for tag, kind in caption.kinds.items():
            kinds.setdefault(tag, kind)
    sources: dict[str, list[str]] = {tag: ["parsed"] for tag in kinds}
    if keep_tags or not parsed:
        given = fields.get("kinds")
        given_kinds: dict[str, str] = given if isinstance(given, dict) else {}
        for tag in string_list(fields, "tags"):
            kinds.setdefault(tag, given_kinds.get(tag) or kinds_of_given[tag])
            sources.setdefault(tag, []).append("human")
    fields["tags"] = list(kinds)
    fields["caption_tags"] = caption_tags
    fields["kinds"] = kinds
    fields["sources"] = sources
    if isinstance(fields.get("scores"), dict):
        fields["scores"] = {t: fields["scores"][t] for t in kinds if t in fields["scores"]}
    if explain:
        fields["explain"] = _explain(parsed)
    return fields


def _explain(parsed: Sequence[ParsedCaption]) -> dict[str, list[dict[str, Any]]]:
    reasons: dict[str, list[dict[str, Any]]] = {}
    for number, caption in enumerate(parsed):
        for found in caption.found:
            reason = {"caption": number, "words": found.words, "rule": found.rule}
            reasons.setdefault(found.tag, []).append(reason)
    return reasons


@dataclass(slots=True)
class ParseCounts:
    """What the paper's tables count of a parsed set."""

    images: int = 0
    captions: int = 0
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, fields: dict[str, Any]) -> None:
        """Count one record that came out."""
        self.images += 1
        self.captions += len(fields["caption_tags"])
        self.tags.update(fields["tags"])

    def to_json(self) -> dict[str, Any]:
        """The counts as `--stats` has them."""
        total = sum(self.tags.values())
        return {
            "images": self.images,
            "captions": self.captions,
            "tags": total,
            "distinct_tags": len(self.tags),
            "common_tags": sum(n for _, n in self.tags.most_common(COMMON_TAGS)),
            "tags_per_image": round(total / self.images, 3) if self.images else 0.0,
        }
