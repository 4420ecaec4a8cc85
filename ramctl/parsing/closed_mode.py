"""Closed mode: captions to the tags of a label system, most of them without part-of-speech tags.

`scripts/build_readings` counts, over caption corpora, which tags open mode gives each word, idiom
and compound, alone and beside each neighbour. A caption of which nearly all counts agree on one
reading of every word needs no tagger and rules. No result depends on what was read before.

The file, after gunzip, has a line for each form: form TAB reading TAB share TAB contexts. A reading
is "tag/kind" joined by "|" (empty: no tag), the share is in thousandths; a context is
"<neighbour=reading" (the word before) or ">neighbour=reading", separated by TAB.
"""

import gzip
import re
from copy import copy
from dataclasses import replace
from functools import cache, lru_cache
from importlib import resources

from ramctl.labels import Label, LabelSystem, normalise
from ramctl.parsing.dictionary.lexicon import POS_OF_KIND, Lexicon, PhraseIndex, word_set
from ramctl.parsing.dictionary.wordnet import NOUN
from ramctl.parsing.rules.sentence import Found, ParsedCaption

Reading = tuple[tuple[str, str], ...]
TOKEN = re.compile(r"[a-z]+(?=n't)|n't|'s|[a-z]+|\d[\d.,]*|[^\sa-z0-9-]")
START, END = "^", "$"
# The share from which a word's commonest reading stands for all (`build_readings` uses it too).
CERTAIN = 0.985
# The share that one reading must have beside a neighbour to be taken there.
LIKELY = 0.7
# These start the object of a verb.
OBJECT_STARTS = frozenset({"a", "an", "the", "his", "her", "their", "its", "another"})


