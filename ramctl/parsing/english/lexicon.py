"""The lexicon of the parser: lemmas, kinds, compounds, and which words are tags at all.

WordNet comes first; `data/lexicon.toml` corrects and completes it for captions.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib import resources

from ramctl.parsing.english.wordnet import ADJECTIVE, NOUN, VERB, Synset, WordNet, spelled

# Lexicographer files of visible things.
VISIBLE_FILES = frozenset(
    {"noun.Tops", "noun.animal", "noun.artifact", "noun.body", "noun.food", "noun.object",
     "noun.person", "noun.plant", "noun.substance"}
)  # fmt: skip
# The first character past the Latin alphabets.
AFTER_LATIN = "\u0250"
# The part of speech in which WordNet has the tags of a kind.
POS_OF_KIND = {"object": NOUN, "scene": NOUN, "action": VERB, "attribute": ADJECTIVE}
DOUBLED = re.compile(r"([bdgklmnprtz])\1$")
# The fraction of a word's tagged uses from which a sense is its main one.
MIN_SENSE_FRACTION = 0.6
# Files of nouns whose adjectives mean the same: a stone wall, a male dancer.
SAME_FILES = frozenset({"noun.substance", "noun.person", "noun.animal"})
NATURAL_KINDS = frozenset({"noun.plant", "noun.animal", "noun.food"})


@cache
def _word_lists() -> dict[str, list[str]]:
    """All word lists of `lexicon.toml` by name; `_` in an entry stands for a space."""
    text = (resources.files("ramctl.parsing.english") / "data/lexicon.toml").read_text("utf-8")
    return {
        name: [entry.replace("_", " ") for entry in entries.split()]
        for section in tomllib.loads(text).values()
        for name, entries in section.items()
    }


@cache
def word_set(name: str) -> frozenset[str]:
    """One of the word lists."""
    return frozenset(_word_lists()[name])


def _pairs(name: str) -> dict[str, str]:
    """The mapping that a list of "form=lemma" entries stands for."""
    return dict(entry.split("=", 1) for entry in _word_lists()[name])


class Lexicon:
    """Word knowledge with bounded caches; a word set of `lexicon.toml` is an attribute.

    `accepted` nouns count as things although the lists call them vague.
    """

    def __init__(self, wordnet: WordNet, accepted: frozenset[str] = frozenset()) -> None:
        self.wordnet = wordnet
        vague = word_set("stop_nouns")
        self.stop_nouns = vague - accepted
        self.objects = word_set("objects") | (accepted & vague)
        self.irregular = _pairs("irregular")
        self.act_nouns = _pairs("act_nouns")
        # Actions whose noun is no tag otherwise: "take a photograph".
        self.noun_actions = frozenset(self.act_nouns.values())
        self.plain_words = _pairs("plain_words")
        self.british = _pairs("british")
        self.spelling = _pairs("spelling") | self.british
        self.idioms = PhraseIndex(word_set("idioms") | word_set("jargon"))
        listed = {word for word in wordnet.compounds() if self._is_noun_compound(word)}
        self.compounds = PhraseIndex((self.added_compounds | listed) - self.removed_compounds)
        self._scene_roots = self._find_roots("scene_roots")
        self._games = self._find_roots("game_roots")
        self.noun = lru_cache(maxsize=50_000)(self._noun)
        self.verb = lru_cache(maxsize=20_000)(self._verb)
        self.noun_kind = lru_cache(maxsize=50_000)(self._noun_kind)
        self.is_attribute = lru_cache(maxsize=20_000)(self._is_attribute)

    def __getattr__(self, name: str) -> frozenset[str]:
        if name not in _word_lists():
            raise AttributeError(f"no word list {name!r}")
        words = word_set(name)
        setattr(self, name, words)  # found without this method from now on
        return words

    @staticmethod
    @cache
    def shared(accepted: frozenset[str] = frozenset()) -> "Lexicon":
        """The lexicon of the package, opened once per process."""
        return Lexicon(WordNet.shared(), accepted)

    def _noun(self, word: str) -> str:
        if word in self.irregular:
            return self.irregular[word]
        if word in self.plural_only:
            return word
        if " " in word:
            if self.wordnet.has(word, NOUN):
                return word
            rest, _, last = word.rpartition(" ")
            return f"{rest} {self.noun(last)}"
        lemma = noun_lemma(word, self.wordnet)
        return self.spelling.get(lemma, lemma)

    def _verb(self, word: str) -> str:
        """The base form of a verb; the word itself where it is one or nothing better is known."""
        for lemma in (word, word[:-1], word[:-2], word[:-3], word[:-3] + "e"):
            if lemma in self.extra_verbs:
                return lemma
        forms = list(self.wordnet.entry(word).base_forms.get(VERB, ()))
        for suffix in ("ing", "ied", "ed"):
            stem = word.removesuffix(suffix)
            if stem != word and len(stem) > 1:
                forms += [stem + "y", stem + "ie"] if suffix == "ied" else _stems(stem)
        forms.append(word)
        if word.endswith("s"):
            forms += [word[:-1], word[:-2], word[:-3] + "y"]
        lemma = next((form for form in forms if self.wordnet.has(form, VERB)), word)
        return self.spelling.get(lemma, lemma)

    def is_plain_noun(self, word: str) -> bool:
        """Whether WordNet or a list has the word as a common noun."""
        lists = (self.objects, self.scenes, self.plural_only, self.coined)
        return any(word in words for words in lists) or self.wordnet.has(word, NOUN)

    def is_plain_adjective(self, word: str) -> bool:
        """Whether WordNet or a list has the word as an adjective."""
        return word in self.visible_adjectives or self.wordnet.has(word, ADJECTIVE)

    def is_plain_verb(self, word: str) -> bool:
        """Whether the word's base form is a verb."""
        return self.verb(word) in self.extra_verbs or self.wordnet.has(self.verb(word), VERB)

    def is_mostly_verb(self, word: str) -> bool:
        """Whether WordNet's texts use the word as a verb more often than as a noun."""
        count = self.wordnet.count
        return count(self.verb(word), VERB) > count(self.noun(word), NOUN)

    def is_hardly_verb(self, word: str) -> bool:
        """Whether a vague noun is used as a verb so rarely that no caption means the action."""
        if word not in self.stop_nouns or word in self.standalone_actions:
            return False
        return self.wordnet.count(word, NOUN) >= 3 * self.wordnet.count(word, VERB)

    def is_relational(self, word: str) -> bool:
        """Whether an adjective only relates a thing to another (WordNet: pertainym): military."""
        return self.first_file(word, ADJECTIVE) == "adj.pert"

    def is_known(self, word: str) -> bool:
        """Whether WordNet or a list has the word."""
        lists = (self.objects, self.scenes, self.colors, self.visible_adjectives, self.extra_verbs)
        return bool(self.wordnet.entry(word).senses) or any(word in words for words in lists)

    def is_listed(self, phrase: str) -> bool:
        """Whether WordNet or a list has the phrase as a compound."""
        return phrase in self.compounds or phrase in self.plural_only

    def is_game(self, word: str) -> bool:
        """Whether it is a sport or a game by one of its first two senses."""
        senses = self.wordnet.entry(word).senses.get(NOUN, ())
        return any(self._is_below(number, self._games) for number, _ in senses[:2])

    def kind(self, tag: str) -> str:
        """The kind of a tag by itself; object where nothing is known about it."""
        return self.noun_kind(self.noun(tag)) or self.kind_alone(tag) or "object"

    def kind_alone(self, word: str) -> str | None:
        """The kind of a word by itself, None if it does not have the form of a tag."""
        if word in self.colors:
            return "attribute"
        if self.noun(word) == word and (kind := self.noun_kind(word)):
            return kind
        if self.is_attribute(word):
            return "attribute"
        if self.wordnet.has(word, VERB) or (self.verb(word) == word and self.is_plain_verb(word)):
            return None if word in self.stop_verbs else "action"
        return None

    def is_also_name(self, word: str) -> bool:
        """Whether WordNet also has the word as a proper name: China, Turkey."""
        return any(_is_name(synset, word) for synset in self.wordnet.synsets(word, NOUN))

    def is_only_name(self, word: str) -> bool:
        """Whether WordNet has the word as a proper name only: England, Salt Lake City."""
        synsets = self.wordnet.synsets(word, NOUN)
        return bool(synsets) and all(_is_name(synset, word) for synset in synsets)

    def senses(self, word: str, pos: str) -> tuple[tuple[int, int], ...]:
        """The word's senses; WordNet lists plural-only garments ("blue jeans") in the singular."""
        senses = self.wordnet.entry(word).senses
        if pos == NOUN and word in self.plural_only and NOUN not in senses:
            senses = self.wordnet.entry(word.removesuffix("s")).senses
        return senses.get(pos, ())

    def main_sense(self, word: str, pos: str) -> int | None:
        """The synset that a word means most of the time; None if no sense is that frequent."""
        senses = self.senses(word, pos)
        if not senses:
            return None
        total = sum(count for _, count in senses)
        number, count = senses[0]
        is_main = len(senses) == 1 or (total and count / total >= MIN_SENSE_FRACTION)
        return number if is_main else None

    def synonyms(self, tag: str, kind: str) -> Iterator[str]:
        """Words that mean the same as a tag by both words' main sense."""
        pos = POS_OF_KIND[kind]
        sense = self.main_sense(tag, pos)
        if sense is None:
            return
        for lemma in self.wordnet.synset(sense).lemmas:
            other = spelled(lemma)
            if other != tag and self.main_sense(other, pos) == sense:
                yield other

    def may_be(self, compound: str, head: str) -> bool:
        """Whether a compound may be a kind of its head: a hot dog is no dog."""
        return not self.wordnet.has(compound, NOUN) or self.wordnet.is_kind_of(compound, head)

    def material(self, adjective: str) -> str:
        """The material that an adjective names ("wooden"); empty if it names none."""
        noun = adjective.removesuffix("en")
        return noun if noun != adjective and self.first_file(noun) == "noun.substance" else ""

    def agree(self, word: str, kind: str, other: str) -> bool:
        """Whether a word of one kind means the same as one of another: stone, male; not light."""
        pos = {POS_OF_KIND.get(kind, NOUN), POS_OF_KIND[other]}
        if len(pos) == 1 or VERB in pos or word in self.colors:
            return len(pos) == 1
        is_used = self.wordnet.count(word, ADJECTIVE) and self.wordnet.has(word, NOUN)
        return not is_used or self.first_file(word) in SAME_FILES

    def first_file(self, lemma: str, pos: str = NOUN) -> str:
        """The lexicographer file of the word's first sense; empty if it has none."""
        senses = self.wordnet.synsets(lemma, pos)
        return senses[0].file if senses else ""

    def thing_file(self, lemma: str) -> str:
        """The file of the sense that captions mean: a sloth is an animal, not a vice."""
        is_animal = any(s.file == "noun.animal" for s in self.wordnet.synsets(lemma, NOUN))
        return "noun.animal" if lemma in self.objects and is_animal else self.first_file(lemma)

    def _noun_kind(self, lemma: str) -> str | None:
        """The kind of a noun lemma, None if it is no tag."""
        if lemma in self.stop_nouns:
            return None
        lists = {"things": "object", "scenes": "scene", "actions": "action",
                 "attribute_nouns": "attribute"}  # fmt: skip
        for name, kind in lists.items():
            if lemma in getattr(self, name):
                return kind
        head = lemma.rpartition(" ")[2]
        is_place = head != lemma and head in self.scenes and head != "court"
        if lemma in self.objects:
            return "scene" if is_place else "object"
        synsets = self.wordnet.synsets(lemma, NOUN)
        if lemma in self.added_compounds or lemma in self.plural_only:
            is_place = is_place or (bool(synsets) and self.is_place(synsets[0].number))
            return "scene" if is_place else "object"
        if not synsets and head != lemma:
            return self.noun_kind(head)
        if not synsets:
            is_english = lemma.isalpha() and max(lemma) < AFTER_LATIN
            return "object" if is_english and len(lemma) > 2 else None
        synsets = [synset for synset in synsets if not _is_name(synset, lemma)]
        if not synsets:
            return None
        file = synsets[0].file
        if file not in VISIBLE_FILES and not self._mostly_visible(lemma):
            # A compound has the kind of its head: a softball game, a maple leaf.
            if head != lemma and file == "noun.act" and head.endswith("ing"):
                return "action"
            return self.noun_kind(head) if head != lemma else None
        return "scene" if is_place or self.is_place(synsets[0].number) else "object"

    def _mostly_visible(self, lemma: str) -> bool:
        senses = self.wordnet.entry(lemma).senses.get(NOUN, ())
        visible = (n for number, n in senses if self.wordnet.synset(number).file in VISIBLE_FILES)
        return 2 * sum(visible) > self.wordnet.count(lemma, NOUN)

    def _is_noun_compound(self, word: str) -> bool:
        """Whether it is a compound noun, unlike "the city", "cup of tea"."""
        first, *middle, _ = word.split(" ")
        return first not in self.no_first_word and self.no_middle_word.isdisjoint(middle)

    def is_place(self, number: int) -> bool:
        """Whether a synset is a place or an event."""
        return self._is_below(number, self._scene_roots)

    def _is_below(self, number: int, roots: frozenset[int]) -> bool:
        return not roots.isdisjoint([number, *self.wordnet.hypernym_path(number)])

    def _find_roots(self, name: str) -> frozenset[int]:
        """The synsets of a list of "word=index of its sense" entries."""
        roots = _pairs(name).items()
        return frozenset(self.wordnet.entry(w).senses[NOUN][int(i)][0] for w, i in roots)

    def _is_attribute(self, word: str) -> bool:
        if word in self.visible_adjectives or word in self.colors:
            return True
        if word in self.stop_adjectives or word in self.stop_participles:
            return False
        if len(word) < 2 or not word.replace(" ", "").replace("'", "").isalpha():
            return False  # "the 21st"
        if word in self.states:
            return True
        if file := self.first_file(word, ADJECTIVE):
            return file != "adj.pert"
        return word.endswith("ed") and self.wordnet.has(self.verb(word), VERB)


