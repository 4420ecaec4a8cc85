"""Adjectives, colours and participles to tags (guidelines: attributes)."""

from __future__ import annotations

from ramctl.parsing.found import Findings
from ramctl.parsing.lists import word_set
from ramctl.parsing.sentence import ADJECTIVES, NOUNS, Sentence

#: Second parts of "snow covered", "heart shaped", "red haired".
SECOND_PARTS = frozenset({"colored", "shaped", "haired", "covered", "capped", "toned", "faced",
                          "patterned", "themed", "sleeved", "clad", "lined", "topped", "filled",
                          "uniformed", "eyed", "skinned", "wrapped", "flavored",
                          "encrusted", "studded", "tipped", "hued", "backed",
                          "necked", "legged", "tailed", "winged", "edged", "bodied"})  # fmt: skip
GIVES_FIRST_PART = frozenset({"colored", "covered", "capped", "toned", "patterned", "lined",
                              "topped", "filled", "uniformed", "clad", "wrapped",
                              "encrusted", "studded", "tipped", "hued"})  # fmt: skip
NO_ATTRIBUTE = frozenset({"aged", "sized", "looking", "based", "style", "length", "size", "made",
                          "related", "like", "owned", "year", "fashioned"})  # fmt: skip
#: What may stand before a participle that describes the noun after it.
BEFORE_PARTICIPLE = ADJECTIVES | {"DT", "PRP$", "IN", "CD", "", ",", "CC", "VBG", "RB", "VBN",
                                  "VBZ", "VBP", "POS", "NN", "."}  # fmt: skip
BLOND = frozenset({"blond", "blonde", "brunette", "auburn"})
LIGHTNESS = frozenset({"dark", "light", "bright", "pale", "deep"})


def adjective(findings: Findings, i: int) -> int:
    """Note the attribute at a place; the place after it."""
    sentence, lexicon = findings.sentence, findings.lexicon
    word = sentence.words[i]
    if word == "black" and sentence.words[i + 1 : i + 3] == ["and", "white"]:
        return _black_and_white(findings, i)
    after = sentence.word(i + 1)
    pair = f"{word} {after}"
    if pair in lexicon.attribute_phrases:
        findings.add(i, i + 2, pair, "attribute", "attribute phrase")
        return i + 2
    if word in LIGHTNESS and (after in lexicon.colors or sentence.tag(i + 2) == "colored"):
        return i + 1
    if word in lexicon.colors:
        findings.add(i, i + 1, word, "attribute", "colour")
    elif sentence.tags[i] == "JJ" and lexicon.is_attribute(word) and (
        word in lexicon.visible_adjectives or not _describes_nothing(findings, i)
    ):  # fmt: skip
        findings.add(i, i + 1, word, "attribute", "adjective")
    return i + 1


def as_attribute(findings: Findings, i: int) -> int:
    """Note an attribute that the tagger has for another word; the place after it."""
    word = findings.sentence.words[i]
    if findings.lexicon.is_attribute(word):
        findings.add(i, i + 1, word, "attribute", "adjective")
    return i + 1


