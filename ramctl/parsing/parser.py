"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 names such a parser; the authors' own was not released.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from ramctl.labels import LabelSystem, normalise
from ramctl.parsing import attributes, masks, nouns, readings, verbs
from ramctl.parsing.compounds import find_compounds
from ramctl.parsing.found import Findings, Found
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.pos_tagger import BATCH, Tagger
from ramctl.parsing.sentence import ADJECTIVES, NOUNS, VERBS, Sentence, clean, sentence
from ramctl.parsing.wordnet import VERB


@dataclass(frozen=True, slots=True)
class ParsedCaption:
    """A caption's tags in order of first mention, and why each is one.

    `phrases` are free compounds of which only the head is a tag ("soccer field" beside
    `field`): candidates for a label system.
    """

    found: tuple[Found, ...]
    phrases: tuple[str, ...] = ()

    @property
    def tags(self) -> list[str]:
        """The tags in order of first mention, each once."""
        return [found.tag for found in self.found]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each tag."""
        return {found.tag: found.kind for found in self.found}


#: The words of the longest tag.
LONGEST_TAG = 4
if TYPE_CHECKING:
    from ramctl.parsing.frequent_readings import QuickReader
    from ramctl.parsing.mapping import LabelMapper

#: Parsed texts that are remembered: captions repeat within a data set.
KNOWN_TEXTS = 20_000


class CaptionParser:
    """Captions to tags: every visible thing, place, property and doing that they name."""

    def __init__(
        self,
        lexicon: Lexicon,
        tagger: Tagger,
        mapper: LabelMapper | None = None,
        quick: QuickReader | None = None,
    ) -> None:
        self.lexicon = lexicon
        self.tagger = tagger
        self._mapper = mapper
        self._quick = quick
        self._known: OrderedDict[str, ParsedCaption] = OrderedDict()

    @classmethod
    def open(cls) -> CaptionParser:
        """A parser whose tags are any words: the open mode."""
        return cls(Lexicon.shared(), Tagger.shared())

    @classmethod
    def closed(cls, labels: LabelSystem) -> CaptionParser:
        """A parser whose tags are the labels of a system: the closed mode.

        A noun of a plain word list that the open mode holds for vague ("photo") is found: it was
        asked for.
        """
        from ramctl.parsing.frequent_readings import QuickReader
        from ramctl.parsing.mapping import LabelMapper

        lexicon, quick = Lexicon.shared(), QuickReader.shared()
        if vague := _vague_words(labels, lexicon):
            lexicon, quick = lexicon.wanting(vague), quick.doubting(vague)
        return cls(lexicon, Tagger.shared(), LabelMapper(labels, lexicon), quick)

    def tags(self, caption: str) -> list[str]:
        """The tags of one caption in order of first mention."""
        return next(self.parse([caption])).tags

    def parse(self, captions: Iterable[str]) -> Iterator[ParsedCaption]:
        """Each caption's tags with kinds and evidence, in order; memory does not grow.

        A text that was parsed lately is not parsed again.
        """
        iterator = iter(captions)
        while batch := list(islice(iterator, BATCH)):
            new = dict.fromkeys(text for text in batch if text not in self._known)
            parsed = dict(zip(new, self._parse_texts(new), strict=True))
            yield from (parsed.get(text) or self._known[text] for text in batch)
            self._known.update(parsed)
            while len(self._known) > KNOWN_TEXTS:
                self._known.popitem(last=False)

    def _parse_texts(self, texts: Iterable[str]) -> Iterator[ParsedCaption]:
        cleaned = [clean(text) for text in texts]
        read = [self._read_quickly(text) for text in cleaned]
        doubtful = [text for text, done in zip(cleaned, read, strict=True) if done is None]
        tagged = self.tagger.tag(doubtful)
        for text, done in zip(cleaned, read, strict=True):
            parsed = done or self._parse_tagged(*next(tagged))
            if self._mapper is not None:
                parsed = self._mapper.label_alone(text) or self._mapper.map(parsed)
            yield parsed

    def _read_quickly(self, text: str) -> ParsedCaption | None:
        """The caption read without the tagger; None where a word is in doubt."""
        quick = self._quick.read(text) if self._quick is not None else None
        return None if quick is None else as_parsed(*quick)

    def _parse_tagged(self, shown: list[str], tags: list[str]) -> ParsedCaption:
        findings = findings_of(shown, tags, self.lexicon)
        if alone := tag_alone(findings.sentence, self.lexicon):
            return ParsedCaption((alone,))
        return as_parsed(findings.found, findings.phrases)


def _vague_words(labels: LabelSystem, lexicon: Lexicon) -> frozenset[str]:
    """The vague nouns that a plain word list asks for; built systems have none but doings."""
    if any(label.kind != "object" or label.count for label in labels):
        return frozenset()
    names = {normalise(name) for label in labels for name in (label.tag, *label.synonyms)}
    return (lexicon.stop_nouns & names) - lexicon.doings - lexicon.doings_alone


def as_parsed(found: Iterable[Found], phrases: Iterable[str]) -> ParsedCaption:
    """The caption with each tag once, where it is first mentioned."""
    unique: dict[str, Found] = {}
    for one in sorted(found, key=attrgetter("place")):
        unique.setdefault(one.tag, one)
    return ParsedCaption(tuple(unique.values()), tuple(phrases))


def findings_of(shown: list[str], tags: list[str], lexicon: Lexicon) -> Findings:
    """What the rules find in a tagged caption, each mention by itself."""
    read = sentence(shown, tags, lexicon.spelling)
    readings.repair(read, lexicon)
    masks.mute(read, lexicon)
    find_compounds(read, lexicon)
    findings = Findings(read, lexicon, [], {}, [])
    i = 0
    while i < len(read):
        i = _step(findings, i)
    return findings


def tag_alone(read: Sentence, lexicon: Lexicon) -> Found | None:
    """The tag that the whole text is: a bare word has no sentence to read it by."""
    if not 0 < len(read) <= LONGEST_TAG:
        return None
    text = " ".join(read.words)
    kind = _kind_of_phrase(text, lexicon) if len(read) > 1 else _kind_of_word(text, lexicon)
    if kind is None:
        return None
    return Found(0, text, kind, " ".join(read.shown), "the whole text")


def _kind_of_phrase(text: str, lexicon: Lexicon) -> str | None:
    first, _, last = text.rpartition(" ")
    if text in lexicon.attribute_phrases or (
        last in attributes.SECOND_PARTS - attributes.GIVES_FIRST_PART
        and " " not in first
        and first not in attributes.LIGHTNESS | lexicon.stop_adjectives
    ):
        return "attribute"
    listed = text in lexicon.compounds or text in lexicon.plural_only
    return lexicon.noun_kind(text) if listed and lexicon.noun(text) == text else None


def _kind_of_word(word: str, lexicon: Lexicon) -> str | None:
    if word in lexicon.doings:
        return "action"
    if word == "top":
        return "object"  # the garment; other tops are no tags
    if word in lexicon.stop_nouns:
        # "view" and "point" are tags only as doings.
        if word in lexicon.doings_alone or (
            lexicon.wordnet.has(word, VERB)
            and word not in lexicon.stop_verbs
            and not lexicon.is_hardly_verb(word)
        ):
            return "action"
        return "attribute" if lexicon.is_attribute(word) else None
    return lexicon.kind_alone(word)


def _step(findings: Findings, i: int) -> int:
    """Note what starts at a place; the place after it."""
    read = findings.sentence
    if read.muted[i]:
        return i + 1
    tag = read.tags[i]
    if i in read.units:
        return nouns.noun_phrase(findings, i)
    if (tag in NOUNS or tag in ADJECTIVES) and attributes.is_second_part(read, i + 1):
        return attributes.with_second_part(findings, i)
    if tag in NOUNS:
        return nouns.noun_phrase(findings, i)
    if tag in ADJECTIVES:
        return attributes.adjective(findings, i)
    if tag in VERBS:
        return verbs.verb(findings, i)
    return i + 1
