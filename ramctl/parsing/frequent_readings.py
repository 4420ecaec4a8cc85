"""The quick reading of a caption: words whose tag is the same nearly wherever they stand.

`scripts/build_readings` counts, over caption corpora, which tags the open mode gave each word
(and each idiom and compound), alone and beside each neighbour. Where one reading has nearly all
the counts, no tagger is needed; where any word of a caption is in doubt, the caption is read by
the tagger and the rules. The result does not depend on what was read before.

The file, after gunzip: a line a form: form TAB reading TAB share TAB contexts; a reading is
"tag/kind" joined by "|" (empty: no tag), the share is in thousandths; a context is
"<neighbour=reading" (the word before) or ">neighbour=reading", separated by TAB.
"""

from __future__ import annotations

import gzip
import re
from copy import copy
from functools import cache
from importlib import resources

from ramctl.parsing.found import Found
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.lists import word_set

Reading = tuple[tuple[str, str], ...]
TOKEN = re.compile(r"[a-z]+(?=n't)|n't|'s|[a-z]+|\d[\d.,]*|[^\sa-z0-9-]")
START, END = "^", "$"
#: The share from which a word's commonest reading stands for all (also `build_readings`).
CERTAIN = 0.985
#: The share that a neighbour must give one reading for it to be taken.
LIKELY = 0.7
NO_READING: Reading = ()
#: What starts the object of a verb.
OBJECT_STARTS = frozenset({"a", "an", "the", "his", "her", "their", "its", "another"})


class QuickReader:
    """Reads captions by the table of readings; doubtful ones not at all."""

    def __init__(self, lines: list[str], lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._hard = word_set("hard_to_read_quickly")
        self._always: dict[str, Reading] = {}
        self._mostly: dict[str, Reading] = {}
        self._beside: dict[tuple[str, str], Reading] = {}
        self._longest: dict[str, int] = {}
        for line in lines:
            form, reading, share, *contexts = line.split("\t")
            if " " in form:
                first = form.partition(" ")[0]
                self._longest[first] = max(self._longest.get(first, 0), form.count(" ") + 1)
            if int(share) >= LIKELY * 1000:
                (self._mostly if contexts else self._always)[form] = _reading(reading)
            for context in contexts:
                neighbour, _, other = context.rpartition("=")
                self._beside[form, neighbour] = _reading(other)
        self._forms = self._always.keys() | {form for form, _ in self._beside}

    @staticmethod
    @cache
    def shared() -> QuickReader:
        """The reader with the table that the package ships."""
        packed = resources.files("ramctl.parsing").joinpath("data/readings.gz").read_bytes()
        return QuickReader(gzip.decompress(packed).decode().splitlines(), Lexicon.shared())

    def doubting(self, nouns: frozenset[str]) -> QuickReader:
        """A reader that is in doubt wherever one of the nouns stands."""
        reader = copy(self)
        forms = {form for form in self._forms if self._lexicon.noun(form) in nouns}
        reader._hard = self._hard | nouns | forms
        return reader

    def read(self, text: str) -> tuple[list[Found], list[str]] | None:
        """(tags, free compounds) of a cleaned caption in order; None where a word is in doubt."""
        lower = text.lower()
        if not lower.isascii() or '"' in lower:
            return None
        spelling = self._lexicon.spelling
        words = [spelling.get(word, word) for word in TOKEN.findall(lower)]
        if not self._hard.isdisjoint(words) or len(words) < 2:
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
        return found, phrases

    def _joined(self, words: list[str]) -> list[str]:
        """The words with idioms and compounds of the table as one form each, longest first."""
        longest, forms, i, n = self._longest, list[str](), 0, len(words)
        while i < n:
            reach = longest.get(words[i], 1)
            length = min(reach, n - i)
            while length > 1 and " ".join(words[i : i + length]) not in self._forms:
                length -= 1
            forms.append(" ".join(words[i : i + length]) if length > 1 else words[i])
            i += length
        return forms

    def _read_beside(self, forms: list[str], i: int) -> Reading | None:
        form = forms[i]
        reading = self._beside.get((form, "<" + (forms[i - 1] if i else START)))
        if reading is None:
            after = forms[i + 1] if i + 1 < len(forms) else END
            reading = self._beside.get((form, ">" + after))
            if reading is None and after in OBJECT_STARTS and self._lexicon.is_plain_verb(form):
                return None  # "trains a puppy": a thing elsewhere may be a doing here
        if reading is None:
            reading = self._mostly.get(form)
        if reading is None and form not in self._forms and not self._may_be_tag(form):
            return NO_READING
        return reading

    def _may_be_tag(self, word: str) -> bool:
        lexicon = self._lexicon
        return word.isalpha() and (
            lexicon.is_plain_noun(lexicon.noun(word))
            or lexicon.is_plain_verb(word)
            or lexicon.is_plain_adjective(word)
        )


def _reading(text: str) -> Reading:
    if not text:
        return NO_READING
    pairs = (pair.rpartition("/") for pair in text.split("|"))
    return tuple((tag, kind) for tag, _, kind in pairs)
