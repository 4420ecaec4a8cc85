"""The taggers of a server, each for all requests that need it."""

import asyncio
import gc
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

from ramctl.engine.runner import ModelPhoto
from ramctl.photos.limits import give_memory_back
from ramctl.records.record import JsonObject, Record
from ramctl.tagging.tagger import Tagger, TagResult

MAX_PHOTOS = 32  # decoded at a time, or in a form; most of these threads wait

Prepared = tuple[Record, ModelPhoto]


class Variant(NamedTuple):
    """A use that needs a tagger of its own."""

    labels: tuple[str, ...] = ()  # to look for; none: the model's labels
    boxes: bool = False
    caption: bool = False
    precision: float | None = None
    embedding: bool = False


class SharedTagger:
    """A tagger for several requests: photos that arrive while it is busy are scored together.

    The model takes batches of one shape, so a photo alone would cost as much as a full batch.
    """

    def __init__(self, tagger: Tagger, decoders: ThreadPoolExecutor) -> None:
        self.tagger = tagger
        self._decoders = decoders
        self._scorers = ThreadPoolExecutor(tagger.runner.side_by_side)
        self._waiting: deque[tuple[Prepared, asyncio.Future[JsonObject]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()  # each scores a batch at a time

    async def tag(self, photo: bytes) -> TagResult:
        """The result of a photo; RecordProblem when it cannot be tagged."""
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(
            self._decoders, self.tagger.prepare_photo, photo, "the photo"
        )
        outcome: asyncio.Future[JsonObject] = loop.create_future()
        self._waiting.append((prepared, outcome))
        if len(self._tasks) < self.tagger.runner.side_by_side:
            self._tasks.add(asyncio.create_task(self._score_waiting()))
        return TagResult.from_record(await outcome)

    async def _score_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                n = min(len(self._waiting), self.tagger.runner.batch)
                taken = [self._waiting.popleft() for _ in range(n)]
                batch = [pair for pair in taken if not pair[1].done()]  # clients may have left
                photos = [prepared for prepared, _ in batch]
                scored = await loop.run_in_executor(self._scorers, self._score, photos)
                for (_, outcome), fields in zip(batch, scored, strict=True):
                    if outcome.done():
                        continue
                    if isinstance(fields, Exception):
                        outcome.set_exception(fields)
                    else:
                        outcome.set_result(fields)
        finally:
            self._tasks.discard(cast(asyncio.Task[None], asyncio.current_task()))

    def _score(self, photos: list[Prepared]) -> Sequence[JsonObject | Exception]:
        """The records of photos; where a photo fails, the others do not."""
        try:
            return self.tagger.work(photos) if photos else []
        except Exception as error:
            if len(photos) == 1:
                return [error]
        return [self._score([photo])[0] for photo in photos]


class LoadedTaggers:
    """The taggers that were used last; each is loaded when first needed, one at a time.

    At most `max_others` are in memory besides the first, including those in use.
    """

    def __init__(self, load: Callable[[Variant], Tagger], first: Tagger, max_others: int) -> None:
        self._load, self._max_others = load, max_others
        self._decoders = ThreadPoolExecutor(MAX_PHOTOS, thread_name_prefix="ramctl-photos")
        self._first = SharedTagger(first, self._decoders)  # for the model's labels; always kept
        self._others: OrderedDict[Variant, SharedTagger] = OrderedDict()
        self._users: Counter[Variant] = Counter()
        self._opening: dict[Variant, asyncio.Task[None]] = {}
        self._one_by_one = asyncio.Lock()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def using(self, variant: Variant) -> AsyncIterator[SharedTagger]:
        """The tagger of a variant; UsageProblem or RunProblem where the model cannot do it."""
        if variant == Variant():
            yield self._first
            return
        self._users[variant] += 1
        try:
            while variant not in self._others:
                # One task for all that wait, who would queue before users of what is loaded. It
                # goes on when its first client has gone.
                if variant not in self._opening:
                    self._opening[variant] = task = asyncio.create_task(self._open(variant))
                    task.add_done_callback(lambda task: self._opening.pop(variant))
                await asyncio.shield(self._opening[variant])
            self._others.move_to_end(variant)
            yield self._others[variant]
        finally:
            self._users[variant] -= 1
            self._released.set()

    async def _open(self, variant: Variant) -> None:
        async with self._one_by_one:
            while self._users[variant] and variant not in self._others:
                unused = [other for other in self._others if not self._users[other]]
                if len(self._others) >= self._max_others and unused:  # the oldest makes room
                    del self._others[unused[0]]
                    gc.collect()
                    give_memory_back()
                if len(self._others) < self._max_others:
                    tagger = await asyncio.to_thread(self._load, variant)
                    self._others[variant] = SharedTagger(tagger, self._decoders)
                else:
                    self._released.clear()
                    await self._released.wait()
