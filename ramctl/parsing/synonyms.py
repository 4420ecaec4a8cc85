"""Which words of a corpus mean the same: WordNet proposes, senses and contexts decide.

Plain WordNet merging is too noisy ("stand" and "rack", "man" and "piece"): both words must
mean the shared synset most of the time, and must stand in like company in the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ramctl.parsing.counts import TagCounts
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.wordnet import ADJECTIVE, NOUN, VERB

POS_OF_KIND = {"object": NOUN, "scene": NOUN, "action": VERB, "attribute": ADJECTIVE}
#: The share of a word's tagged uses that must have the shared sense.
MIN_SENSE_SHARE = 0.6
#: The least likeness of two words' contexts (cosine).
MIN_LIKENESS = 0.2
#: The same for the looser rules: the other word's first sense, the short form of a compound,
#: and adjectives, which stand in like company even when they mean different things.
MIN_LOOSE_LIKENESS = {NOUN: 0.2, VERB: 0.35, ADJECTIVE: 0.35}
MIN_ADJECTIVE_LIKENESS = 0.3
#: The same where WordNet has one sense of a noun only, and captions enough name it to tell.
MIN_ONE_SENSE_LIKENESS = 0.1
ENOUGH_CAPTIONS = 50
#: The likeness that two spellings need where one could be a free phrase: a house that is green.
MIN_FREE_LIKENESS = 0.15
#: The likeness from which the other word's second sense will do too: in WordNet, a bike is
#: first a motorcycle.
SAME_COMPANY = 0.62
#: The likeness from which a word for a person is the plain one in its place: a guy is a man.
SAME_PERSON = 0.45
#: So many first letters are a stem that two adjectives share: reddish, red.
STEM = 3
#: People whom captions call by several words: a lady is a woman, a guy is a man.
#: Rules by which a synonym of a synonym is one too.
SAME_WORD = frozenset({"spelling", "one sense", "main sense"})
PERSONS = ("man", "woman", "child")


@dataclass(frozen=True, slots=True)
class Merge:
    """`word` becomes a synonym of `tag`; `likeness` is their contexts' cosine."""

    word: str
    tag: str
    rule: str
    likeness: float


def find_merges(counts: TagCounts, lexicon: Lexicon, tags: list[str]) -> list[Merge]:
    """The merges among tags in order of rank: each word into a more frequent one.

    `tags` are ranked; a word is merged once, and never into a word that is merged itself.
    """
    company = Company(counts, lexicon, tags)
    rank = company.rank
    merged: dict[str, Merge] = {}
    targets: set[str] = set()
    for word in tags:
        if word in targets:
            continue
        best: Merge | None = None
        for proposal in _proposals(word, counts, lexicon):
            tag, rule = proposal.tag, proposal.rule
            if tag in merged and rule in SAME_WORD:
                tag = merged[tag].tag
            if tag not in rank or tag in merged or tag == word:
                continue
            if rank[tag] >= rank[word] and rule != "made of it":
                continue
            likeness = company.likeness(word, tag)
            if likeness < proposal.least or (best and likeness <= best.likeness):
                continue
            if proposal.sense is None or company.means(tag, proposal.sense, word):
                best = Merge(word, tag, rule, round(likeness, 3))
        if best is not None:
            merged[word] = best
            targets.add(best.tag)
    return list(merged.values())


def rare_synonyms(
    counts: TagCounts, lexicon: Lexicon, words: list[str], labels: Mapping[str, str]
) -> list[Merge]:
    """The merges of words too rare for their company to tell; `labels` maps strings to labels.

    Only other spellings, and nouns of which WordNet has one sense.
    """
    merges = []
    for word in words:
        proposals = (p for p in _proposals(word, counts, lexicon) if p.least == 0.0)
        for proposal in proposals:
            if proposal.rule in ("spelling", "one sense") and proposal.tag in labels:
                merges.append(Merge(word, labels[proposal.tag], proposal.rule, 0.0))
                break
    return merges


@dataclass(frozen=True, slots=True)
class Proposal:
    """That a word may be a synonym of `tag`, from the `least` likeness on.

    With a `sense` the captions must use `tag` in that sense.
    """

    tag: str
    rule: str
    least: float
    sense: int | None = None


class Company:
    """Which other tags the tags of a corpus stand beside."""

    def __init__(self, counts: TagCounts, lexicon: Lexicon, tags: list[str]) -> None:
        self.rank = {tag: place for place, tag in enumerate(tags)}
        self._counts = counts
        self._lexicon = lexicon
        self._vectors = counts.contexts(tags)

    def likeness(self, word: str, tag: str) -> float:
        """The cosine of two tags' contexts."""
        rows = self._vectors[self.rank[word]], self._vectors[self.rank[tag]]
        return float((rows[0] @ rows[1].T).sum())

    def means(self, tag: str, sense: int, word: str) -> bool:
        """Whether the company that a tag keeps is that of a sense, as one of its words shows.

        A motorcycle is WordNet's first bike; but in captions bikes are more like bicycles.
        """
        pos = POS_OF_KIND[self._counts.kind(tag)]
        shown = self.likeness(word, tag)
        for number, _ in _senses(tag, pos, self._lexicon):
            if number == sense:
                continue
            for lemma in self._lexicon.wordnet.synset(number).lemmas:
                other = _spelled(lemma)
                if other in self.rank and other != tag and self.likeness(other, tag) > shown:
                    return False
        return True


