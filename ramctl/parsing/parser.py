"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 mentions such a parser; the authors have not released theirs.
"""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ramctl.parsing.closed_mode import LabelMapper, lexicon_for
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import BATCH, PosTagger
from ramctl.parsing.english.rules.apply import read_caption
from ramctl.parsing.english.rules.sentence import clean
from ramctl.parsing.parsed_caption import ParsedCaption
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks, ordered_workers, usable_cores

T = TypeVar("T")
Captions = Iterator[tuple[T, list[str]]]
Parsed = Iterator[tuple[T, list[ParsedCaption]]]


class CaptionParser:
    """Captions to tags: every visible thing, place, property and action that they name."""

    def __init__(self, lexicon: Lexicon, mapper: LabelMapper | None = None) -> None:
        self._lexicon, self._mapper = lexicon, mapper

    @classmethod
    def open(cls) -> "CaptionParser":
        """A parser whose tags may be any words: open mode; RunProblem without spaCy's model."""
        PosTagger.shared()
        return cls(Lexicon.shared())

    @classmethod
    def closed(cls, labels: Labels) -> "CaptionParser":
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
            texts = [clean(caption) for caption in batch]
            for text, (words, tags) in zip(texts, PosTagger.shared().tag(texts), strict=True):
                parsed = read_caption(words, tags, self._lexicon)
                if self._mapper is not None:
                    parsed = self._mapper.label_of_whole_text(text) or self._mapper.map(parsed)
                yield parsed


@contextmanager
def _without_torch() -> Iterator[None]:
    """A context in which torch is not found, unless it is imported already.

    spaCy imports it where it is installed, for models with layers in torch, which takes twice as
    long as the rest of spaCy. Ours have none; but a program that calls CaptionParser may have
    others, so only the processes of the command use this.
    """
    modules: Any = sys.modules  # None stands for a module that is not found
    hides_torch = modules.setdefault("torch") is None
    try:
        yield
    finally:
        if hides_torch:
            del modules["torch"]


def _open_parser(labels: Labels | None) -> CaptionParser:
    """The parser of the closed mode for `labels`, of the open mode without.

    The garbage collector then ignores the lexicon and the model: scanning them takes a fifth of a
    second each time.
    """
    with _without_torch():
        PosTagger.shared()  # at once, so that a missing one is reported before any input is read
        parser = CaptionParser.open() if labels is None else CaptionParser.closed(labels)
    gc.freeze()
    return parser


_worker_parser: CaptionParser  # of a worker process


@contextmanager
def parsed_batches(
    labels: Labels | None, jobs: int | None
) -> Iterator[Callable[[Captions[T]], Parsed[T]]]:
    """A function from (anything, captions) pairs to (anything, parsed captions), in order.

    Several jobs read a few pairs ahead and give the same results; None is a job for each core, for
    all pairs but the first. RunProblem when a worker process dies.
    """
    if jobs in (None, 1):
        parser = _open_parser(labels)

        def run_here(pairs: Captions[T]) -> Parsed[T]:
            n_here = None if jobs or usable_cores() == 1 else 1
            for key, captions in islice(pairs, n_here):
                yield key, list(parser.parse(captions))
            with ordered_workers(usable_cores(), _start_worker, labels) as run:
                yield from run(_parse_in_worker, pairs)

        yield run_here
        return
    with ordered_workers(jobs, _start_worker, labels) as run:
        yield lambda pairs: run(_parse_in_worker, pairs)


def _start_worker(labels: Labels | None) -> None:
    global _worker_parser
    _worker_parser = _open_parser(labels)


def _parse_in_worker(captions: list[str]) -> list[ParsedCaption]:
    return list(_worker_parser.parse(captions))