def _describes_nothing(findings: Findings, i: int) -> bool:
    """Whether the noun that the adjective at a place describes is no tag: "a striking change"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    k = i + 1
    while sentence.tag(k) in ADJECTIVES | {"VBN", "CC", ","} and k < i + 6:
        k += 1
    if sentence.tag(k) not in NOUNS or k in sentence.units:
        return False
    while sentence.tag(k + 1) in NOUNS:
        k += 1
    head = lexicon.noun(sentence.words[k])
    is_seen = head in lexicon.colors or head in word_set("vague_places")
    return lexicon.noun_kind(head) is None and not is_seen


def is_second_part(sentence: Sentence, i: int) -> bool:
    """Whether the word at a place ends an attribute of two parts: "covered" in "snow covered"."""
    word, tag = sentence.word(i), sentence.tag(i)
    if not word or sentence.muted[i] or tag in NOUNS or tag == "VBG":
        return word == "looking" and sentence.tag(i + 1) in NOUNS
    if word in SECOND_PARTS:
        return sentence.tag(i + 1) not in ("DT", "IN")
    return word in NO_ATTRIBUTE and sentence.tag(i + 1) in NOUNS | ADJECTIVES


def with_second_part(findings: Findings, i: int) -> int:
    """Note "snow" for "snow covered", "heart shaped" for itself; the place after the two."""
    sentence, lexicon = findings.sentence, findings.lexicon
    first, second = sentence.words[i], sentence.words[i + 1]
    pair = f"{first} {second}"
    if pair in lexicon.attribute_phrases:
        findings.add(i, i + 2, pair, "attribute", "attribute phrase")
        return i + 2
    if first in LIGHTNESS or (first in lexicon.stop_adjectives and second in GIVES_FIRST_PART):
        return i + 2
    if second in GIVES_FIRST_PART:
        lemma = first if lexicon.is_attribute(first) else lexicon.noun(first)
        if first in lexicon.colors or lexicon.noun_kind(lemma) or lexicon.is_attribute(first):
            kind = "attribute"
            findings.add(i, i + 2, lemma, kind, f"first part of {second}")
    elif second == "haired" and first in BLOND:
        findings.add(i, i + 2, first, "attribute", "first part of haired")
    elif second not in NO_ATTRIBUTE and first not in lexicon.stop_adjectives:
        findings.add(i, i + 2, pair, "attribute", "attribute of two parts")
    return i + 2


def _black_and_white(findings: Findings, i: int) -> int:
    sentence = findings.sentence
    end = i + 3
    k = end
    while sentence.tag(k) in ADJECTIVES | {"VBN", "VBG", "NN", "CD"} and (
        sentence.word(k) not in word_set("pictures") and k < end + 3
    ):
        k += 1
    at_end = sentence.tag(end) in ("", ".", ",", "IN", ":")
    of_picture = sentence.word(k) in word_set("pictures") or (
        at_end
        and (sentence.word(i - 1) == "in" or i == 0)
        and not word_set("pictures").isdisjoint(sentence.words)
    )
    if of_picture or len(sentence) == 3:
        findings.add(i, end, "black and white", "attribute", "black and white picture")
    else:
        findings.add(i, i + 1, "black", "attribute", "colour")
        findings.add(i + 2, i + 3, "white", "attribute", "colour")
    return end


def participle(findings: Findings, i: int) -> bool:
    """Note a participle that is an attribute; whether it was one (or is none of the tags)."""
    sentence, lexicon = findings.sentence, findings.lexicon
    word = sentence.words[i]
    if word == "seated":
        return False  # a posture, wherever it stands
    attributive = is_attributive(findings, i)
    if word in lexicon.stop_participles:
        return True
    if sentence.tags[i] == "VBD" and sentence.tag(i - 1) in NOUNS:
        attributive = False
    if sentence.tags[i] == "VBD" and not attributive and _has_object(findings, i):
        return False
    if attributive or word in lexicon.states:
        if sentence.word(i + 1) == "by" or sentence.word(i - 1) == "being":
            return False
        if lexicon.is_attribute(word):
            findings.add(i, i + 1, word, "attribute", "participle")
        return True
    return False


def is_attributive(findings: Findings, i: int) -> bool:
    """Whether the participle at a place stands before its noun."""
    sentence = findings.sentence
    k = i + 1
    while sentence.tag(k) in ADJECTIVES | {"VBN", ","} and k < i + 4:
        k += 1
    if sentence.tag(k) not in NOUNS and k not in sentence.units:
        return False
    return sentence.tag(i - 1) in BEFORE_PARTICIPLE


def _has_object(findings: Findings, i: int) -> bool:
    return findings.sentence.tag(i + 1) in ("DT", "PRP$", "PRP")
