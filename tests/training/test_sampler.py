"""The order of records: every one once an epoch, from any position, over any number of ranks."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramctl.training.data.sampler import Position, Sampler

START = Position()


def epoch_of(sampler: Sampler, start: Position = START) -> list[list[int]]:
    """The records of each step until the epoch of `start` ends."""
    steps = []
    for plan in sampler.steps(start):
        steps.append(np.concatenate([*plan.passes, np.zeros(0, np.int64)]).tolist())
        if plan.after.epoch > start.epoch:
            return steps
    raise AssertionError("the sampler ended")


def test_ranks_share_out_what_one_process_takes_in_a_larger_batch():
    ids = np.arange(37)
    one = epoch_of(Sampler(ids, 8, seed=3))
    two = [epoch_of(Sampler(ids, 4, seed=3, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(step) for step in one]


def test_a_resumed_position_continues_the_same_order():
    sampler = Sampler(np.arange(23), 4, accumulation=2, seed=1)
    plans = list(islice(sampler.steps(Position()), 9))
    again = list(islice(sampler.steps(plans[3].after), 5))
    for before, after in zip(plans[4:], again, strict=True):
        assert np.array_equal(np.concatenate(before.passes), np.concatenate(after.passes))
        assert before.after == after.after


def test_epochs_are_shuffled_differently_and_by_seed():
    sampler = Sampler(np.arange(50), 5, seed=1)
    first, second = sampler.epoch(0), sampler.epoch(1)
    assert not np.array_equal(first, second)
    assert np.array_equal(second, Sampler(np.arange(50), 7, seed=1).epoch(1))
    assert not np.array_equal(first, Sampler(np.arange(50), 5, seed=2).epoch(0))


@pytest.mark.parametrize("n", [3, 8, 11])
def test_drop_last_drops_a_short_step_unless_it_is_the_only_one(n):
    steps = epoch_of(Sampler(np.arange(n), 8, drop_last=True))
    assert [len(step) for step in steps] == [min(n, 8)]


@given(
    n=st.integers(1, 60), batch=st.integers(1, 9), passes=st.integers(1, 3),
    world=st.integers(1, 4), seed=st.integers(0, 5), done=st.integers(0, 12),
    drop_last=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_each_record_comes_once_an_epoch_over_all_ranks(
    n, batch, passes, world, seed, done, drop_last
):
    ids = np.arange(100, 100 + n)
    ranks = [Sampler(ids, batch, passes, seed, drop_last, rank, world) for rank in range(world)]
    position = [*islice(ranks[0].steps(START), done)][-1].after if done else START
    start = Position(position.epoch)
    steps = [epoch_of(sampler, start) for sampler in ranks]
    assert {len(of_rank) for of_rank in steps} == {ranks[0].steps_an_epoch}
    taken = [i for of_rank in steps for step in of_rank for i in step]
    assert len(taken) == len(set(taken))
    if not drop_last:
        assert sorted(taken) == ids.tolist()
    rest = [i for sampler in ranks for step in epoch_of(sampler, position) for i in step]
    assert set(rest) <= set(taken) and len(rest) == len(taken) - position.done
