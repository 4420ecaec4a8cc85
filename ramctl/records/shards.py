"""Shards of an input: N processes, or machines, share what all of them can read."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from ramctl.records.record import Item


@dataclass(frozen=True, slots=True)
class Shard:
    """The I-th of N parts of an input, counted from 1: every N-th input."""

    index: int = 1
    number: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"

    @property
    def is_all(self) -> bool:
        """Whether this is the whole input."""
        return self.number == 1

    def of(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items of this part."""
        return islice(items, self.index - 1, None, self.number)


ALL = Shard()
