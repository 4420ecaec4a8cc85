"""Synonyms among the words of a corpus: WordNet proposes, senses and contexts decide.

Merging by WordNet alone is too noisy ("stand" and "rack", "man" and "piece"): both words must
mean the shared synset most of the time, and must occur in similar contexts in the corpus.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ramctl.parsing.english.lexicon import POS_OF_KIND, Lexicon
from ramctl.parsing.english.wordnet import ADJECTIVE, NOUN, VERB, spelled
from ramctl.parsing.label_building.tag_counts import TagCounts

# The minimum similarity (cosine) of two words' contexts.
MIN_SIMILARITY = 0.2
# The same for looser rules: the other word's first sense, and adjectives, which occur in similar
# contexts even when they mean different things.
MIN_LOOSE_SIMILARITY = {NOUN: 0.2, VERB: 0.4, ADJECTIVE: 0.35}
MIN_ADJECTIVE_SIMILARITY = 0.3
# The same where the order of senses is arbitrary, and for two forms of a word then.
MIN_UNORDERED_SIMILARITY = 0.4
MIN_STEM_SIMILARITY = 0.3
# The same for the short form of a compound: "water" is seldom a body of water.
MIN_SHORT_SIMILARITY = 0.25
# The same where WordNet has only one sense of a noun and enough captions name it.
MIN_ONE_SENSE_SIMILARITY = 0.1
ENOUGH_CAPTIONS = 50
# The same for two spellings of which one may be a free phrase: a green house is no greenhouse.
MIN_FREE_SIMILARITY = 0.15
# Two adjectives with this many first letters in common have one stem: reddish, red. Other words
# that mean the same have more in common.
STEM = 3
# A singular is a slip where its plural is this many times as frequent: a pant.
SLIP = 10
# Rules by which a synonym of a synonym is a synonym too.
SAME_WORD = frozenset({"spelling", "same stem", "one sense", "main sense"})


class Merge(NamedTuple):
    """A word becomes a synonym of `tag`; `similarity` is the cosine of their contexts."""

    tag: str
    rule: str
    similarity: float


def find_merges(counts: TagCounts, lexicon: Lexicon, contexts: "Contexts") -> dict[str, Merge]:
    """The merges among the tags of `contexts` by word, each into a more frequent one.

    A word is merged at most once, and never into a word that is merged itself.
    """
    rank = contexts.rank
    merged: dict[str, Merge] = {}
    targets: set[str] = set()
    for word in rank:
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
            similarity = contexts.similarity(word, tag)
            if similarity < proposal.min_similarity or (best and similarity <= best.similarity):
                continue
            if proposal.sense is None or contexts.use_sense(tag, proposal.sense, word):
                best = Merge(tag, rule, round(similarity, 3))
        if best is not None:
            merged[word] = best
            targets.add(best.tag)
    return merged


def rare_synonyms(
    counts: TagCounts, lexicon: Lexicon, words: list[str], labels: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """(word, label, rule) of words too rare to judge by contexts: spellings, nouns of one sense.

    `labels` maps strings to labels.
    """
    for word in words:
        for proposal in _proposals(word, counts, lexicon):
            is_sure = proposal.min_similarity == 0.0 and proposal.rule in ("spelling", "one sense")
            if is_sure and proposal.tag in labels:
                yield word, labels[proposal.tag], proposal.rule
                break


class Proposal(NamedTuple):
    """A tag that a word may be a synonym of, with the conditions."""

    tag: str
    rule: str
    min_similarity: float
    sense: int | None = None  # the sense in which the captions must use `tag`


class Contexts:
    """Which other tags the tags of a corpus occur with."""

    def __init__(self, counts: TagCounts, lexicon: Lexicon, tags: list[str]) -> None:
        self.rank = {tag: place for place, tag in enumerate(tags)}
        self._counts, self._lexicon = counts, lexicon
        self._vectors = counts.contexts(tags)

    def similarity(self, word: str, tag: str) -> float:
        """The cosine of two tags' contexts."""
        rows = self._vectors[self.rank[word]], self._vectors[self.rank[tag]]
        return float((rows[0] @ rows[1].T).sum())

    def use_sense(self, tag: str, sense: int, word: str) -> bool:
        """Whether a tag's contexts suit a sense best, compared by a `word` that has the sense."""
        pos = POS_OF_KIND[self._counts.kind(tag)]
        shown, synset = self.similarity(word, tag), self._lexicon.wordnet.synset
        senses = (number for number, _ in self._lexicon.senses(tag, pos) if number != sense)
        words = {spelled(lemma) for number in senses for lemma in synset(number).lemmas}
        others = (words - {tag}) & self.rank.keys()
        return all(self.similarity(other, tag) <= shown for other in others)


def _proposals(word: str, counts: TagCounts, lexicon: Lexicon) -> Iterator[Proposal]:
    pos = POS_OF_KIND[counts.kind(word)]
    yield from _other_spellings(word, counts, lexicon)
    if pos == ADJECTIVE and (noun := lexicon.material(word)):
        yield Proposal(noun, "made of it", 0.0)
    if word not in counts.kinds:
        return  # the name of an activity: "tracking" is no trail
    for number, _ in lexicon.senses(word, pos):
        lemmas = [spelled(lemma) for lemma in lexicon.wordnet.synset(number).lemmas]
        pairs = [plural for lemma in lemmas if (plural := f"{lemma}s") in lexicon.plural_only]
        for other in (*lemmas, *pairs):  # headphones and earphones
            same_pos = POS_OF_KIND[counts.kind(other)] == pos
            # Parallel, not the same: a game and its ball, colours of hair.
            are_siblings = word in (other, f"{other} game") or other == f"{word} game"
            are_siblings |= word.endswith(" haired") and other.endswith(" haired")
            if same_pos and not are_siblings:
                yield from _from_synset(word, other, number, counts, lexicon)


