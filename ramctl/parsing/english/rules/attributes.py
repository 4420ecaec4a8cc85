"""Adjectives, colours and participles to tags (guidelines: attributes)."""

from ramctl.parsing.english.dictionary.lexicon import word_set
from ramctl.parsing.english.rules.sentence import ADJECTIVES, NOUNS, Findings, Sentence

SECOND_PARTS = word_set("second_parts")
GIVES_FIRST_PART = word_set("gives_first_part")
NO_ATTRIBUTE = word_set("no_attribute")
# Tags that may stand before a participle that describes the noun after it.
BEFORE_PARTICIPLE = ADJECTIVES | {"DT", "PRP$", "IN", "CD", "", ",", "CC", "VBG", "RB", "VBN",
                                  "VBZ", "VBP", "POS", "NN", "."}  # fmt: skip
BLOND = frozenset({"blond", "blonde", "brunette", "auburn"})
LIGHTNESS = frozenset({"dark", "light", "bright", "pale", "deep"})


def adjective(findings: Findings, i: int) -> int:
    """Note the attribute at an index; returns the index after it."""
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
    """Note an attribute that is tagged as something else; returns the index after it."""
    word = findings.sentence.words[i]
    if findings.lexicon.is_attribute(word):
        findings.add(i, i + 1, word, "attribute", "adjective")
    return i + 1


def _describes_nothing(findings: Findings, i: int) -> bool:
    """Whether the noun that the adjective describes is no tag: "a striking change"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    k = min(sentence.skip(i + 1, ADJECTIVES | {"VBN", "CC", ","}), i + 6)
    if sentence.tag(k) not in NOUNS or k in sentence.compounds:
        return False
    head = lexicon.noun(sentence.words[sentence.skip(k, NOUNS) - 1])
    is_seen = head in lexicon.colors or head in word_set("vague_places")
    return lexicon.noun_kind(head) is None and not is_seen


def is_second_part(sentence: Sentence, i: int) -> bool:
    """Whether the word ends an attribute of two parts: "covered" in "snow covered"."""
    word, tag = sentence.word(i), sentence.tag(i)
    if not word or sentence.excluded[i] or tag in NOUNS or tag == "VBG":
        return word == "looking" and sentence.tag(i + 1) in NOUNS
    if word in SECOND_PARTS:
        return sentence.tag(i + 1) not in ("DT", "IN")
    return word in NO_ATTRIBUTE and sentence.tag(i + 1) in NOUNS | ADJECTIVES


def with_second_part(findings: Findings, i: int) -> int:
    """Note "snow" for "snow covered" but "heart shaped" whole; returns the index after both."""
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
            findings.add(i, i + 2, lemma, "attribute", f"first part of {second}")
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
        and (sentence.word(i - 1) in ("in", ",") or i == 0)
        and not word_set("pictures").isdisjoint(sentence.words)
    )
    if of_picture or len(sentence) == 3:
        findings.add(i, end, "black and white", "attribute", "black and white picture")
    else:
        findings.add(i, i + 1, "black", "attribute", "colour")
        findings.add(i + 2, i + 3, "white", "attribute", "colour")
    return end


def participle(findings: Findings, i: int) -> bool:
    """Note a participle that is an attribute; returns whether nothing else is left to do."""
    sentence, lexicon = findings.sentence, findings.lexicon
    word = sentence.words[i]
    if word == "seated":
        return False  # a posture, wherever it stands
    if word in lexicon.stop_participles:
        return True
    is_past = sentence.tags[i] == "VBD"
    attributive = _is_attributive(findings, i) and not (is_past and sentence.tag(i - 1) in NOUNS)
    has_object = sentence.tag(i + 1) in ("DT", "PRP$", "PRP")
    if is_past and not attributive and has_object:
        return False
    if attributive or word in lexicon.states:
        after = sentence.skip(i + 1, {"RB"})
        if sentence.word(after) == "by" or sentence.word(i - 1) == "being":
            return False
        if lexicon.is_attribute(word):
            findings.add(i, i + 1, word, "attribute", "participle")
        return True
    return False


def _is_attributive(findings: Findings, i: int) -> bool:
    """Whether the participle stands before its noun."""
    sentence = findings.sentence
    k = min(sentence.skip(i + 1, ADJECTIVES | {"VBN", ","}), i + 4)
    if sentence.tag(k) not in NOUNS and k not in sentence.compounds:
        return False
    return sentence.tag(i - 1) in BEFORE_PARTICIPLE
