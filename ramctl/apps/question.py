"""The words of a question: which labels and keywords they name, in any language and inflection."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import NamedTuple

from ramctl.records.labels import Label, normalise

ENGLISH = "en"
_STEMMERS = {"de": "german", "en": "english", "es": "spanish", "fr": "french", "it": "italian"}
# In Chinese and Japanese each character is a word.
_WORDS = re.compile("[\u2e80-\u9fff\uf900-\ufaff]|[^\\W_\u2e80-\u9fff\uf900-\ufaff]+")


class Question(NamedTuple):
    """A text as labels name it."""

    language: str  # empty: it names no label
    labels: list[list[int]]  # the ids that each of its names of labels stands for
    words: list[str]  # all but function words
    unlabelled: list[str]  # those of them that name no label


def words_in(text: str) -> list[str]:
    """The words of a text in normal form."""
    return _WORDS.findall(normalise(text))


def read_question(text: str, labels: Sequence[Label], language: str = "") -> Question:
    """The labels that a text names in this language, or else in the one that names most words."""
    words = words_in(text)
    starts = {_start(word) for word in words if word not in function_words("")}
    names: dict[str, dict[tuple[str, ...], list[int]]] = {ENGLISH: {}}  # by language and stems
    for index, label in enumerate(labels):
        english = ((ENGLISH, name) for name in (label.tag, *label.synonyms))
        for code, name in chain(english, label.names.items()):
            # Few names are left to find the stems of.
            if (not language or code == language) and _start(name) in starts:
                parts = words_in(name)
                for key in {tuple(parts), tuple(stem(part, code) for part in parts)}:
                    names.setdefault(code, {}).setdefault(key, []).append(index)
    found = {code: _label_spans(words, names[code], code) for code in names}
    code = max(found, key=lambda code: sum(map(len, found[code])))
    covered = {*chain(*found[code])}
    code = code if covered else ""
    content = [word for word in words if word not in function_words(code or language)]
    ids = [*found[code].values()] if code else []
    return Question(code, ids, content, [word for word in content if word not in covered])


def _label_spans(
    words: Sequence[str], names: dict[tuple[str, ...], list[int]], language: str
) -> dict[tuple[str, ...], list[int]]:
    """The ids of the labels that words name, the longest names first."""
    found, start = dict[tuple[str, ...], list[int]](), 0
    longest = max(map(len, names), default=0)
    while start < len(words):
        for end in range(min(start + longest, len(words)), start, -1):
            span = tuple(words[start:end])
            ids = names.get(span) or names.get(tuple(stem(word, language) for word in span))
            if ids and not function_words(language).issuperset(span):
                found[span], start = ids, end - 1
                break
        start += 1
    return found


def inflections(word: str, others: Iterable[str], language: str = "") -> list[str]:
    """Those of the others that a word is or is an inflection of, in this or in any language."""
    stems = [(code, stem(word, code)) for code in ([language] if language else _STEMMERS)]
    return [x for x in others if x == word or any(stem(x, code) == root for code, root in stems)]


@cache
def stem(word: str, language: str) -> str:
    """The part of a word that inflection leaves; the word itself in languages without a stemmer."""
    if language not in _STEMMERS:
        return word
    from Stemmer import Stemmer

    return str(Stemmer(_STEMMERS[language]).stemWord(word))


@cache
def _start(name: str) -> str:
    """The first letter without accents, which inflection keeps: `Apfel`, `Äpfel`."""
    return unicodedata.normalize("NFD", name[:1].casefold())[:1]


@cache
def function_words(language: str) -> frozenset[str]:
    """The words of a language, or of all, that name nothing in a photo (`the`)."""
    text = files("ramctl.apps").joinpath("function_words.txt").read_text("utf-8")
    lines = (line.split()[1:] for line in text.splitlines() if line.startswith(language))
    return frozenset(chain(*lines))