def _from_synset(
    word: str, other: str, number: int, counts: TagCounts, lexicon: Lexicon
) -> Iterator[Proposal]:
    """The rule by which another word of one of a word's synsets may be the same, if any."""
    pos = POS_OF_KIND[counts.kind(word)]
    sense, other_sense = lexicon.main_sense(word, pos), lexicon.main_sense(other, pos)
    same_kind = counts.kind(word) == counts.kind(other)
    may_be_first = all(_may_mean_first(form, number, pos, lexicon) for form in (word, other))
    is_main = number == sense == other_sense
    if may_be_first and _have_one_stem(word, other):
        needed = _min_stem_similarity(word, other, number, pos, lexicon)
        yield Proposal(other, "same stem", needed, number)
    elif is_main and (_has_one_sense(word, lexicon) or _has_one_sense(other, lexicon)):
        known = counts.captions[word] >= ENOUGH_CAPTIONS
        yield Proposal(other, "one sense", MIN_ONE_SENSE_SIMILARITY if known else 0.0, number)
    elif is_main:
        related = pos != ADJECTIVE or word[:STEM] == other[:STEM]
        needed = MIN_SIMILARITY if related else MIN_ADJECTIVE_SIMILARITY
        yield Proposal(other, "main sense", needed, number)
    elif may_be_first:
        is_first = number in (sense, other_sense)
        needed = MIN_LOOSE_SIMILARITY[pos] if is_first else MIN_UNORDERED_SIMILARITY
        yield Proposal(other, "first sense", needed, number)
    elif same_kind and _is_short_form(word, other):
        yield Proposal(other, "short form", MIN_SHORT_SIMILARITY, number)


def _may_mean_first(word: str, number: int, pos: str, lexicon: Lexicon) -> bool:
    """Whether a synset is a word's first sense, or the senses have no order."""
    senses = lexicon.senses(word, pos)
    if _is_ordered(senses):
        return number == senses[0][0]
    head = lexicon.noun(word.rpartition(" ")[2])
    below = [n for n, _ in senses if head != word and lexicon.wordnet.is_below(n, head)]
    return number in below if below else number in dict(senses)  # a hard hat is a hat, no worker


def _is_ordered(senses: tuple[tuple[int, int], ...]) -> bool:
    """Whether WordNet orders the senses by frequency: it knows none for words of no text."""
    return len(senses) == 1 or any(count for _, count in senses)


def _min_stem_similarity(word: str, other: str, number: int, pos: str, lexicon: Lexicon) -> float:
    """The minimum similarity for two forms of a word to mean the same."""
    both = [lexicon.senses(form, pos) for form in (word, other)]
    if dict(both[0]).keys() == dict(both[1]).keys():
        return 0.0  # a goalkeeper is a goalie, of whatever sense
    if not all(number == senses[0][0] for senses in both):
        return MIN_STEM_SIMILARITY
    if not all(map(_is_ordered, both)):
        return MIN_ONE_SENSE_SIMILARITY
    # A commuter is no commuter train.
    return MIN_SIMILARITY if _is_short_form(word, other) else 0.0


def _have_one_stem(word: str, other: str) -> bool:
    """Whether two words are forms of one: goalie and goalkeeper, phone and telephone."""
    short, long = sorted((word, other), key=len)
    n = min(len(short), STEM + 1)
    return long.startswith(short[:n]) or long.endswith(short[-n:])


def _is_short_form(word: str, other: str) -> bool:
    """Whether one is the other without its first or last word: a palm, a palm tree."""
    short, long = sorted((word, other), key=len)
    return long.startswith(f"{short} ") or long.endswith(f" {short}")


def _has_one_sense(word: str, lexicon: Lexicon) -> bool:
    senses = lexicon.wordnet.entry(word).senses
    return set(senses) == {NOUN} and len(senses[NOUN]) == 1


def _other_spellings(word: str, counts: TagCounts, lexicon: Lexicon) -> Iterator[Proposal]:
    if lexicon.is_game(game := word.removeprefix("playing ")):
        yield Proposal(game, "spelling", 0.0)  # "playing tennis"
    if (plural := f"{word}s") in lexicon.plural_only:
        is_slip = " " in word or counts.captions[plural] >= SLIP * counts.captions[word]
        yield Proposal(plural, "spelling", 0.0 if is_slip else MIN_SIMILARITY)
    others = [word.replace(" ", "")]
    if " " not in word:  # "surf board" for "surfboard"
        splits = (f"{word[:i]} {word[i:]}" for i in range(3, len(word) - 2))
        others += [form for form in splits if form in counts.captions or form in counts.phrases]
    for other in others:
        if other != word:
            phrase = max(word, other, key=lambda form: form.count(" "))
            first = phrase.partition(" ")[0]
            described = lexicon.is_plain_adjective(first) or first in lexicon.colors
            is_free = described and not lexicon.is_listed(phrase)
            yield Proposal(other, "spelling", MIN_FREE_SIMILARITY if is_free else 0.0)
