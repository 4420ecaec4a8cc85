"""Photos of several requests are tagged together, and each gets its own outcome."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ramctl.errors import RecordProblem
from ramctl.serving.batcher import Batcher, Batchers, Wanted

MOST = 3


class Tagger:
    """Answers with what it is given; the first turn waits until all have asked."""

    batch, workers = 4, 2
    scorer = SimpleNamespace(concurrent=True)

    def __init__(self):
        self.turns = []
        self.decoded = 0
        self.all_have_asked = threading.Event()

    def decode_photo(self, photo, place):
        self.decoded += 1
        return place, RecordProblem("no", code="too_slow") if photo == b"bad" else photo

    def score(self, places, photos):
        self.all_have_asked.wait(10)
        self.turns.append(len(photos))
        if b"bug" in photos:
            raise ZeroDivisionError
        return [{"tags": [photo], "scores": {}} for photo in photos]


def asked(tagger, photos):
    """What each of several requests at once gets."""

    async def ask():
        with ThreadPoolExecutor(len(photos)) as decoders:
            batcher = Batcher(tagger, decoders)
            tasks = [asyncio.create_task(batcher.tag(photo)) for photo in photos]
            while tagger.decoded < len(photos):
                await asyncio.sleep(0)
            tagger.all_have_asked.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return [getattr(one, "tags", [one])[0] for one in asyncio.run(ask())]


def test_photos_that_come_while_others_are_tagged_share_a_turn_and_bad_ones_take_none():
    tagger = Tagger()
    photos = [str(number).encode() for number in range(20)]
    *found, bad = asked(tagger, [*photos, b"bad"])
    assert (found, bad.code, sum(tagger.turns)) == (photos, "too_slow", len(photos))
    assert max(tagger.turns) == tagger.batch and len(tagger.turns) < len(photos) / 2


def test_a_photo_that_nobody_waits_for_any_more_is_not_tagged():
    async def ask():
        tagger = Tagger()
        with ThreadPoolExecutor(1) as decoders:
            batcher = Batcher(tagger, decoders)

            async def waiting(photo, number):
                task = asyncio.create_task(batcher.tag(photo))
                while batcher._turns is None or len(batcher._waiting) != number:
                    await asyncio.sleep(0)
                return task

            first = await waiting(b"first", 0)  # its turn has begun
            left, last = await waiting(b"left", 1), await waiting(b"last", 2)
            left.cancel()
            tagger.all_have_asked.set()
            assert [(await one).tags for one in (first, last)] == [[b"first"], [b"last"]]
            assert tagger.turns == [1, 1]

    asyncio.run(ask())


def test_a_failure_is_told_to_all_in_its_turn_and_the_next_turn_goes_on():
    async def ask():
        tagger = Tagger()
        tagger.all_have_asked.set()
        with ThreadPoolExecutor(1) as decoders:
            batcher = Batcher(tagger, decoders)
            with pytest.raises(ZeroDivisionError):
                await batcher.tag(b"bug")
            return await batcher.tag(b"good")

    assert asyncio.run(ask()).tags == [b"good"]


def test_few_taggers_are_kept_and_the_first_one_always():
    loaded = []

    def load(wanted):
        loaded.append(wanted)
        return Tagger()

    async def use():
        first = Tagger()
        batchers = Batchers(load, first, MOST)
        for _ in range(2):
            for number in range(MOST + 1):
                async with batchers.using(Wanted((str(number),))):
                    pass
            async with batchers.using(Wanted()) as batcher:
                assert batcher.tagger is first
        async with batchers.using(Wanted((str(MOST),))):
            pass

    asyncio.run(use())
    assert len(loaded) == 2 * (MOST + 1)


def test_those_in_use_count_and_another_one_waits_until_nobody_uses_one():
    alive = []

    async def use():
        batchers = Batchers(lambda wanted: alive.append(wanted) or Tagger(), Tagger(), MOST)
        leave = asyncio.Event()

        async def ask(number):
            async with batchers.using(Wanted((str(number),))):
                await leave.wait()

        tasks = [asyncio.create_task(ask(number)) for number in range(10)]
        while len(alive) < MOST:
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask("late")
        assert len(alive) == MOST
        leave.set()
        await asyncio.gather(*tasks)
        assert len(batchers._others) <= MOST

    asyncio.run(use())
    assert sorted(alive) == [Wanted((str(number),)) for number in range(10)]  # "late" has gone


def test_a_model_that_cannot_do_it_says_so_every_time():
    def load(wanted):
        raise RecordProblem("cannot", code="too_slow")

    async def use():
        batchers = Batchers(load, Tagger(), MOST)
        for _ in range(2):
            with pytest.raises(RecordProblem):
                async with batchers.using(Wanted(boxes=True)):
                    pass

    asyncio.run(use())
