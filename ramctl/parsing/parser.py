"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 mentions such a parser; the authors' own was not released.
"""

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

from ramctl.labels import LabelSystem
from ramctl.parsing.captions import ParsedCaption, sentences
from ramctl.parsing.closed_mode import LabelMapper, lexicon_for
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import BATCH, PosTagger
from ramctl.parsing.english.readings import FrequentReadings
from ramctl.parsing.english.rules.apply import read_caption
from ramctl.parsing.english.rules.sentence import clean
from ramctl.records.parallel import chunks, ordered_workers

T = TypeVar("T")
# Parsed texts that are remembered: captions repeat within a data set.
KNOWN_TEXTS = 20_000


class CaptionParser:
    """Captions to tags: every visible thing, place, property and action that they name."""

    def __init__(self, lexicon: Lexicon, mapper: LabelMapper | None = None) -> None:
        self._lexicon, self._mapper = lexicon, mapper
        self._known: OrderedDict[str, ParsedCaption] = OrderedDict()

    @classmethod
    def open(cls) -> "CaptionParser":
        """A parser whose tags may be any words: open mode; RunProblem without spaCy's model."""
        PosTagger.shared()
        return cls(Lexicon.shared())

    @classmethod
    def closed(cls, labels: LabelSystem) -> "CaptionParser":
        """A parser whose tags are the labels of a system: closed mode.

        A plain word list may ask for nouns that are too vague for open mode ("photo").
        """
        lexicon = lexicon_for(labels)
        return cls(lexicon, LabelMapper(labels, lexicon))

    def tags(self, caption: str) -> list[str]:
        """The tags of one caption in order of first mention."""
        return next(self.parse([caption])).tags

    def parse(self, captions: Iterable[str]) -> Iterator[ParsedCaption]:
        """Each caption's tags with kinds and evidence, in order; memory does not grow."""
        for batch in chunks(captions, BATCH):
            new = dict.fromkeys(text for text in batch if text not in self._known)
            parsed = dict(zip(new, self._parse_texts(new), strict=True))
            yield from (parsed.get(text) or self._known[text] for text in batch)
            self._known.update(parsed)
            while len(self._known) > KNOWN_TEXTS:
                self._known.popitem(last=False)

    def _parse_texts(self, texts: Iterable[str]) -> Iterator[ParsedCaption]:
        cleaned = [clean(text) for text in texts]
        if self._mapper is None:
            yield from self._by_rules(cleaned)
            return
        frequent = FrequentReadings.shared(self._lexicon)
        # Most paragraphs have an ambiguous word, most of their sentences have none.
        parts = [sentences(text) for text in cleaned]
        readings = [[frequent.read(part) for part in of_text] for of_text in parts]
        # The tagger is fast on batches only: collect what it must read before yielding anything.
        pairs = zip(chain(*parts), chain(*readings), strict=True)
        rest = self._by_rules([part for part, reading in pairs if reading is None])
        for text, of_text in zip(cleaned, readings, strict=True):
            whole = ParsedCaption.joined([reading or next(rest) for reading in of_text])
            yield self._mapper.label_of_whole_text(text) or self._mapper.map(whole)

    def _by_rules(self, texts: list[str]) -> Iterator[ParsedCaption]:
        # Loaded when it is first asked for: closed mode reads most short captions without it.
        for words, tags in PosTagger.shared().tag(texts) if texts else ():
            yield read_caption(words, tags, self._lexicon)


@contextmanager
def _without_torch() -> Iterator[None]:
    """A time in which torch is not found, unless it is imported already.

    spaCy imports it where it is installed, which takes twice as long as the rest of it, for models
    with layers in torch. Ours have none; but a program that calls CaptionParser may have others, so
    this is for the command's own processes.
    """
    modules: Any = sys.modules  # where None stands for what is not to be found
    hides_torch = modules.setdefault("torch") is None
    try:
        yield
    finally:
        if hides_torch:
            del modules["torch"]


def _open_parser(labels: LabelSystem | None) -> CaptionParser:
    """The parser of the closed mode for `labels`, of the open mode without.

    The garbage collector leaves alone what the process holds by then, lexicon and model: scanning
    it took a fifth of a second each time, half of the closed mode's time on short streams.
    """
    with _without_torch():
        PosTagger.shared()  # at once, so that a missing one is told before any input is read
        parser = CaptionParser.open() if labels is None else CaptionParser.closed(labels)
    gc.freeze()
    return parser


_worker_parser: CaptionParser  # of a worker process


@contextmanager
def parsed_batches(
    labels: LabelSystem | None, jobs: int
) -> Iterator[Callable[[Iterator[tuple[T, list[str]]]], Iterator[tuple[T, list[ParsedCaption]]]]]:
    """A function from (anything, captions) pairs to (anything, parsed captions), in order.

    Several jobs read a few pairs ahead; the results are the same and passed on when they are there.
    RunProblem when a job's process dies.
    """
    if jobs == 1:
        parser = _open_parser(labels)
        yield lambda pairs: ((what, list(parser.parse(captions))) for what, captions in pairs)
        return
    with ordered_workers(jobs, _start_worker, labels) as run:
        yield lambda pairs: run(_parse_in_worker, pairs)


def _start_worker(labels: LabelSystem | None) -> None:
    global _worker_parser
    _worker_parser = _open_parser(labels)


def _parse_in_worker(captions: list[str]) -> list[ParsedCaption]:
    return list(_worker_parser.parse(captions))
