"""Frequent readings: most captions of closed mode are read without part-of-speech tags.

`scripts/build_readings.py` counts, over caption corpora, which tags open mode gives each word,
idiom and compound, alone and beside each neighbour. A caption of which nearly all counts agree on
one reading of every word needs no tagger and rules. No result depends on what was read before.

The file, after gunzip, has a line for each form: form TAB reading TAB fraction TAB contexts. A
reading is "tag/kind" joined by "|" (empty: no tag), the fraction is in thousandths; a context is
"<neighbour=reading" (the word before) or ">neighbour=reading", separated by TAB.
"""

import gzip
import re
from functools import cache
from importlib import resources

from ramctl.parsing.captions import Mention, ParsedCaption
from ramctl.parsing.english.lexicon import Lexicon, PhraseIndex, word_set

Reading = tuple[tuple[str, str], ...]
TOKEN = re.compile(r"[a-z]+(?=n't)|n't|'s|[a-z]+|\d[\d.,]*|[^\sa-z0-9-]")
# A capital within a sentence: the rules tell Tiger Woods from woods.
NAME = re.compile(r"[a-z,] [A-Z]")
START, END = "^", "$"
# The fraction from which a word's commonest reading stands for all (`build_readings` uses it too).
CERTAIN = 0.985
# The fraction that one reading must have beside a neighbour to be taken there.
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
            form, reading, fraction, *contexts = line.split("\t")
            if int(fraction) >= LIKELY * 1000:
                (self._mostly if contexts else self._always)[form] = _reading(reading)
            for context in contexts:
                neighbour, _, other = context.rpartition("=")
                self._beside[form, neighbour] = _reading(other)
        self._forms = PhraseIndex(self._always.keys() | {form for form, _ in self._beside})
        # The table does not know of nouns that this lexicon accepts besides.
        if nouns := lexicon.accepted:
            self._ambiguous |= nouns | {f for f in self._forms if lexicon.noun(f) in nouns}

    @staticmethod
    @cache
    def shared(lexicon: Lexicon) -> "FrequentReadings":
        """The reader with the table of the package, opened once per process."""
        packed = resources.files("ramctl.parsing.english").joinpath("data/readings.gz").read_bytes()
        return FrequentReadings(gzip.decompress(packed).decode().splitlines(), lexicon)

    def read(self, text: str) -> ParsedCaption | None:
        """The parse of a cleaned caption; None where a word is ambiguous or may be a name."""
        if NAME.search(text):
            return None
        lower = text.lower()
        if not lower.isascii() or '"' in lower:
            return None
        words = [self._lexicon.spelling.get(word, word) for word in TOKEN.findall(lower)]
        if not self._ambiguous.isdisjoint(words) or len(words) < 2:
            return None
        # Idioms and compounds of the table are one form each.
        forms = [" ".join(words[start:end]) for start, end in self._forms.spans(words)]
        mentions: list[Mention] = []
        phrases: list[str] = []
        for i, form in enumerate(forms):
            reading = self._always.get(form)
            if reading is None and (reading := self._read_beside(forms, i)) is None:
                return None
            for tag, kind in reading:
                mentions.append(Mention(i, tag, kind, form, "frequent reading"))
                if i and kind != "action" and forms[i - 1].isalpha():
                    phrases.append(f"{forms[i - 1]} {tag}")
        return ParsedCaption.of(mentions, phrases)

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
        lexicon = self._lexicon
        may_be_tag = form in self._forms or (form.isalpha() and (
            lexicon.is_plain_noun(lexicon.noun(form))
            or lexicon.is_plain_verb(form)
            or lexicon.is_plain_adjective(form)
        ))  # fmt: skip
        return () if reading is None and not may_be_tag else reading


def _reading(text: str) -> Reading:
    pairs = (pair.rpartition("/") for pair in text.split("|") if pair)
    return tuple((tag, kind) for tag, _, kind in pairs)
