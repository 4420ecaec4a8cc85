"""The order of records: every one once an epoch, from any step, over any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramctl.training.data import Sampler


def steps_of(sampler: Sampler, start: int, end: int) -> list[list[int]]:
    """The records of each step, of all its passes."""
    steps = []
    for step in range(start, end):
        keys = list(sampler.keys(step, step + 1))
        assert len(keys) == sampler.n_passes(step)
        assert {epoch for epoch, _ in keys} == {step // sampler.steps_an_epoch}
        steps.append([i for _, ids in keys for i in ids.tolist()])
    return steps


def epoch_of(sampler: Sampler, number: int = 0) -> list[list[int]]:
    n = sampler.steps_an_epoch
    return steps_of(sampler, number * n, (number + 1) * n)


def test_ranks_share_out_what_one_process_takes_in_a_larger_batch():
    ids = np.arange(37)
    one = epoch_of(Sampler(ids, 8, seed=3))
    two = [epoch_of(Sampler(ids, 4, seed=3, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(step) for step in one]


def test_a_resumed_run_continues_in_the_same_order():
    sampler = Sampler(np.arange(23), 4, accumulation=2, seed=1)
    whole, rest = list(sampler.keys(0, 9)), list(sampler.keys(4, 9))
    for before, after in zip(whole[-len(rest) :], rest, strict=True):
        assert before[0] == after[0] and np.array_equal(before[1], after[1])


def test_epochs_are_shuffled_differently_and_by_seed():
    first, second = (epoch_of(Sampler(np.arange(50), 50, seed=1), n) for n in (0, 1))
    assert first != second
    (passes,) = epoch_of(Sampler(np.arange(50), 10, 5, seed=1), 1)
    assert [passes] == second
    assert first != epoch_of(Sampler(np.arange(50), 50, seed=2))


@pytest.mark.parametrize("n", [3, 8, 11])
def test_drop_last_drops_a_short_step_unless_it_is_the_only_one(n):
    steps = epoch_of(Sampler(np.arange(n), 8, drop_last=True))
    assert [len(step) for step in steps] == [min(n, 8)]


@given(
    n=st.integers(1, 60), batch=st.integers(1, 9), passes=st.integers(1, 3),
    world=st.integers(1, 4), seed=st.integers(0, 5), epoch=st.integers(0, 2),
    drop_last=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_each_record_comes_once_an_epoch_over_all_ranks(
    n, batch, passes, world, seed, epoch, drop_last
):
    ids = np.arange(100, 100 + n)
    ranks = [Sampler(ids, batch, passes, seed, drop_last, rank, world) for rank in range(world)]
    taken = [i for sampler in ranks for step in epoch_of(sampler, epoch) for i in step]
    assert len(taken) == len(set(taken))
    if not drop_last:
        assert sorted(taken) == ids.tolist()
