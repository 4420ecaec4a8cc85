"""What a row of a rule table is.

The tables: `exclusions.RULES` (layer "exclusion": words that give no tags) and `corrections.RULES`
(layer "correction": tags of the tagger that are wrong in captions). In both, what order means is
the same: words are looked at from left to right, at each the rows from top to bottom, and the first
row whose pattern matches acts. Corrections come before exclusions, which rely on them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from ramctl.parsing.dictionary.lexicon import Lexicon
from ramctl.parsing.rules.sentence import Sentence

ANYWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Exclusion:
    """The words of the span that `pattern` finds at an index give no tags."""

    name: str
    pattern: Callable[[Sentence, int, Lexicon], tuple[int, int] | None]
    fires: str  # a caption in which it does
    spares: str  # one in which it must not
    at: frozenset[str] = ANYWHERE  # the words or the tags at which the pattern is tried


@dataclass(frozen=True, slots=True)
class Correction:
    """The word at an index has the tag that `pattern` returns."""

    name: str
    pattern: Callable[[Sentence, int, Lexicon], str | None]
    fires: str
    spares: str
    at: frozenset[str] = ANYWHERE


Row = TypeVar("Row", Exclusion, Correction)


class RuleTable(tuple[Row, ...]):
    """Rows in their order, with those to be tried at a word looked up at once."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows_at: Callable[[str, str], tuple[Row, ...]]
        self.rows_at = lru_cache(maxsize=50_000)(self._rows_at)

    def _rows_at(self, word: str, tag: str) -> tuple[Row, ...]:
        return tuple(row for row in self if not row.at or word in row.at or tag in row.at)
