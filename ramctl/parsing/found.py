"""What the rules find: a tag, its kind, and the words and the rule behind it."""

from __future__ import annotations

from dataclasses import dataclass

from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.sentence import Sentence


@dataclass(frozen=True, slots=True)
class Found:
    """A tag with its kind, the place and the words of the caption behind it, and the rule."""

    place: int
    tag: str
    kind: str
    words: str
    rule: str


@dataclass(slots=True)
class Findings:
    """The tags of one caption as they are found, and where the rules look."""

    sentence: Sentence
    lexicon: Lexicon
    found: list[Found]
    #: Places of nouns that are doings: "do a flip".
    doings: dict[int, str]
    #: Free compounds ("soccer field" beside the tag "field"): what a label system may list.
    phrases: list[str]

    def add(self, start: int, end: int, tag: str, kind: str, rule: str) -> None:
        """Note a tag made of the words of a span."""
        shown = " ".join(self.sentence.shown[start:end])
        self.found.append(Found(start, tag, kind, shown, rule))
