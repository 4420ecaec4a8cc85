"""What a language brings to the parser: its vocabulary and its reading of a caption."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Protocol

from ramctl.labels import LabelSystem
from ramctl.parsing.captions import ParsedCaption


class Vocabulary(Protocol):
    """What closed mode asks about single words."""

    @property
    def plain_words(self) -> Mapping[str, str]:
        """The plainer word for a label list that has only that."""

    def noun(self, word: str) -> str:
        """The singular of a noun; the word itself where nothing better is known."""

    def verb(self, word: str) -> str:
        """The base form of a verb; the word itself where nothing better is known."""

    def kind(self, tag: str) -> str:
        """The kind of a tag by itself; object where nothing is known about it."""

    def material(self, adjective: str) -> str:
        """The material that an adjective names; empty if it names none."""

    def synonyms(self, tag: str, kind: str) -> Iterable[str]:
        """Words that mean the same as a tag."""

    def may_be(self, compound: str, head: str) -> bool:
        """Whether a compound may be a kind of its last word."""


class Language(Protocol):
    """A language pack, opened."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What is known of its words."""

    def clean(self, text: str) -> str:
        """The caption as it is to be read."""

    def read(self, texts: list[str]) -> Iterator[ParsedCaption]:
        """Every tag of each cleaned caption, in order: open mode."""

    def read_at_once(self, text: str) -> ParsedCaption | None:
        """The same, for closed mode, where that takes no `read`; None where it does."""

    def for_labels(self, labels: LabelSystem) -> "Language":
        """The language as the labels need it: with words that open mode finds too vague."""


def open_language() -> Language:
    """The pack of English, opened once per process; RunProblem where something is missing."""
    pack: Language = import_module("ramctl.parsing.english").open_pack()
    return pack
