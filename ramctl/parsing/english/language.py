"""Whether a caption is in English, by the fraction of its words that are known."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

from ramctl.parsing.english.lexicon import AFTER_LATIN, Lexicon, word_set
from ramctl.parsing.parsed_caption import clean

WORD = re.compile(r"[^\W\d_]{2,}")
# The minimum fraction of known words in a text that has more function words of other languages
# than English ones, and in one that has neither.
MIN_KNOWN_AMONG_FOREIGN = 0.6
MIN_KNOWN = 0.5
MIN_WORDS = 4  # fewer without function words tell no language: "tennis racke", "Sonnenuntergang"


@cache
def _english_alone() -> frozenset[str]:
    return word_set("english") - word_set("shared_words")


def is_english(text: str, lexicon: Lexicon) -> bool:
    """Whether a text is English, or too short to tell: names and slips are no other language."""
    words = WORD.findall(text.lower())
    if lexicon.foreign.isdisjoint(words) and not _english_alone().isdisjoint(words):
        return True
    words = WORD.findall(clean(text))
    n_english = sum(word.lower() in _english_alone() for word in words)
    n = Counter(_kinds(words, lexicon))
    n_words = n["known"] + n["unknown"] + n["foreign"]
    if n["foreign"] > n_english:
        return len(words) == 1 or n["known"] >= MIN_KNOWN_AMONG_FOREIGN * n_words
    is_unknown = n_words >= MIN_WORDS and n_english < 2 and n["known"] < MIN_KNOWN * n_words
    return n["other script"] <= n["known"] and not is_unknown


def _kinds(words: list[str], lexicon: Lexicon) -> Iterator[str]:
    """The kind of each word: known, foreign (a function word), name, other script or unknown."""
    for i, word in enumerate(words):
        form = word.lower()
        forms = (form, lexicon.noun(form), lexicon.verb(form))
        if form in lexicon.foreign:
            in_name = 0 < i < len(words) - 1 and (words[i - 1][0] + words[i + 1][0]).isupper()
            yield "name" if in_name else "foreign"  # "Sangre de Cristo"
        elif form[0] >= AFTER_LATIN:
            yield "other script"
        elif form in lexicon.english or any(map(lexicon.is_known, forms)):
            yield "known"
        else:
            yield "unknown" if word == form else "name"