def _proposals(word: str, counts: TagCounts, lexicon: Lexicon) -> Iterator[Proposal]:
    """Other spellings, then words of the same synset."""
    pos = POS_OF_KIND[counts.kind(word)]
    yield from _other_spellings(word, counts, lexicon)
    noun = word.removesuffix("en")  # "wooden", "woolen": the material is the tag
    if pos == ADJECTIVE and noun != word and lexicon.first_file(noun) == "noun.substance":
        yield Proposal(noun, "made of it", 0.0)
    if word not in counts.kinds:
        return  # the name of a doing: "tracking" is no trail
    sense = main_sense(word, pos, lexicon)
    for tag in PERSONS:
        if _is_kind_of(sense, tag, lexicon):
            yield Proposal(tag, "kind of person", SAME_PERSON)
    for number, _ in _senses(word, pos, lexicon):
        for lemma in lexicon.wordnet.synset(number).lemmas:
            other = _spelled(lemma)
            same_pos = POS_OF_KIND[counts.kind(other)] == pos
            if other == word or not same_pos or _are_siblings(word, other):
                continue
            senses = [n for n, _ in _senses(other, pos, lexicon)]
            same_kind = counts.kind(word) == counts.kind(other)
            is_main = number == sense == main_sense(other, pos, lexicon)
            if is_main and _has_one_sense(word, lexicon):
                known = counts.captions[word] >= ENOUGH_CAPTIONS
                yield Proposal(other, "one sense", MIN_ONE_SENSE_LIKENESS if known else 0.0, number)
            elif is_main:
                related = pos != ADJECTIVE or word[:STEM] == other[:STEM]
                least = MIN_LIKENESS if related else MIN_ADJECTIVE_LIKENESS
                yield Proposal(other, "main sense", least, number)
            elif number == sense and senses[0] == number:
                yield Proposal(other, "first sense", MIN_LOOSE_LIKENESS[pos], number)
            elif same_kind and number in senses[:2] and word.endswith(f" {other}"):
                yield Proposal(other, "short form", MIN_LOOSE_LIKENESS[pos], number)
            elif same_kind and number == sense and number in senses[:2]:
                yield Proposal(other, "same company", SAME_COMPANY)


def _has_one_sense(word: str, lexicon: Lexicon) -> bool:
    senses = lexicon.wordnet.entry(word).senses
    return set(senses) == {NOUN} and len(senses[NOUN]) == 1


def _spelled(lemma: str) -> str:
    return lemma.lower().replace("-", " ")


def _other_spellings(word: str, counts: TagCounts, lexicon: Lexicon) -> Iterator[Proposal]:
    if f"{word}s" in lexicon.plural_only:
        yield Proposal(f"{word}s", "spelling", MIN_LIKENESS)
    for other in (word.replace(" ", ""), *_splits(word, counts)):
        if other != word:
            first = max(word, other, key=lambda form: form.count(" ")).partition(" ")[0]
            is_free = lexicon.is_plain_adjective(first) or first in lexicon.colors
            yield Proposal(other, "spelling", MIN_FREE_LIKENESS if is_free else 0.0)


def _are_siblings(word: str, other: str) -> bool:
    """Whether two compounds differ in what matters: a game and its ball, two colours of hair."""
    if f"{other} game" == word or f"{word} game" == other:
        return True
    return word.endswith(" haired") and other.endswith(" haired")


def _splits(word: str, counts: TagCounts) -> list[str]:
    """Two-word spellings of a word that occur: "surf board" for "surfboard"."""
    if " " in word or len(word) < 6:
        return []
    found = (f"{word[:i]} {word[i:]}" for i in range(3, len(word) - 2))
    return [split for split in found if split in counts.captions or split in counts.phrases]


def _senses(word: str, pos: str, lexicon: Lexicon) -> tuple[tuple[int, int], ...]:
    """The word's senses; WordNet has plural-only garments ("blue jeans") in the singular."""
    senses = lexicon.wordnet.entry(word).senses
    if pos == NOUN and word in lexicon.plural_only and NOUN not in senses:
        senses = lexicon.wordnet.entry(word.removesuffix("s")).senses
    return senses.get(pos, ())


def _is_kind_of(sense: int | None, tag: str, lexicon: Lexicon) -> bool:
    """Whether a noun's sense is directly below a person's main sense."""
    if sense is None or lexicon.wordnet.synset(sense).file != "noun.person":
        return False
    first = lexicon.wordnet.entry(tag).senses[NOUN][0][0]
    return first in lexicon.wordnet.synset(sense).hypernyms


def main_sense(word: str, pos: str, lexicon: Lexicon) -> int | None:
    """The synset that a word means most of the time, None if no sense is that frequent."""
    senses = _senses(word, pos, lexicon)
    if not senses:
        return None
    total = sum(count for _, count in senses)
    number, count = senses[0]
    if len(senses) == 1 or (total and count / total >= MIN_SENSE_SHARE):
        return number
    return None
