"""Base forms of English nouns and verbs: spelling rules whose results WordNet confirms."""

import re

from ramctl.parsing.english.dictionary.wordnet import NOUN, VERB, WordNet

# A stem that would double its last consonant before -ing and -ed ("rid", "hop", "sit").
DOUBLING_STEM = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]$")
DOUBLED = re.compile(r"([bdgklmnprtz])\1$")


def noun_lemma(word: str, wordnet: WordNet) -> str:
    """The singular of a noun; the word itself where it is no noun or nothing better is known."""
    if not word.endswith("s") and wordnet.has(word, NOUN):
        return word
    regular = _regular_singular(word, wordnet)
    for lemma in wordnet.entry(word).base_forms.get(NOUN, ()):
        if wordnet.has(lemma, NOUN):
            # "syringes" are no syrinx.
            common = regular and wordnet.count(regular, NOUN) >= wordnet.count(lemma, NOUN)
            return regular if common else lemma
    if regular:
        return regular
    for plural, singular in (("men", "man"), ("children", "child")):
        lemma = word.removesuffix(plural) + singular
        if word.endswith(plural) and wordnet.has(lemma, NOUN):
            return lemma
    if not word.endswith("s") or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return word
    return word if wordnet.has(word, NOUN) else _singulars(word)[-1]


def _regular_singular(word: str, wordnet: WordNet) -> str:
    """The noun that the word is a regular plural of; empty if WordNet has none."""
    if not word.endswith("s") or word.endswith("ss"):
        return ""
    if len(word) < 4 or word.endswith(("us", "is")):
        # "menus", "skis", "ads", but a bus, a gas, an axis stay.
        stem = word[:-1]
        return stem if wordnet.has(stem, NOUN) and not wordnet.has(word, NOUN) else ""
    return next((lemma for lemma in _singulars(word) if wordnet.has(lemma, NOUN)), "")


def _singulars(word: str) -> list[str]:
    if word.endswith("ies"):
        return [word[:-1], word[:-3] + "y"]
    if word.endswith("ves"):
        return [word[:-1], word[:-3] + "f", word[:-3] + "fe", word[:-1]]
    if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")):
        return [word[:-2], word[:-1], word[:-2]]
    if word.endswith("ses"):
        return [word[:-1], word[:-2], word[:-1]]
    return [word[:-1]]


def verb_lemma(word: str, wordnet: WordNet) -> str:
    """The base form of a verb; the word itself where it is one or nothing better is known."""
    for lemma in wordnet.entry(word).base_forms.get(VERB, ()):
        if wordnet.has(lemma, VERB):
            return lemma
    for suffix, stems in (("ing", _stems), ("ied", _y_stem), ("ed", _stems)):
        if word.endswith(suffix) and len(word) > len(suffix) + 1:
            found = [s for s in stems(word[: -len(suffix)]) if wordnet.has(s, VERB)]
            if found:
                return found[0]
    if wordnet.has(word, VERB) or not word.endswith("s"):
        return word
    for lemma in (word[:-1], word[:-2], word[:-3] + "y"):
        if wordnet.has(lemma, VERB):
            return lemma
    return word


def _stems(stem: str) -> list[str]:
    if DOUBLED.search(stem):
        return [stem, stem[:-1]]
    if DOUBLING_STEM.fullmatch(stem):
        return [stem + "e", stem]
    if stem.endswith(
        ("c", "g", "s", "v", "u", "z", "dl", "bl", "tl", "gl", "pl", "kl", "zl", "fl")
    ):
        return [stem + "e", stem] if not stem.endswith(("ng", "ss")) else [stem, stem + "e"]
    if stem.endswith("ck"):
        return [stem, stem[:-1]]
    return [stem, stem + "e"]


def _y_stem(stem: str) -> list[str]:
    return [stem + "y", stem + "ie"]
