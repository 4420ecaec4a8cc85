"""The layers of the English rules, in their order: each relies on those before it."""

from collections.abc import Callable
from typing import Generic, TypeVar

from ramctl.parsing.english.dictionary.lexicon import Lexicon
from ramctl.parsing.english.rules.sentence import Findings, Sentence
from ramctl.parsing.rule_table import Rule

Span = tuple[int, int] | None  # from an index to the one after


class Correction(Rule[Callable[[Sentence, int, Lexicon], str | None]]):
    """The word at an index has the tag that `pattern` returns."""

    layer = "correction"


class Exclusion(Rule[Callable[[Sentence, int, Lexicon], Span]]):
    """The words of the span that `pattern` finds at an index give no tags."""

    layer = "exclusion"


Word = TypeVar("Word")


class Naming(Rule[Callable[[Findings, Word], tuple[str, str] | None]], Generic[Word]):
    """A word of a phrase gives the tag and kind that `pattern` returns; empty ones: none."""

    layer = "naming"


class Reading(Rule[Callable[[Findings, int], int | None]]):
    """What `pattern` notes of the word at an index is all; it returns the index after."""

    layer = "reading"
