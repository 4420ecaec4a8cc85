"""From a caption to its tags, each with a kind and the words and the rule behind it.

Source: RAM sec. 3.1 names such a parser; the authors' own was not released.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ramctl.parsing import attributes, masks, nouns, readings, verbs
from ramctl.parsing.compounds import find_compounds
from ramctl.parsing.found import Findings, Found
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.sentence import ADJECTIVES, NOUNS, VERBS, clean, sentence
from ramctl.parsing.tagger import Tagger


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


class CaptionParser:
    """Captions to tags: every visible thing, place, property and doing that they name."""

    def __init__(self, lexicon: Lexicon, tagger: Tagger) -> None:
        self.lexicon = lexicon
        self.tagger = tagger

    @classmethod
    def open(cls) -> CaptionParser:
        """A parser whose tags are any words: the open mode."""
        return cls(Lexicon.shared(), Tagger.shared())

    def tags(self, caption: str) -> list[str]:
        """The tags of one caption in order of first mention."""
        return next(self.parse([caption])).tags

    def parse(self, captions: Iterable[str]) -> Iterator[ParsedCaption]:
        """Each caption's tags with kinds and evidence, in order; memory does not grow."""
        for shown, tags in self.tagger.tag(clean(caption) for caption in captions):
            yield self._parse_tagged(shown, tags)

    def _parse_tagged(self, shown: list[str], tags: list[str]) -> ParsedCaption:
        lexicon = self.lexicon
        read = sentence(shown, tags, lexicon.spelling)
        readings.repair(read, lexicon)
        masks.mute(read, lexicon)
        find_compounds(read, lexicon)
        findings = Findings(read, lexicon, [], {}, [])
        i = 0
        while i < len(read):
            i = _step(findings, i)
        unique: dict[str, Found] = {}
        for found in findings.found:
            unique.setdefault(found.tag, found)
        return ParsedCaption(tuple(unique.values()), tuple(findings.phrases))


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
