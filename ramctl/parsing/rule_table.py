"""Tables of rules, for any language.

What order means is the same in all: words are looked at from left to right, at each the rows from
top to bottom, and the first row whose pattern matches acts.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Generic, TypeVar

Pattern = TypeVar("Pattern")
ANYWHERE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rule(Generic[Pattern]):
    """A row: what `pattern` finds at an index, the rule's layer does something to."""

    layer: ClassVar[str]

    name: str
    pattern: Pattern
    fires: str  # a caption in which it does
    spares: str  # one in which it must not
    at: frozenset[str] = ANYWHERE  # the words or the tags at which the pattern is tried


Row = TypeVar("Row", bound="Rule")  # type: ignore[type-arg]


class RuleTable(tuple[Row, ...]):
    """Rows in their order, with those to be tried at a word looked up at once."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows_at: Callable[..., tuple[Row, ...]] = lru_cache(maxsize=50_000)(self._rows_at)

    def _rows_at(self, *keys: str) -> tuple[Row, ...]:
        """The rows for a word and whatever else is known of it: its tag."""
        return tuple(row for row in self if not row.at or any(key in row.at for key in keys))
