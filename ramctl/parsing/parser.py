"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 mentions such a parser; the authors' own was not released.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ramctl.inference.batches import chunks
from ramctl.labels import LabelSystem, normalise
from ramctl.parsing.closed_mode import FrequentReadings, LabelMapper
from ramctl.parsing.dictionary.lexicon import Lexicon
from ramctl.parsing.pos_tagger import BATCH, PosTagger
from ramctl.parsing.rules.apply import apply_rules, tag_of_whole_text
from ramctl.parsing.rules.sentence import ParsedCaption, clean
from ramctl.records.workers import ordered_workers

T = TypeVar("T")
# Parsed texts that are remembered: captions repeat within a data set.
KNOWN_TEXTS = 20_000


class CaptionParser:
    """Captions to tags: every visible thing, place, property and action that they name."""

    def __init__(
        self,
        lexicon: Lexicon,
        tagger: PosTagger,
        mapper: LabelMapper | None = None,
        frequent: FrequentReadings | None = None,
    ) -> None:
        self.lexicon = lexicon
        self.tagger = tagger
        self._mapper = mapper
        self._frequent = frequent
        self._known: OrderedDict[str, ParsedCaption] = OrderedDict()

    @classmethod
    def open(cls) -> "CaptionParser":
        """A parser whose tags may be any words: open mode."""
        return cls(Lexicon.shared(), PosTagger.shared())

    @classmethod
    def closed(cls, labels: LabelSystem) -> "CaptionParser":
        """A parser whose tags are the labels of a system: closed mode.

        A plain word list may ask for nouns that are too vague for open mode ("photo").
        """
        lexicon, frequent = Lexicon.shared(), FrequentReadings.shared()
        if vague := _vague_nouns(labels, lexicon):
            lexicon, frequent = Lexicon(lexicon.wordnet, vague), frequent.without(vague)
        return cls(lexicon, PosTagger.shared(), LabelMapper(labels, lexicon), frequent)

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
        read = [self._frequent.read(text) if self._frequent else None for text in cleaned]
        # spaCy is fast on batches only: collect what it must read before anything is given out.
        ambiguous = [text for text, done in zip(cleaned, read, strict=True) if done is None]
        tagged = self.tagger.tag(ambiguous)
        for text, done in zip(cleaned, read, strict=True):
            parsed = done or self._parse_tagged(*next(tagged))
            if self._mapper is not None:
                parsed = self._mapper.label_of_whole_text(text) or self._mapper.map(parsed)
            yield parsed

    def _parse_tagged(self, written: list[str], tags: list[str]) -> ParsedCaption:
        findings = apply_rules(written, tags, self.lexicon)
        if alone := tag_of_whole_text(findings.sentence, self.lexicon):
            return ParsedCaption((alone,))
        return ParsedCaption.of(findings.found, findings.phrases)


def label_kinds(labels: LabelSystem) -> list[str]:
    """The kinds that closed mode gives the labels of a plain word list."""
    lexicon = Lexicon.shared()
    lexicon = Lexicon(lexicon.wordnet, _vague_nouns(labels, lexicon))
    return [lexicon.kind(normalise(label.tag)) for label in labels]


def _vague_nouns(labels: LabelSystem, lexicon: Lexicon) -> frozenset[str]:
    """The vague nouns that a word list asks for; systems built of captions have them as actions."""
    if any(label.count for label in labels):
        return frozenset()
    things = [label for label in labels if label.kind != "action"]
    names = {normalise(name) for label in things for name in (label.tag, *label.synonyms)}
    return (lexicon.stop_nouns & names) - lexicon.noun_actions - lexicon.standalone_actions


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
