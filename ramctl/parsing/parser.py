"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 mentions such a parser; the authors' own was not released.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ramctl.labels import LabelSystem, normalise
from ramctl.parsing.captions import ParsedCaption, sentences
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.language import Language, open_language
from ramctl.records.parallel import chunks, ordered_workers

T = TypeVar("T")
# Parsed texts that are remembered: captions repeat within a data set.
KNOWN_TEXTS = 20_000
# Texts that a language reads together.
BATCH = 256


class CaptionParser:
    """Captions to tags: every visible thing, place, property and action that they name."""

    def __init__(self, language: Language, mapper: LabelMapper | None = None) -> None:
        self._language = language
        self._mapper = mapper
        self._known: OrderedDict[str, ParsedCaption] = OrderedDict()

    @classmethod
    def open(cls) -> "CaptionParser":
        """A parser whose tags may be any words: open mode."""
        return cls(open_language())

    @classmethod
    def closed(cls, labels: LabelSystem) -> "CaptionParser":
        """A parser whose tags are the labels of a system: closed mode.

        A plain word list may ask for nouns that are too vague for open mode ("photo").
        """
        pack = open_language().for_labels(labels)
        return cls(pack, LabelMapper(labels, pack.vocabulary))

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
        language, mapper = self._language, self._mapper
        cleaned = [language.clean(text) for text in texts]
        if mapper is None:
            yield from language.read(cleaned)
            return
        # Most paragraphs have an ambiguous word, most of their sentences have none.
        parts = [sentences(text) for text in cleaned]
        at_once = [[language.read_at_once(part) for part in own] for own in parts]
        # A tagger is fast on batches only: collect what it must read before anything is given out.
        rest = language.read([
            part
            for own, read in zip(parts, at_once, strict=True)
            for part, done in zip(own, read, strict=True)
            if done is None
        ])  # fmt: skip
        for text, read in zip(cleaned, at_once, strict=True):
            whole = ParsedCaption.joined([done or next(rest) for done in read])
            yield mapper.label_of_whole_text(text) or mapper.map(whole)


def label_kinds(labels: LabelSystem) -> list[str]:
    """The kinds that closed mode gives the labels of a plain word list."""
    vocabulary = open_language().for_labels(labels).vocabulary
    return [vocabulary.kind(normalise(label.tag)) for label in labels]


def _open_parser(labels: LabelSystem | None) -> CaptionParser:
    """The parser of the closed mode for `labels`, of the open mode without.

    The garbage collector leaves alone what the process holds by then, lexicon and model: scanning
    it took a fifth of a second each time, half of the closed mode's time on short streams.
    """
    parser = CaptionParser.open() if labels is None else CaptionParser.closed(labels)
    gc.freeze()
    return parser


_worker_parser: CaptionParser | None = None


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
    if _worker_parser is None:
        raise RuntimeError("the worker has no parser")
    return list(_worker_parser.parse(captions))
