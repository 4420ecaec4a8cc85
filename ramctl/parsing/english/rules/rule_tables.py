"""Tables of rules: at each word, from left to right, the first row that matches is applied."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.rules.sentence import Findings, Sentence

Pattern = TypeVar("Pattern")
Row = TypeVar("Row", bound="Rule")  # type: ignore[type-arg]


@dataclass(frozen=True)
class Rule(Generic[Pattern]):
    """A row of a table; each kind, `Correction` to `Naming`, defines what its pattern returns."""

    name: str
    pattern: Pattern
    fires: str  # a caption in which it does
    spares: str  # one in which it must not
    at: frozenset[str] | None = None  # the words or tags at which it is tried; None: at all


class RuleTable(tuple[Row, ...]):
    """Rows in their order, with those to be tried at a word looked up at once."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows_at: Callable[..., tuple[Row, ...]] = lru_cache(maxsize=50_000)(self._rows_at)

    def _rows_at(self, *keys: str) -> tuple[Row, ...]:
        """The rows for a word and whatever else is known of it: its tag."""
        return tuple(row for row in self if row.at is None or not row.at.isdisjoint(keys))


# The word at an index has the tag that the pattern returns.
Correction = Rule[Callable[[Sentence, int, Lexicon], str | None]]

Span = tuple[int, int] | None  # from an index to the one after
# The words of the span that the pattern finds at an index give no tags.
Exclusion = Rule[Callable[[Sentence, int, Lexicon], Span]]

# The pattern adds the tags of the word at an index; it returns the index after.
Reading = Rule[Callable[[Findings, int], int | None]]


def read_word(rules: RuleTable[Reading], findings: Findings, i: int) -> int:
    """Add the tags of the first row that matches at an index; returns the index after it."""
    sentence = findings.sentence
    for rule in rules.rows_at(sentence.words[i], sentence.tags[i]):
        end = rule.pattern(findings, i)
        if end is not None:
            findings.read.add(rule.name)
            return end
    return i + 1
