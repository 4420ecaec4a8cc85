"""The order of the records: each once an epoch, in an order that only seed and epoch decide."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a run: the epoch, and how many of its records are done."""

    epoch: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The records of one step on one rank, one array a forward pass, and the position after it."""

    epoch: int
    passes: tuple[NDArray[np.int64], ...]
    after: Position


@dataclass(frozen=True, slots=True)
class Sampler:
    """Splits the shuffled records into steps, steps into passes, passes among the ranks.

    A step has `batch` * `accumulation` records a rank; the last step of an epoch has the remaining
    ones, or is dropped with `drop_last`, unless it is the only one.
    """

    ids: NDArray[np.int64]  # the records that are trained on
    batch: int
    accumulation: int = 1
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world: int = 1

    @property
    def records_a_step(self) -> int:
        """Records of one step on all ranks together."""
        return self.batch * self.accumulation * self.world

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return self._steps_after(0)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """The order of the records in an epoch."""
        order = np.random.default_rng([self.seed, number]).permutation(len(self.ids))
        return self.ids[order]

    def steps(self, start: Position) -> Iterator[StepPlan]:
        """All steps from a position on, without end."""
        number, done = start.epoch, start.done
        while True:
            epoch = self.epoch(number)
            for remaining in reversed(range(self._steps_after(done))):
                records = epoch[done : done + self.records_a_step]
                done += len(records)
                after = Position(number, done) if remaining else Position(number + 1, 0)
                size = self.batch * self.world
                blocks = [records[first : first + size] for first in range(0, len(records), size)]
                # A pass may be empty on some ranks.
                passes = tuple(block[self.rank :: self.world] for block in blocks)
                yield StepPlan(number, passes, after)
            number, done = number + 1, 0

    def _steps_after(self, done: int) -> int:
        whole, rest = divmod(len(self.ids) - done, self.records_a_step)
        is_dropped = self.drop_last and (done > 0 or whole > 0)
        return whole + (rest > 0 and not is_dropped)
