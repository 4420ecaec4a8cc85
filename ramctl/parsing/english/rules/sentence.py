"""A caption in words with part-of-speech tags, the findings of the rules, and tables of rules.

At each word, from left to right, the first row of a table that matches is applied.
"""

from collections.abc import Callable, Collection, Iterable, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ramctl.parsing.english.lexicon import Lexicon, word_set
from ramctl.parsing.parsed_caption import Mention, without_accents

# Penn Treebank tags by what the rules look for.
NOUNS = frozenset({"NN", "NNS", "NNP", "NNPS"})
ADJECTIVES = frozenset({"JJ", "JJR", "JJS"})
VERBS = frozenset({"VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
DETERMINERS = frozenset({"DT", "PRP$", "PDT", "WP$", "CD", "POS"})
BOUNDARIES = frozenset({".", ":", "``", "''", "-LRB-", "-RRB-"})
MAKES_NOUN = DETERMINERS | ADJECTIVES
# How many words away the subject of a verb may be.
NEAR = 40


@dataclass(slots=True)
class Sentence:
    """A caption's words; the four lists are parallel."""

    written: list[str]
    words: list[str]
    tags: list[str]
    excluded: list[str]  # the rule that keeps a word from giving a tag; empty: none does
    # From the index where a compound starts to the index after its end and its lemma.
    compounds: dict[int, tuple[int, str]] = field(default_factory=dict)
    # The rules that corrected tags, by index.
    corrected: dict[int, tuple[str, ...]] = field(default_factory=dict)
    is_title: bool = False  # most of its words are capitalised

    def __len__(self) -> int:
        return len(self.words)

    def tag(self, i: int) -> str:
        """The tag at an index; empty outside the caption."""
        return self.tags[i] if 0 <= i < len(self.tags) else ""

    def word(self, i: int) -> str:
        """The word at an index; empty outside the caption."""
        return self.words[i] if 0 <= i < len(self.words) else ""

    def exclude(self, start: int, end: int, rule: str) -> None:
        """Keep the words of a span from giving tags; the first rule to do so is remembered."""
        for i in range(max(start, 0), min(end, len(self.words))):
            self.excluded[i] = self.excluded[i] or rule

    def is_capital(self, i: int) -> bool:
        """Whether the word at an index is capitalised."""
        return 0 <= i < len(self.written) and self.written[i][:1].isupper()

    def name_start(self, i: int) -> int:
        """The first index of the capitalised words that end before `i`; `i` without any."""
        while self.is_capital(i - 1):
            i -= 1
        return i

    def skip(self, i: int, tags: Collection[str]) -> int:
        """The first index from `i` on whose tag is not one of `tags`."""
        while self.tag(i) in tags:
            i += 1
        return i

    def skip_back(self, i: int, tags: Collection[str]) -> int:
        """The last index up to `i` whose tag is not one of `tags`."""
        while self.tag(i) in tags:
            i -= 1
        return i

    def clause_end(self, i: int) -> int:
        """The index after the verb group that starts at `i` and its object: "is wearing a hat"."""
        end = self.skip(i, VERBS | {"RB", "RP", "MD"})
        return max(self.phrase_end(end), end)

    def text_end(self, i: int, boundaries: Collection[str]) -> int:
        """The first index from `i` on whose tag is one of `boundaries`, or the caption's end."""
        while i < len(self.tags) and self.tags[i] not in boundaries:
            i += 1
        return i

    def phrase_end(self, i: int) -> int:
        """The index after the noun phrase that starts at `i`."""
        tags, n = self.tags, len(self.tags)
        while i < n and (
            tags[i] in MAKES_NOUN
            or (tags[i] in ("VBN", "VBG", "RB", "HYPH") and self.tag(i + 1) in NOUNS | ADJECTIVES)
        ):
            i += 1
        while i < n and (tags[i] in NOUNS or i in self.compounds):
            i = self.compounds[i][0] if i in self.compounds else i + 1
        return i


def read_sentence(written: list[str], tags: list[str], spelling: dict[str, str]) -> Sentence:
    """The caption's words in lower case, known misspellings corrected, without hyphens."""
    kept: list[tuple[str, str, str]] = []
    for word, tag in zip(written, tags, strict=True):
        if (tag in ("HYPH", "_SP", "AFX") and not word.isalpha()) or word == "-":
            continue
        lower = word.lower()
        if not lower.isascii() and lower not in word_set("foreign"):
            lower = without_accents(lower)
        lower = spelling.get(lower, lower)
        kept += [(word, part, tag) for part in lower.split()]
    written, words, tags = ([row[k] for row in kept] for k in range(3))
    sentence = Sentence(written, words, tags, [""] * len(words))
    long_words = [word for word in written if len(word) > 3 and word.isalpha()]
    upper = sum(word[0].isupper() for word in long_words)
    sentence.is_title = len(long_words) > 1 and upper > 0.7 * len(long_words)
    return sentence


def subject_of(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    """The noun before a verb that no preposition governs; empty if none is near."""
    subject, k = "", i - 1
    while k >= max(i - NEAR, 0) and sentence.tags[k] not in (",", ".", ":", "CC"):
        if sentence.tags[k] in NOUNS:
            subject = lexicon.noun(sentence.words[k])
            k = sentence.skip_back(k, NOUNS | MAKES_NOUN)
            if sentence.tag(k) != "IN":
                break
        k -= 1
    return subject


def is_person_or_animal(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the word at an index is a person or an animal."""
    lemma = lexicon.noun(sentence.words[i]) if i >= 0 else ""
    return lemma == "person" or lexicon.first_file(lemma) in ("noun.person", "noun.animal")


@dataclass(slots=True)
class Findings:
    """The tags found so far in one caption, and the inputs of the rules."""

    sentence: Sentence
    lexicon: Lexicon
    mentions: list[Mention] = field(default_factory=list)
    # Nouns by index that are actions here: "do a flip".
    actions_at: dict[int, str] = field(default_factory=dict)
    # The rows that read a word, for their tests.
    read: set[str] = field(default_factory=set)
    # Free compounds ("soccer field" beside the tag "field"): candidates for a label system.
    phrases: list[str] = field(default_factory=list)

    def add(self, start: int, end: int, tag: str, kind: str, rule: str) -> int:
        """Note a tag made of the words of a span; returns the span's end."""
        written = " ".join(self.sentence.written[start:end])
        corrected = self.sentence.corrected
        if any(i in corrected for i in range(start, end)):
            names = dict.fromkeys(name for i in range(start, end) for name in corrected.get(i, ()))
            rule = f"{rule}, by {', '.join(names)}"
        self.mentions.append(Mention(start, tag, kind, written, rule))
        return end


Span = tuple[int, int] | None  # from an index to the one after


@dataclass(frozen=True)
class Rule:
    """A row of a table, whose pattern is called at an index of a sentence; None: no match.

    It returns the word's right tag (`tag_corrections`), the span of words that give no tags
    (`exclusions`), the index after those whose tags it has added (`attributes`, `verbs`), or the
    tag of a noun (`nouns`).
    """

    name: str
    pattern: Callable[..., Any]
    fires: str  # a caption in which it does
    spares: str  # one in which it must not
    at: Set[str] | None = None  # the words or tags at which it is tried; None: at all


class RuleTable(tuple[Rule, ...]):
    """Rows in their order, with those to be tried at a word looked up at once."""

    def __init__(self, rows: Iterable[Rule]) -> None:
        self.rows_at: Callable[..., tuple[Rule, ...]] = lru_cache(maxsize=50_000)(self._rows_at)

    def _rows_at(self, *keys: str) -> tuple[Rule, ...]:
        """The rows for a word and whatever else is known of it: its tag."""
        return tuple(row for row in self if row.at is None or not row.at.isdisjoint(keys))


def read_word(rules: RuleTable, findings: Findings, i: int) -> int:
    """Add the tags of the first row that matches at an index; returns the index after it."""
    sentence = findings.sentence
    for rule in rules.rows_at(sentence.words[i], sentence.tags[i]):
        end: int | None = rule.pattern(findings, i)
        if end is not None:
            findings.read.add(rule.name)
            return end
    return i + 1
