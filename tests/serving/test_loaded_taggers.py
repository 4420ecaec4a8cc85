"""Photos of several requests are tagged by one tagger, and few taggers are in memory."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from ramctl.errors import RecordProblem
from ramctl.serving.loaded_taggers import LoadedTaggers, SharedTagger, Variant

MAX_OTHERS = 3


class Tagger:
    """Answers with the photo that it is given; a bad one cannot be decoded, or scored."""

    runner = SimpleNamespace(side_by_side=2, batch=4)

    def prepare_photo(self, photo, place):
        if photo == b"bad":
            raise RecordProblem("no", code="too_slow")
        return photo

    def work(self, photos):
        if b"bug" in photos:
            raise ZeroDivisionError
        return [{"tags": [photo], "scores": {}} for photo in photos]


def test_photos_of_several_requests_get_each_their_own_outcome():
    photos = [str(number).encode() for number in range(20)]

    async def ask():
        with ThreadPoolExecutor(4) as decoders:
            shared = SharedTagger(Tagger(), decoders)
            tasks = [shared.tag(photo) for photo in [*photos, b"bad", b"bug", b"good"]]
            return await asyncio.gather(*tasks, return_exceptions=True)

    *found, bad, bug, good = asyncio.run(ask())
    assert [one.tags for one in found] == [[photo] for photo in photos]
    assert (bad.code, type(bug), good.tags) == ("too_slow", ZeroDivisionError, [b"good"])


def test_photos_that_wait_are_scored_together_without_those_of_clients_that_left():
    batches, is_busy = [], threading.Event()

    class Slow(Tagger):
        runner = SimpleNamespace(side_by_side=1, batch=4)

        def work(self, photos):
            batches.append([*photos])
            is_busy.wait(9)
            return super().work(photos)

    async def ask():
        with ThreadPoolExecutor(1) as decoders:  # in order
            shared = SharedTagger(Slow(), decoders)
            first = asyncio.create_task(shared.tag(b"0"))
            async with asyncio.timeout(30):
                while not batches:
                    await asyncio.sleep(0.001)
                others = [asyncio.create_task(shared.tag(b"%d" % n)) for n in range(1, 8)]
                while len(shared._waiting) < 7:
                    await asyncio.sleep(0.001)
            for leaves in (first, others[2]):
                leaves.cancel()
            is_busy.set()
            return await asyncio.gather(*others, return_exceptions=True)

    found = asyncio.run(ask())
    assert batches == [[b"0"], [b"1", b"2", b"4"], [b"5", b"6", b"7"]]
    assert [one.tags for n, one in enumerate(found, 1) if n != 3] == [
        [b"%d" % n] for n in (1, 2, 4, 5, 6, 7)
    ]
    assert isinstance(found[2], asyncio.CancelledError)


def test_few_taggers_are_kept_and_the_first_one_always():
    loaded = []

    def load(variant):
        loaded.append(variant)
        return Tagger()

    async def use():
        first = Tagger()
        taggers = LoadedTaggers(load, first, MAX_OTHERS)
        for _ in range(2):
            for number in range(MAX_OTHERS + 1):
                async with taggers.using(Variant((str(number),))):
                    pass
            async with taggers.using(Variant()) as shared:
                assert shared.tagger is first
        async with taggers.using(Variant((str(MAX_OTHERS),))):
            pass

    asyncio.run(use())
    assert len(loaded) == 2 * (MAX_OTHERS + 1)


def test_those_in_use_count_and_another_one_waits_until_nobody_uses_one():
    alive = []

    async def use():
        taggers = LoadedTaggers(
            lambda variant: alive.append(variant) or Tagger(), Tagger(), MAX_OTHERS
        )
        leave = asyncio.Event()

        async def ask(number):
            async with taggers.using(Variant((str(number),))):
                await leave.wait()

        tasks = [asyncio.create_task(ask(number)) for number in range(10)]
        while len(alive) < MAX_OTHERS:
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ask("late")
        assert len(alive) == MAX_OTHERS
        leave.set()
        await asyncio.gather(*tasks)
        assert len(taggers._others) <= MAX_OTHERS

    asyncio.run(use())
    assert sorted(alive) == [Variant((str(number),)) for number in range(10)]  # "late" has gone


def test_many_requests_of_more_lists_than_are_kept_are_all_answered():
    """Requests of what is loaded do not wait behind one that waits for room."""

    async def use():
        taggers = LoadedTaggers(lambda variant: Tagger(), Tagger(), MAX_OTHERS)

        async def ask(number):
            async with taggers.using(Variant((str(number),))) as shared:
                return (await shared.tag(b"%d" % number)).tags

        async with asyncio.timeout(30):
            return await asyncio.gather(*(ask(n % (MAX_OTHERS + 1)) for n in range(24)))

    assert asyncio.run(use()) == [[b"%d" % (n % (MAX_OTHERS + 1))] for n in range(24)]


def test_a_model_that_cannot_do_it_says_so_every_time():
    def load(variant):
        raise RecordProblem("cannot", code="too_slow")

    async def use():
        taggers = LoadedTaggers(load, Tagger(), MAX_OTHERS)
        for _ in range(2):
            with pytest.raises(RecordProblem):
                async with taggers.using(Variant(boxes=True)):
                    pass

    asyncio.run(use())
