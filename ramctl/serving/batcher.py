"""Photos of several requests, tagged together."""

import asyncio
import gc
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple

from ramctl.errors import RecordProblem
from ramctl.photos.limits import give_memory_back
from ramctl.records.parallel import chunks
from ramctl.records.record import Record
from ramctl.tagging.scorers import Decoded
from ramctl.tagging.tagger import Tagger, TagResult

MOST_PHOTOS = 32  # that are decoded at a time, or in a form; most of these threads wait, too


class Wanted(NamedTuple):
    """What a tagger is loaded for."""

    words: tuple[str, ...] = ()  # to look for; none: the model's labels
    boxes: bool = False
    caption: bool = False


class _Waiting(NamedTuple):
    """A decoded photo whose turn will come."""

    record: Record
    decoded: Decoded
    outcome: asyncio.Future[TagResult | RecordProblem]


class Batcher:
    """One tagger for all who ask: while it is at work, the photos for its next turn gather."""

    def __init__(self, tagger: Tagger, decoders: ThreadPoolExecutor) -> None:
        self.tagger = tagger
        self._decoders = decoders
        self._most = tagger.batch * (tagger.workers if tagger.scorer.concurrent else 1)
        self._waiting: deque[_Waiting] = deque()
        self._turns: asyncio.Task[None] | None = None

    async def tag(self, photo: bytes) -> TagResult:
        """The result of a photo; RecordProblem when it cannot be tagged."""
        loop = asyncio.get_running_loop()
        record, decoded = await loop.run_in_executor(
            self._decoders, self.tagger.decode_photo, photo, "the photo"
        )
        if isinstance(decoded, RecordProblem):
            raise decoded
        waiting = _Waiting(record, decoded, loop.create_future())
        self._waiting.append(waiting)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())
        found = await waiting.outcome
        if isinstance(found, RecordProblem):
            raise found
        return found

    async def _take_turns(self) -> None:
        try:
            while self._waiting:
                turn = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
                turn = [one for one in turn if not one.outcome.cancelled()]  # who asked is there
                await asyncio.gather(*map(self._score, chunks(turn, self.tagger.batch)))
        finally:
            self._turns = None

    async def _score(self, photos: Sequence[_Waiting]) -> None:
        records, decoded = [one.record for one in photos], [one.decoded for one in photos]
        try:
            found = await asyncio.to_thread(self.tagger.score, records, decoded)
        except Exception as error:
            for one in photos:
                if not one.outcome.done():
                    one.outcome.set_exception(error)
            return
        for one, fields in zip(photos, found, strict=True):
            if not one.outcome.done():
                one.outcome.set_result(
                    fields if isinstance(fields, RecordProblem) else TagResult.of(fields)
                )


class Batchers:
    """The taggers that were asked for last, loaded when they are, one after the other.

    Beside the first at most `most` of them are in memory, those in use included.
    """

    def __init__(self, load: Callable[[Wanted], Tagger], first: Tagger, most: int) -> None:
        self._load, self._most = load, most
        self._decoders = ThreadPoolExecutor(MOST_PHOTOS, thread_name_prefix="ramctl-photos")
        self._first = Batcher(first, self._decoders)  # for the model's labels: never given up
        self._others: OrderedDict[Wanted, Batcher] = OrderedDict()
        self._users: Counter[Wanted] = Counter()
        self._one_by_one = asyncio.Lock()
        self._left = asyncio.Event()

    @asynccontextmanager
    async def using(self, wanted: Wanted) -> AsyncIterator[Batcher]:
        """The one for what is wanted; UsageProblem or RunProblem where the model cannot do it."""
        if wanted == Wanted():
            yield self._first
            return
        self._users[wanted] += 1
        try:
            if wanted not in self._others:
                # It goes on where who asked has gone: others may wait for it, or ask again.
                await asyncio.shield(asyncio.create_task(self._open(wanted)))
            self._others.move_to_end(wanted)
            yield self._others[wanted]
        finally:
            self._users[wanted] -= 1
            self._left.set()

    async def _open(self, wanted: Wanted) -> None:
        async with self._one_by_one:
            while self._users[wanted] and wanted not in self._others:
                unused = [other for other in self._others if not self._users[other]]
                if len(self._others) >= self._most and unused:  # the oldest makes room
                    del self._others[unused[0]]
                    gc.collect()
                    give_memory_back()
                if len(self._others) < self._most:
                    tagger = await asyncio.to_thread(self._load, wanted)
                    self._others[wanted] = Batcher(tagger, self._decoders)
                else:
                    self._left.clear()
                    await self._left.wait()
