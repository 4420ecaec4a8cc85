"""The order of the records: each once an epoch, in an order that only seed and epoch decide.

Positions count records, not steps, so that a run can resume with another number of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of a run: the epoch, and how many of its records are done."""

    epoch: int = 0
    done: int = 0


NO_RECORDS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The records of one step on one rank, one array a forward pass, and the position after it.

    In the first step of a window, `ahead` has one record of each shard of the next window.
    """

    epoch: int
    passes: tuple[NDArray[np.int64], ...]
    after: Position
    ahead: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Epoch:
    """The order of the records in an epoch, and its windows of shards."""

    records: NDArray[np.int64]
    starts: NDArray[np.int64]  # where each window begins
    shards: tuple[NDArray[np.int64], ...]  # of each window, by one record a shard


@dataclass(frozen=True, slots=True)
class Sampler:
    """Splits the shuffled records into steps, steps into passes, passes among the ranks.

    A step has `batch` * `accumulation` records a rank; the last step of an epoch has the remaining
    ones, or is dropped with `drop_last`, unless it is the only one. With `window`, the records of
    that many shards are mixed at a time, so that few archives are read at once.
    """

    ids: NDArray[np.int64]  # the records that are trained on
    batch: int
    accumulation: int = 1
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world: int = 1
    shards: NDArray[np.uint32] | None = None  # of each record
    window: int = 0  # 0: all records are mixed

    @property
    def records_a_step(self) -> int:
        """Records of one step on all ranks together."""
        return self.batch * self.accumulation * self.world

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps of one epoch."""
        return self._steps_after(0)

    def steps_until(self, position: Position) -> int:
        """Optimiser steps up to a position."""
        return (position.epoch + 1) * self.steps_an_epoch - self._steps_after(position.done)

    def epoch(self, number: int) -> Epoch:
        random = np.random.default_rng([self.seed, number])
        order = random.permutation(len(self.ids))
        if not self.window or self.shards is None:
            return Epoch(self.ids[order], np.zeros(1, np.int64), (NO_RECORDS,))
        names, first, shard_of = np.unique(self.shards, return_index=True, return_inverse=True)
        windows = random.permutation(len(names)) // self.window
        order = order[np.argsort(windows[shard_of[order]], kind="stable")]
        n_windows = windows.max(initial=0) + 1
        starts = np.searchsorted(windows[shard_of[order]], np.arange(n_windows))
        shards = tuple(self.ids[first[windows == window]] for window in range(n_windows))
        return Epoch(self.ids[order], starts, shards)

    def steps(self, start: Position) -> Iterator[StepPlan]:
        """All steps from a position on, without end."""
        number, done, epoch = start.epoch, start.done, self.epoch(start.epoch)
        while True:
            following, window = None, -1
            for remaining in reversed(range(self._steps_after(done))):
                records, ahead = epoch.records[done : done + self.records_a_step], NO_RECORDS
                before, window = window, int(np.searchsorted(epoch.starts, done, "right")) - 1
                if window != before and window + 1 < len(epoch.shards):
                    ahead = epoch.shards[window + 1]
                elif window != before:
                    following = self.epoch(number + 1)
                    ahead = following.shards[0]
                done += len(records)
                after = Position(number, done) if remaining else Position(number + 1, 0)
                size = self.batch * self.world
                blocks = [records[first : first + size] for first in range(0, len(records), size)]
                # A pass may be empty on some ranks.
                passes = tuple(block[self.rank :: self.world] for block in blocks)
                yield StepPlan(number, passes, after, ahead)
            number, done, epoch = number + 1, 0, following or self.epoch(number + 1)

    def _steps_after(self, done: int) -> int:
        whole, rest = divmod(len(self.ids) - done, self.records_a_step)
        is_dropped = self.drop_last and (done > 0 or whole > 0)
        return whole + (rest > 0 and not is_dropped)
