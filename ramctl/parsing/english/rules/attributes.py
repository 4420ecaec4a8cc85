"""Adjectives, colours and participles to tags (guidelines: attributes)."""

from ramctl.parsing.english.lexicon import word_set
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    NOUNS,
    Findings,
    Rule,
    RuleTable,
    Sentence,
)

SECOND_PARTS = word_set("second_parts")
GIVES_FIRST_PART = word_set("gives_first_part")
NO_ATTRIBUTE = word_set("no_attribute")
# Tags that may stand before a participle that describes the noun after it.
BEFORE_PARTICIPLE = ADJECTIVES | {"DT", "PRP$", "IN", "CD", "", ",", "CC", "VBG", "RB", "VBN",
                                  "VBZ", "VBP", "POS", "NN", "."}  # fmt: skip
LIGHTNESS = frozenset({"dark", "light", "bright", "pale", "deep"})
# Of a colour the same, of a thing a look: "dusty pink", "a dusty road".
DULLNESS = frozenset({"dusty", "smoky", "muted"})


def _black_and_white(findings: Findings, i: int) -> int | None:
    sentence, end = findings.sentence, i + 3
    if sentence.words[i + 1 : end] != ["and", "white"]:
        return None
    if _is_of_picture(findings, i) or len(sentence) == 3:
        findings.add(i, end, "black and white", "attribute", "black and white picture")
    else:
        findings.add(i, i + 1, "black", "attribute", "colour")
        findings.add(i + 2, end, "white", "attribute", "colour")
    return end


def _is_of_picture(findings: Findings, i: int) -> bool:
    """Whether "black and white" is how a picture is: "a black and white photo", "..., in ..."."""
    sentence, end, pictures = findings.sentence, i + 3, word_set("pictures")
    last = min(sentence.skip(end, ADJECTIVES | {"VBN", "VBG", "NN", "CD"}), end + 3)
    if not pictures.isdisjoint(sentence.words[end : last + 1]):
        return True
    at_end = sentence.tag(end) in ("", ".", ",", "IN", ":")
    stands_alone = at_end and (sentence.word(i - 1) in ("in", ",") or i == 0)
    return stands_alone and not pictures.isdisjoint(sentence.words)


def _phrase(findings: Findings, i: int) -> int | None:
    pair = f"{findings.sentence.words[i]} {findings.sentence.word(i + 1)}"
    if pair not in findings.lexicon.attribute_phrases:
        return None
    return findings.add(i, i + 2, pair, "attribute", "attribute phrase")


def _lightness(findings: Findings, i: int) -> int | None:
    sentence, lexicon = findings.sentence, findings.lexicon
    shades = lexicon.colors | ({"rose"} if sentence.words[i] in DULLNESS else set())
    return i + 1 if sentence.word(i + 1) in shades or sentence.tag(i + 2) == "colored" else None


def color(findings: Findings, i: int) -> int | None:
    """Note a word for a colour; returns the index after it, None where it is none."""
    word = findings.sentence.words[i]
    if word not in findings.lexicon.colors:
        return None
    return findings.add(i, i + 1, word, "attribute", "colour")


def _look(findings: Findings, i: int) -> int | None:
    sentence, lexicon = findings.sentence, findings.lexicon
    word = sentence.words[i]
    if sentence.tags[i] != "JJ" or not lexicon.is_attribute(word):
        return None
    if word not in lexicon.visible_adjectives and _describes_nothing(findings, i):
        return None
    return findings.add(i, i + 1, word, "attribute", "adjective")


def _describes_nothing(findings: Findings, i: int) -> bool:
    """Whether the noun that the adjective describes is no tag: "a striking change"."""
    sentence, lexicon = findings.sentence, findings.lexicon
    k = min(sentence.skip(i + 1, ADJECTIVES | {"VBN", "CC", ","}), i + 6)
    if sentence.tag(k) not in NOUNS or k in sentence.compounds:
        return False
    head = lexicon.noun(sentence.words[sentence.skip(k, NOUNS) - 1])
    is_visible = head in lexicon.colors or head in word_set("vague_places")
    return lexicon.noun_kind(head) is None and not is_visible