class FrequentReadings:
    """Reads captions by the table of frequent readings; leaves ambiguous ones to the rules."""

    def __init__(self, lines: list[str], lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._ambiguous = word_set("needs_pos_tagger") | word_set("foreign")
        self._always: dict[str, Reading] = {}
        self._mostly: dict[str, Reading] = {}
        self._beside: dict[tuple[str, str], Reading] = {}
        for line in lines:
            form, reading, share, *contexts = line.split("\t")
            if int(share) >= LIKELY * 1000:
                (self._mostly if contexts else self._always)[form] = _reading(reading)
            for context in contexts:
                neighbour, _, other = context.rpartition("=")
                self._beside[form, neighbour] = _reading(other)
        self._forms = PhraseIndex(self._always.keys() | {form for form, _ in self._beside})

    @staticmethod
    @cache
    def shared() -> "FrequentReadings":
        """The reader with the table of the package."""
        packed = resources.files("ramctl.parsing").joinpath("data/readings.gz").read_bytes()
        return FrequentReadings(gzip.decompress(packed).decode().splitlines(), Lexicon.shared())

    def without(self, nouns: frozenset[str]) -> "FrequentReadings":
        """A reader to which every caption with one of the nouns is ambiguous."""
        reader = copy(self)
        forms = {form for form in self._forms if self._lexicon.noun(form) in nouns}
        reader._ambiguous = self._ambiguous | nouns | forms
        return reader

    def read(self, text: str) -> ParsedCaption | None:
        """The parse of a cleaned caption; None where a word is ambiguous."""
        lower = text.lower()
        if not lower.isascii() or '"' in lower:
            return None
        spelling = self._lexicon.spelling
        words = [spelling.get(word, word) for word in TOKEN.findall(lower)]
        if not self._ambiguous.isdisjoint(words) or len(words) < 2:
            return None
        forms = self._joined(words)
        found: list[Found] = []
        phrases: list[str] = []
        for i, form in enumerate(forms):
            reading = self._always.get(form)
            if reading is None:
                reading = self._read_beside(forms, i)
                if reading is None:
                    return None
            for tag, kind in reading:
                found.append(Found(i, tag, kind, form, "frequent reading"))
                if i and kind != "action" and forms[i - 1].isalpha():
                    phrases.append(f"{forms[i - 1]} {tag}")
        return ParsedCaption.of(found, phrases)

    def _joined(self, words: list[str]) -> list[str]:
        """The words with idioms and compounds of the table as one form each, longest first."""
        forms, i = list[str](), 0
        while i < len(words):
            form, length = words[i], 1
            if form in self._forms.longest:
                length = self._forms.length_at(words, i)
                form = " ".join(words[i : i + length])
            forms.append(form)
            i += length
        return forms

    def _read_beside(self, forms: list[str], i: int) -> Reading | None:
        form = forms[i]
        reading = self._beside.get((form, "<" + (forms[i - 1] if i else START)))
        if reading is None:
            after = forms[i + 1] if i + 1 < len(forms) else END
            reading = self._beside.get((form, ">" + after))
            if reading is None and after in OBJECT_STARTS and self._lexicon.is_plain_verb(form):
                return None  # "trains a puppy": what is a thing elsewhere may be an action here
        if reading is None:
            reading = self._mostly.get(form)
        if reading is None and form not in self._forms and not self._may_be_tag(form):
            return ()
        return reading

    def _may_be_tag(self, word: str) -> bool:
        lexicon = self._lexicon
        return word.isalpha() and (
            lexicon.is_plain_noun(lexicon.noun(word))
            or lexicon.is_plain_verb(word)
            or lexicon.is_plain_adjective(word)
        )


def _reading(text: str) -> Reading:
    pairs = (pair.rpartition("/") for pair in text.split("|") if pair)
    return tuple((tag, kind) for tag, _, kind in pairs)


class LabelMapper:
    """Open tags to the tags of a label system: free compounds first, then words, then hypernyms.

    Kinds must agree: a word that is an action here and a thing in the system ("train") is no label.
    A plain word list has no kinds, inflections and synonyms of its own: there any kind agrees, and
    an inflection or a synonym serves for a word that the list does not have.
    """

    def __init__(self, labels: LabelSystem, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._is_plain = all(label.kind == "object" for label in labels)
        if self._is_plain:
            labels = LabelSystem(replace(x, kind=lexicon.kind(normalise(x.tag))) for x in labels)
        self._by_string: dict[str, Label] = {}
        for label in labels:
            for synonym in label.synonyms:
                self._by_string.setdefault(normalise(synonym), label)
        for label in reversed(labels.labels):
            self._by_string[normalise(label.tag)] = label
        self._longest = max(map(len, self._by_string), default=0)
        # By base form, as an action and as anything else: "clogs" by "clog", "casting" by "cast".
        self._by_form: dict[tuple[str, bool], Label] = {}
        for label in labels if self._is_plain else ():
            name = normalise(label.tag)
            self._by_form.setdefault((lexicon.noun(name), False), label)
            self._by_form.setdefault((lexicon.verb(name), True), label)
        self._stand_in = lru_cache(maxsize=20_000)(self._find_stand_in)

    def find(self, text: str) -> Label | None:
        """The label that a string stands for, whatever its kind."""
        return self._by_string.get(normalise(text))

    def label_of_whole_text(self, text: str) -> ParsedCaption | None:
        """The label that the whole text names, even one that is no tag within a sentence."""
        label = self.find(text) if len(text) <= self._longest else None
        if label is None:
            return None
        return ParsedCaption((Found(0, label.tag, label.kind, text, "the whole text"),))

    def map(self, parsed: ParsedCaption) -> ParsedCaption:
        """The caption's labels in order of first mention, with the labels' kinds."""
        whole = {phrase.rpartition(" ")[2]: phrase for phrase in parsed.phrases}
        unique: dict[str, Found] = {}
        for found in parsed.found:
            phrase = whole.get(found.tag)
            label = self._label(phrase, found) if phrase else None
            label = label or self._label(found.tag, found)
            if label is None:
                label = self._label_of_head(found)
            if label is not None:
                kind = found.kind if self._is_plain else label.kind
                new = Found(found.place, label.tag, kind, found.words, found.rule)
                unique.setdefault(label.tag, new)
        return ParsedCaption(tuple(unique.values()))

    def _label(self, text: str, found: Found) -> Label | None:
        label = self._by_string.get(text)
        if label is not None and (
            self._is_plain or (label.kind == "action") == (found.kind == "action")
        ):
            return label
        if found.kind == "action" and " " not in found.words:
            activity = self._by_string.get(found.words.lower())
            if activity is not None and (self._is_plain or activity.kind == "action"):
                return activity
        return self._stand_in(text, found.kind) if self._is_plain else None

    def _find_stand_in(self, text: str, kind: str) -> Label | None:
        """The label of a plain list that stands for a word which the list does not have."""
        if label := self._by_form.get((text, kind == "action")):
            return label
        plain = self._lexicon.plain_words.get(text) or self._lexicon.material(text)
        if label := self._by_string.get(plain):
            return label
        for word in self._lexicon.synonyms(text, kind):
            label = self._by_string.get(word)
            # A label that mostly is something else is no synonym: "quail" for wincing.
            if label and POS_OF_KIND[self._lexicon.kind(word)] == POS_OF_KIND[kind]:
                return label
        return None

    def _label_of_head(self, found: Found) -> Label | None:
        """The label of a compound's last word, if the compound is a kind of it."""
        head = found.tag.rpartition(" ")[2]
        if head == found.tag:
            return None
        wordnet = self._lexicon.wordnet
        if wordnet.has(found.tag, NOUN) and not wordnet.is_kind_of(found.tag, head):
            return None
        return self._label(head, found)
