"""Shards of an input: N processes, or machines, share what all of them can read.

A shard is a consecutive run of positions, so that the outputs of all shards, one after the other,
are the output of one run, and so that each process reads photos and archives that lie together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.inputs import open_input
from ramctl.records.parquet import SUFFIX, opened
from ramctl.records.pipes import STDIN, is_pipe
from ramctl.records.record import Item, Unread


@dataclass(frozen=True, slots=True)
class Shard:
    """The I-th of N parts of an input, counted from 1."""

    index: int = 1
    number: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"

    @property
    def is_all(self) -> bool:
        """Whether this is the whole input."""
        return self.number == 1

    def positions(self, total: int) -> range:
        """Its positions among `total` inputs; the first shard is empty only if all are."""
        start, stop = (-(-total * end // self.number) for end in (self.index - 1, self.index))
        return range(start, stop)


ALL = Shard()


def shard_of(
    shard: Shard, names: Sequence[str], read: Callable[[], Iterator[Unread]]
) -> tuple[Iterator[Item], dict[str, str]]:
    """The items of one shard of the inputs, and its part of the fingerprint for `--resume`.

    `read` reads the inputs of these names; it is called twice, first to count them. UsageProblem
    for an input that can be read only once; RunProblem, at the end, if there are fewer by then.
    """
    if shard.is_all:
        return (make() for make in read()), {}
    twice = "--shard reads inputs twice, to count them"
    for name in names:
        if name != STDIN and is_pipe(name):
            raise UsageProblem(f"{twice}: {name} is not a file")
    with open_input(STDIN) if STDIN in names else nullcontext() as stream:
        if stream and not stream.seekable():
            raise UsageProblem(f"{twice}: name a file, or redirect one (< FILE)")
        start = stream.tell() if stream else 0
        total = sum(1 for _ in read())
        if stream:
            stream.seek(start)
    return _items(read(), shard.positions(total)), {"shard": f"{shard} of {total} inputs"}


def row_counter(shard: Shard, names: Sequence[str]) -> Callable[[], int] | None:
    """A function that counts the inputs of a shard of Parquet files; None for other inputs."""
    if not all(name.endswith(SUFFIX) for name in names):
        return None
    return lambda: len(shard.positions(sum(opened(name).metadata.num_rows for name in names)))


def _items(unread: Iterator[Unread], positions: range) -> Iterator[Item]:
    n_missing = len(positions)
    for make in islice(unread, positions.start, positions.stop):
        yield make()
        n_missing -= 1
    if n_missing:
        raise RunProblem(f"{n_missing} of the inputs have gone since they were counted")