def is_second_part(sentence: Sentence, i: int) -> bool:
    """Whether the word ends an attribute of two parts: "covered" in "snow covered"."""
    word, tag = sentence.word(i), sentence.tag(i)
    if not word or sentence.excluded[i] or tag in NOUNS or tag == "VBG":
        return word == "looking" and sentence.tag(i + 1) in NOUNS
    if word in SECOND_PARTS:
        return sentence.tag(i + 1) not in ("DT", "IN")
    return word in NO_ATTRIBUTE and sentence.tag(i + 1) in NOUNS | ADJECTIVES


def _vague_pair(findings: Findings, i: int) -> int | None:
    first, second = findings.sentence.words[i : i + 2]
    is_vague = first in findings.lexicon.stop_adjectives and second in GIVES_FIRST_PART
    return i + 2 if first in LIGHTNESS or is_vague else None


def _first_part(findings: Findings, i: int) -> int | None:
    lexicon = findings.lexicon
    first, second = findings.sentence.words[i : i + 2]
    if second not in GIVES_FIRST_PART:
        return None
    lemma = first if lexicon.is_attribute(first) else lexicon.noun(first)
    if first in lexicon.colors or lexicon.noun_kind(lemma) or lexicon.is_attribute(first):
        findings.add(i, i + 2, lemma, "attribute", f"first part of {second}")
    return i + 2


def _two_parts(findings: Findings, i: int) -> int | None:
    first, second = findings.sentence.words[i : i + 2]
    if second not in NO_ATTRIBUTE and first not in findings.lexicon.stop_adjectives:
        findings.add(i, i + 2, f"{first} {second}", "attribute", "attribute of two parts")
    return i + 2


def participle(findings: Findings, i: int) -> int | None:
    """Note a participle that is an attribute; None where it is to be read as a verb."""
    sentence, lexicon = findings.sentence, findings.lexicon
    word = sentence.words[i]
    if word == "seated":
        return None  # a posture, wherever it stands
    if word in lexicon.stop_participles:
        return i + 1
    k = min(sentence.skip(i + 1, ADJECTIVES | {"VBN", ","}), i + 4)
    before_noun = sentence.tag(k) in NOUNS or k in sentence.compounds
    is_verb = sentence.tags[i] == "VBD" and sentence.tag(i - 1) in NOUNS
    attributive = before_noun and sentence.tag(i - 1) in BEFORE_PARTICIPLE and not is_verb
    has_object = sentence.tags[i] == "VBD" and sentence.tag(i + 1) in ("DT", "PRP$", "PRP")
    is_state = attributive or (word in lexicon.states and not has_object)
    if not is_state or sentence.word(i - 1) == "being":
        return None
    if lexicon.is_attribute(word):
        findings.add(i, i + 1, word, "attribute", "participle")
    return i + 1


ADJECTIVE_RULES = RuleTable((
    Rule("black and white", _black_and_white, "a black and white photo", "a black and tan dog",
         {"black"}),
    Rule("lightness of a colour", _lightness, "a dusty pink wall", "a dark wall",
         LIGHTNESS | DULLNESS),
    Rule("word for a colour", color, "a green wall", "a tall wall"),
    Rule("adjective", _look, "a wooden chair", "a former chair"),
))  # fmt: skip

# Of a word and the second part after it: "snow" for "snow covered" but "heart shaped" whole.
PAIR_RULES = RuleTable((
    Rule("attribute phrase", _phrase, "a multi colored dog", "a snow covered hill"),
    Rule("vague first part", _vague_pair, "light colored walls", "a snow covered hill"),
    Rule("first part", _first_part, "a snow covered hill", "a heart shaped box"),
    Rule("two parts", _two_parts, "a heart shaped box", "a snow covered hill"),
))  # fmt: skip
