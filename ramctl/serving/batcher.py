"""Photos of several requests, tagged together."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

from ramctl.errors import RecordProblem
from ramctl.tagging.tag_result import TagResult
from ramctl.tagging.tagger import Tagger

MOST_TAGGERS = 4  # in memory: each has its own copy of the model


class Wanted(NamedTuple):
    """What a tagger is loaded for."""

    words: tuple[str, ...] = ()  # to look for; none: the model's labels
    boxes: bool = False
    caption: bool = False


class _Upload(BytesIO):
    """A photo's file, by the name that messages give it."""

    name = "the photo"


class Batcher:
    """One tagger for all who ask: while it is at work, the photos for its next turn gather."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self._most = tagger.batch * tagger.workers
        self._waiting: deque[tuple[bytes, asyncio.Future[TagResult | RecordProblem]]] = deque()
        self._turns: asyncio.Task[None] | None = None

    async def tag(self, photo: bytes) -> TagResult:
        """The result of a photo; RecordProblem when it cannot be tagged."""
        outcome: asyncio.Future[TagResult | RecordProblem]
        outcome = asyncio.get_running_loop().create_future()
        self._waiting.append((photo, outcome))
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())
        found = await outcome
        if isinstance(found, RecordProblem):
            raise found
        return found

    async def _take_turns(self) -> None:
        try:
            while self._waiting:
                number = min(len(self._waiting), self._most)
                turn = [self._waiting.popleft() for _ in range(number)]
                turn = [one for one in turn if not one[1].cancelled()]  # who asked is still there
                await self._take_turn(turn)
        finally:
            self._turns = None

    async def _take_turn(
        self, turn: list[tuple[bytes, asyncio.Future[TagResult | RecordProblem]]]
    ) -> None:
        photos = [_Upload(photo) for photo, _ in turn]
        try:
            found = await asyncio.to_thread(lambda: list(self.tagger.outcomes(photos)))
        except Exception as error:
            for _, outcome in turn:
                if not outcome.done():
                    outcome.set_exception(error)
            return
        for (_, outcome), one in zip(turn, found, strict=True):
            if not outcome.done():
                outcome.set_result(one)


class Batchers:
    """The taggers that were asked for last, loaded when they are."""

    def __init__(self, load: Callable[[Wanted], Tagger], first: Tagger) -> None:
        self._load = load
        self._first = Batcher(first)  # for the model's labels: never given up
        self._others: OrderedDict[Wanted, asyncio.Task[Batcher]] = OrderedDict()

    async def get(self, wanted: Wanted) -> Batcher:
        """The one for what is wanted; UsageProblem or RunProblem where the model cannot do it."""
        if wanted == Wanted():
            return self._first
        opening = self._others.get(wanted)
        if opening is None:
            opening = self._others[wanted] = asyncio.create_task(self._open(wanted))
        self._others.move_to_end(wanted)
        if len(self._others) >= MOST_TAGGERS:
            self._others.popitem(last=False)
        try:
            return await asyncio.shield(opening)  # others may wait for it
        except Exception:
            if self._others.get(wanted) is opening:
                del self._others[wanted]
            raise

    async def _open(self, wanted: Wanted) -> Batcher:
        return Batcher(await asyncio.to_thread(self._load, wanted))
