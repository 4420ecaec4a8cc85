"""The order of records: every one once an epoch, from any position, over any number of ranks."""

from itertools import islice, takewhile

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
    first, second = sampler.epoch(0).records, sampler.epoch(1).records
    assert not np.array_equal(first, second)
    assert np.array_equal(second, Sampler(np.arange(50), 7, seed=1).epoch(1).records)
    assert not np.array_equal(first, Sampler(np.arange(50), 5, seed=2).epoch(0).records)


@pytest.mark.parametrize("n", [3, 8, 11])
def test_drop_last_drops_a_short_step_unless_it_is_the_only_one(n):
    steps = epoch_of(Sampler(np.arange(n), 8, drop_last=True))
    assert [len(step) for step in steps] == [min(n, 8)]


@given(
    n=st.integers(1, 60), batch=st.integers(1, 9), passes=st.integers(1, 3),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)), seed=st.integers(0, 5),
    done=st.integers(0, 12), drop_last=st.booleans(),
)  # fmt: skip
@settings(max_examples=160, deadline=None)
def test_each_record_comes_once_an_epoch_over_all_ranks_at_another_number_of_them_too(
    n, batch, passes, worlds, seed, done, drop_last
):
    ids = np.arange(100, 100 + n)

    def ranks(world: int) -> list[Sampler]:
        return [Sampler(ids, batch, passes, seed, drop_last, rank, world) for rank in range(world)]

    first = [list(islice(sampler.steps(START), done)) for sampler in ranks(worlds[0])]
    position = first[0][-1].after if done else START
    seen = [i for plans in first for plan in plans if plan.epoch == position.epoch
            for i in np.concatenate(plan.passes).tolist()]  # fmt: skip
    later = ranks(worlds[1])
    rest = [
        list(takewhile(lambda plan: plan.epoch == position.epoch, islice(s.steps(position), n + 1)))
        for s in later
    ]
    taken = [*seen, *(i for plans in rest for plan in plans for i in np.concatenate(plan.passes))]
    assert len(taken) == len(set(taken))
    if not drop_last:
        assert sorted(taken) == ids.tolist()
    left = (position.epoch + 1) * later[0].steps_an_epoch - later[0].steps_until(position)
    assert {len(plans) for plans in rest} == {left}
    if not done:
        assert left == later[0].steps_an_epoch


def test_shards_are_mixed_a_few_at_a_time_and_all_in_an_epoch():
    shards = np.repeat(np.arange(10, dtype=np.uint32) * 7, 30)  # ten shards of thirty records
    ids = np.arange(1000, 1300)
    mixed = np.random.default_rng(0).permutation(300)  # records of a shard need not be neighbours
    sampler = Sampler(ids[mixed], 8, seed=3, shards=shards[mixed], window=4)
    of_record = dict(zip(ids[mixed].tolist(), shards[mixed].tolist(), strict=True))
    for epoch in (0, 1):
        order = sampler.epoch(epoch).records.tolist()
        assert sorted(order) == ids.tolist()
        windows = [{of_record[i] for i in order[at : at + 120]} for at in (0, 120, 240)]
        assert list(map(len, windows)) == [4, 4, 2] and len(set.union(*windows)) == 10
        first = [of_record[i] for i in order[:120]]
        assert first != sorted(first)  # mixed within
    assert sampler.epoch(0).records.tolist() != sampler.epoch(1).records.tolist()
    again = Sampler(ids[mixed], 5, seed=3, rank=1, world=2, shards=shards[mixed], window=4)
    assert again.epoch(1).records.tolist() == sampler.epoch(1).records.tolist()


def test_the_first_step_of_a_window_names_the_shards_of_the_next():
    ids, shards = np.arange(100, 200), np.repeat(np.arange(10), 10).astype(np.uint32)
    sampler = Sampler(ids, 10, seed=3, shards=shards, window=4)
    steps = list(islice(sampler.steps(Position()), 20))
    used = [{int(shards[i - 100]) for i in plan.passes[0]} for plan in steps]
    ahead = [{int(shards[i - 100]) for i in plan.ahead} for plan in steps]
    # Windows of 40, 40 and 20 records in each of the two epochs.
    starts = {0: 4, 4: 8, 8: 10, 10: 14, 14: 18, 18: 20}
    assert [n for n, names in enumerate(ahead) if names] == list(starts)
    for first, after in list(starts.items())[:-1]:
        assert ahead[first] == set.union(*used[after : after + (4 if after % 10 < 8 else 2)])
    (resumed,) = islice(sampler.steps(steps[4].after), 1)
    assert resumed.ahead.tolist() == steps[4].ahead.tolist()
    assert not any(len(plan.ahead) for plan in islice(Sampler(ids, 10).steps(Position()), 20))
