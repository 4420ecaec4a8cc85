"""Photos of several requests are tagged together, and each gets its own outcome."""

import asyncio
import threading

import pytest

from ramctl.errors import RecordProblem
from ramctl.serving.batcher import MOST_TAGGERS, Batcher, Batchers, Wanted


class Tagger:
    """Answers with what it is given; the first turn waits until all have asked."""

    batch, workers = 4, 2

    def __init__(self):
        self.turns = []
        self.all_have_asked = threading.Event()

    def outcomes(self, photos):
        self.all_have_asked.wait(10)
        contents = [photo.read() for photo in photos]
        self.turns.append(len(contents))
        for content in contents:
            if content == b"bug":
                raise ZeroDivisionError
            yield RecordProblem("no", code="too_slow") if content == b"bad" else content


def asked(tagger, photos):
    """What each of several requests at once gets."""

    async def ask():
        batcher = Batcher(tagger)
        tasks = [asyncio.create_task(batcher.tag(photo)) for photo in photos]
        await asyncio.sleep(0.05)
        tagger.all_have_asked.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(ask())


def test_photos_that_come_while_others_are_tagged_share_a_turn():
    tagger = Tagger()
    photos = [str(number).encode() for number in range(20)]
    assert asked(tagger, photos) == photos
    assert tagger.turns == [8, 8, 4]  # as many as batch and workers take


def test_a_bad_photo_is_nobody_elses_problem():
    good, bad, other = asked(Tagger(), [b"good", b"bad", b"other"])
    assert (good, other) == (b"good", b"other")
    assert isinstance(bad, RecordProblem)


def test_a_failure_is_told_to_all_in_its_turn_and_the_next_turn_goes_on():
    tagger = Tagger()
    found = asked(tagger, [b"bug", *[b"good"] * 7, b"later"])
    assert [type(one) for one in found] == [ZeroDivisionError] * 8 + [bytes]


def test_few_taggers_are_kept_and_the_first_one_always():
    loaded = []

    def load(wanted):
        loaded.append(wanted)
        return Tagger()

    async def use():
        first = Tagger()
        batchers = Batchers(load, first)
        for _ in range(2):
            for number in range(MOST_TAGGERS):
                await batchers.get(Wanted((str(number),)))
            assert (await batchers.get(Wanted())).tagger is first
        await batchers.get(Wanted((str(MOST_TAGGERS - 1),)))

    asyncio.run(use())
    assert len(loaded) == 2 * MOST_TAGGERS


def test_a_model_that_cannot_do_it_says_so_every_time():
    def load(wanted):
        raise RecordProblem("cannot", code="too_slow")

    async def use():
        batchers = Batchers(load, Tagger())
        for _ in range(2):
            with pytest.raises(RecordProblem):
                await batchers.get(Wanted(boxes=True))

    asyncio.run(use())
