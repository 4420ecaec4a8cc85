"""Which words of a corpus mean the same: WordNet proposes, senses and contexts decide.

Plain WordNet merging is too noisy ("stand" and "rack", "man" and "piece"): both words must
mean the shared synset most of the time, and must stand in like company in the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramctl.parsing.counts import TagCounts
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.wordnet import ADJECTIVE, NOUN, VERB

POS_OF_KIND = {"object": NOUN, "scene": NOUN, "action": VERB, "attribute": ADJECTIVE}
#: The share of a word's tagged uses that must have the shared sense.
MIN_SENSE_SHARE = 0.6
#: The least likeness of two words' contexts (cosine).
MIN_LIKENESS = 0.2
#: The likeness from which the other word's second sense will do too: in WordNet, a bike is
#: first a motorcycle.
SAME_COMPANY = 0.62
#: The likeness from which a word for a person is the plain one in its place: a guy is a man.
SAME_PERSON = 0.45
LEAST_LIKENESS = {
    "spelling": 0.0,
    "made of it": 0.0,
    "main sense": MIN_LIKENESS,
    "same company": SAME_COMPANY,
    "kind of person": SAME_PERSON,
}
#: People whom captions call by several words: a lady is a woman, a guy is a man.
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
    rank = {tag: place for place, tag in enumerate(tags)}
    vectors = counts.contexts(tags)
    merged: dict[str, Merge] = {}
    targets: set[str] = set()
    for word in tags:
        if word in targets:
            continue
        best: Merge | None = None
        for tag, rule in _proposals(word, counts, lexicon):
            if tag not in rank or tag in merged:
                continue
            if rank[tag] >= rank[word] and rule != "made of it":
                continue
            likeness = float((vectors[rank[word]] @ vectors[rank[tag]].T).sum())
            if likeness >= LEAST_LIKENESS[rule]:
                merge = Merge(word, tag, rule, round(likeness, 3))
                if best is None or merge.likeness > best.likeness:
                    best = merge
        if best is not None:
            merged[word] = best
            targets.add(best.tag)
    return list(merged.values())


def _proposals(word: str, counts: TagCounts, lexicon: Lexicon) -> list[tuple[str, str]]:
    """(tag, rule) pairs: other spellings, then words of the same synset."""
    joined = word.replace(" ", "")
    proposals = [(joined, "spelling")] if joined != word else []
    proposals += [(split, "spelling") for split in _splits(word, counts)]
    pos = POS_OF_KIND[counts.kind(word)]
    if pos == ADJECTIVE:
        noun = word.removesuffix("en")  # "wooden", "woolen": the material is the tag
        if noun != word and lexicon.first_file(noun) == "noun.substance":
            proposals.append((noun, "made of it"))
    sense = main_sense(word, pos, lexicon)
    proposals += [(tag, "kind of person") for tag in PERSONS if _is_kind_of(sense, tag, lexicon)]
    for number, _ in _senses(word, pos, lexicon):
        for lemma in lexicon.wordnet.synset(number).lemmas:
            other = lemma.lower().replace("-", " ")
            if other == word or POS_OF_KIND[counts.kind(other)] != pos:
                continue
            if number != sense or _are_siblings(word, other):
                continue
            if sense == main_sense(other, pos, lexicon):
                proposals.append((other, "main sense"))
            elif counts.kind(word) == counts.kind(other) and number in [
                n for n, _ in _senses(other, pos, lexicon)[:2]
            ]:
                proposals.append((other, "same company"))
    return proposals


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