class PhraseIndex(frozenset[str]):
    """Phrases; `longest` maps a first word to the length of its longest phrase of several words."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self.longest: dict[str, int] = {}
        for phrase in self:
            first, _, rest = phrase.partition(" ")
            if rest:
                self.longest[first] = max(self.longest.get(first, 0), rest.count(" ") + 2)

    def length_at(self, words: list[str], i: int) -> int:
        """The number of words of the longest phrase that starts at an index; 1 without one."""
        for length in range(min(self.longest.get(words[i], 1), len(words) - i), 1, -1):
            if " ".join(words[i : i + length]) in self:
                return length
        return 1

    def spans(self, words: list[str]) -> Iterator[tuple[int, int]]:
        """The start and end of each phrase and each other word, the longest, left to right."""
        start = 0
        while start < len(words):
            end = start + self.length_at(words, start)
            yield start, end
            start = end


def _is_name(synset: Synset, lemma: str) -> bool:
    """Whether the word is a proper name: Austin, Crane, but not a crane."""
    forms = [word for word in synset.lemmas if spelled(word) == lemma]
    return synset.is_named_thing or all(word[:1].isupper() for word in forms)


def noun_lemma(word: str, wordnet: WordNet) -> str:
    """The singular of a noun; the word itself where it is no noun or nothing better is known."""
    is_noun = wordnet.has(word, NOUN)
    if is_noun and not word.endswith("s"):
        return word
    is_plural = word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is"))
    if is_plural:
        forms = _singulars(word)
    else:  # "menus", "skis", "ads", but a bus, a gas, an axis stay
        forms = [word[:-1]] if word[-1:] == "s" and word[-2:] != "ss" and not is_noun else []
    for lemma in (*wordnet.entry(word).base_forms.get(NOUN, ()), *forms):
        if wordnet.has(lemma, NOUN):
            return lemma
    for plural, singular in (("men", "man"), ("children", "child")):
        lemma = word.removesuffix(plural) + singular
        if word.endswith(plural) and wordnet.has(lemma, NOUN):
            return lemma
    return _singulars(word)[-1] if is_plural and not is_noun else word


def _singulars(word: str) -> list[str]:
    """The possible singulars of a word that ends in s; the last where no dictionary has one."""
    if word.endswith("ies"):
        return [word[:-1], word[:-3] + "y", word[:-2], word[:-3] + "y"]
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return [word[:-2], word[:-1], word[:-2]]
    if word.endswith("ses"):
        return [word[:-1], word[:-2], word[:-1]]
    return [word[:-1]]


def _stems(stem: str) -> list[str]:
    """The possible base forms of a verb without -ing or -ed, the likelier one first."""
    if DOUBLED.search(stem):
        return [stem, stem[:-1]]
    # "swinging", "bathing", but "riding", "staring".
    return [stem, stem + "e"] if stem.endswith(("ng", "th")) else [stem + "e", stem]
