"""Corrections of the tags of adjectives, verbs and rare words: what is a noun instead."""

from ramctl.parsing.english.dictionary.lexicon import VISIBLE_FILES, Lexicon, word_set
from ramctl.parsing.english.dictionary.wordnet import ADJECTIVE, ADVERB, NOUN, VERB
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    AFTER_HEAD,
    AFTER_SURE_HEAD,
    DETERMINERS,
    MAKES_NOUN,
    NOUNS,
    Sentence,
    is_comparative,
    is_person_or_animal,
    uses,
)
from ramctl.parsing.english.rules.table import Correction

BARE_SUBJECTS = word_set("bare_subjects")
NEVER_NOUNS = word_set("never_nouns")
# Tags that spaCy gives words it does not know.
RARELY_NOUNS = frozenset({"RB", "RBR", "RBS", "PRP", "XX", "AFX", "RP", "MD"})
UNUSUAL = frozenset({"FW", "UH"})
FINITE_OR_PAST = frozenset({"VBZ", "VBP", "VB", "VBD", "VBN"})
# Before "to" and a place: "next to pole", "the path leading to sand".
LEADING_TO = frozenset({"next", "close", "adjacent", "attached", "leading", "connected", "tied"})
PHRASE = NOUNS | ADJECTIVES | {"VBN", "HYPH"}
AFTER_BARE_HEAD = (AFTER_HEAD | {","}) - {"RB", "RP"}


def _number(word: str, lexicon: Lexicon) -> str:
    """The tag of a noun by its form."""
    return "NN" if lexicon.noun(word) == word else "NNS"


def _no_adjective(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A word that no dictionary has as an adjective."""
    word = sentence.words[i]
    known = word in lexicon.colors or word in lexicon.stop_adjectives
    if known or lexicon.is_plain_adjective(word):
        return None
    if lexicon.is_plain_noun(word):
        return None if is_comparative(word, lexicon) else "NN"
    if lexicon.is_plain_noun(lexicon.noun(word)):
        return "NNS"  # "ducks and geese"
    if not lexicon.is_plain_verb(word):
        return None
    return "VBN" if word.endswith("ed") else "VBG" if word.endswith("ing") else None


def _head_of_phrase(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """An "adjective" that can be a noun heads its phrase: "a locomotive at"."""
    word, after = sentence.words[i], sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    kind = lexicon.noun_kind(lemma) if lexicon.is_plain_noun(lemma) else None
    if word in lexicon.colors or kind is None or after not in AFTER_SURE_HEAD:
        return None
    if is_comparative(word, lexicon):
        heads = sentence.tag(i - 1) in ("DT", "PRP$", "POS") and after in AFTER_HEAD
    elif word in lexicon.stop_adjectives:
        heads = _heads_though_vague(sentence, i, lexicon)
    elif after not in AFTER_HEAD or word in lexicon.visible_adjectives:
        heads = _surely_heads(sentence, i, lexicon)
    else:
        heads = _heads_by_use(sentence, i, kind, lexicon)
    return _number(word, lexicon) if heads else None


def _heads_though_vague(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    before, lemma = sentence.tag(i - 1), lexicon.noun(sentence.words[i])
    file = lexicon.first_file(lemma)
    is_person = file == "noun.person" and uses(lemma, NOUN, lexicon) > 0
    return (is_person and before == "DT") or (before == "PRP$" and file in VISIBLE_FILES)


def _surely_heads(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    word, after = sentence.words[i], sentence.tag(i + 1)
    as_noun = uses(lexicon.noun(word), NOUN, lexicon)
    as_adjective = uses(word, ADJECTIVE, lexicon)
    is_even = as_noun == as_adjective and word not in lexicon.visible_adjectives
    goes_on = (after == "CC" and sentence.tag(i + 2) not in DETERMINERS) or (
        after == "," and as_adjective >= 0
    )
    stands = sentence.tag(i - 1) in MAKES_NOUN | {"NN"}
    return stands and (as_noun > as_adjective or is_even) and not goes_on


def _heads_by_use(sentence: Sentence, i: int, kind: str, lexicon: Lexicon) -> bool:
    word, before = sentence.words[i], sentence.tag(i - 1)
    as_noun = uses(lexicon.noun(word), NOUN, lexicon)
    as_adjective = uses(word, ADJECTIVE, lexicon)
    if before in MAKES_NOUN:
        return as_noun >= as_adjective or _is_determined(sentence, i)
    if before == "NN":
        return as_noun >= as_adjective or kind == "scene"
    return as_adjective == 0 and not (before == "CC" and sentence.tag(i - 2) in ADJECTIVES)


def _is_determined(sentence: Sentence, i: int) -> bool:
    """Whether only adjectives stand between the word and its determiner."""
    k = sentence.skip_back(i - 1, ADJECTIVES)
    return sentence.tag(k) in ("DT", "PRP$", "POS") and sentence.word(k) not in BARE_SUBJECTS


def _noun_after_all(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "verb" that cannot be one: it has no verb sense, or a determiner stands before it."""
    word = sentence.words[i]
    if not lexicon.wordnet.has(lexicon.noun(word), NOUN) or word in NEVER_NOUNS:
        return None
    is_noun = not lexicon.is_plain_verb(word) or _stands_as_noun(sentence, i, lexicon)
    return _number(word, lexicon) if is_noun else None


def _stands_as_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    word, tag, before = sentence.words[i], sentence.tags[i], sentence.tag(i - 1)
    determined = before in ("DT", "PRP$", "POS") and sentence.word(i - 1) not in BARE_SUBJECTS
    if tag in ("VBD", "VBN"):
        return _past_stands_as_noun(sentence, i, determined, lexicon)
    if before in ("CC", ",", "IN") and word not in lexicon.verb_forms:
        verb_uses = lexicon.wordnet.count(lexicon.verb(word), VERB)
        return verb_uses == 0 and lexicon.wordnet.count(lexicon.noun(word), NOUN) > 0
    return determined or (before in ADJECTIVES and tag != "VBZ")


def _past_stands_as_noun(sentence: Sentence, i: int, determined: bool, lexicon: Lexicon) -> bool:
    after = sentence.tag(i + 1)
    colored = sentence.word(i - 1) in lexicon.colors
    described = determined or sentence.tag(i - 1) in ADJECTIVES
    in_color = colored and sentence.tag(i - 2) == "DT"
    if sentence.tags[i] == "VBD" and (described or in_color) and after not in NOUNS:
        # "a yellow rose next to"
        return lexicon.noun_kind(lexicon.noun(sentence.words[i])) is not None
    return (described or colored) and after in ("IN", ".", "", "CC", "RP")


def _noun_by_use(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "verb" that mostly is a noun and has no fitting subject: "a chef hat/VBP"."""
    word = sentence.words[i]
    if sentence.tags[i] in ("VBD", "VBN") or word in NEVER_NOUNS:
        return None
    if sentence.tag(i + 1) in ("DT", "PRP$", "PRP") or not lexicon.noun_kind(lexicon.noun(word)):
        return None
    if word == "leaves":
        is_noun = _are_leaves(sentence, i, lexicon)
    elif i == 0:
        is_noun = _starts_as_noun(sentence, lexicon)
    else:
        is_noun = _is_noun_within(sentence, i, lexicon)
    return _number(word, lexicon) if is_noun else None


def _are_leaves(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    has_no_subject = before in NOUNS | {""} and not is_person_or_animal(sentence, i - 1, lexicon)
    return before in ADJECTIVES or (has_no_subject and after in AFTER_HEAD | {",", "CC"})


def _starts_as_noun(sentence: Sentence, lexicon: Lexicon) -> bool:
    word = sentence.words[0]
    as_noun = lexicon.wordnet.count(lexicon.noun(word), NOUN)
    as_verb = lexicon.wordnet.count(lexicon.verb(word), VERB)
    return as_noun > 2 * as_verb or as_noun == as_verb == 0


def _is_noun_within(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    as_noun = lexicon.wordnet.count(lexicon.noun(word), NOUN)
    as_verb = lexicon.wordnet.count(lexicon.verb(word), VERB)
    if tag == "VB" and before == "TO":
        return as_noun > as_verb and sentence.word(i - 2) in LEADING_TO
    if tag in ("VB", "VBP") and before == "CC":  # "a robe and hat"
        joined = sentence.tag(i - 2) in NOUNS and word not in lexicon.verb_forms
        return joined and as_noun > 2 * as_verb and after in AFTER_BARE_HEAD
    goes_on = after in AFTER_SURE_HEAD - {"RP", "RB"}
    is_rare = as_noun >= 8 and as_noun > 10 * as_verb
    return tag in ("VBP", "VBZ") and before in NOUNS and goes_on and is_rare


def _unusual_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    return "NN" if lexicon.is_plain_noun(lexicon.noun(sentence.words[i])) else None


def _unusual_look(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    is_look = sentence.words[i] in lexicon.colors | lexicon.visible_adjectives
    return "JJ" if is_look else None


def _mistaken_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A word with a rare tag that can only be a noun: "fire hydrant/RB"."""
    word = sentence.words[i]
    lemma = lexicon.noun(word)
    is_tag = lexicon.is_plain_noun(lemma) and lexicon.noun_kind(lemma) is not None
    if word in NEVER_NOUNS or not is_tag or is_comparative(word, lexicon):
        return None
    return _number(word, lexicon) if _stands_as_mistaken(sentence, i, lexicon) else None


def _stands_as_mistaken(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    if sentence.tags[i] == "MD":
        return before in PHRASE | DETERMINERS and after in AFTER_HEAD - {"RB", "VBP", "VBZ"}
    if lexicon.wordnet.has(word, ADVERB) or lexicon.is_plain_adjective(word):
        is_used = sentence.tags[i] == "RB" and lexicon.wordnet.count(lexicon.noun(word), NOUN) > 0
        return is_used and before in MAKES_NOUN and after in ("IN", ".", "")
    return after not in ("DT", "PRP$")


OF_OTHERS = (
    Correction("no adjective", _no_adjective, "ducks and geese near a pond", "a wet pond",
               ADJECTIVES),
    Correction("head of its phrase", _head_of_phrase, "a locomotive at a station",
               "an empty station", ADJECTIVES),
    Correction("noun by use", _noun_by_use, "mirror over sink",
               "dogs run", FINITE_OR_PAST),
    Correction("noun after all", _noun_after_all, "a yellow rose next to a tree",
               "a cat sleeps", FINITE_OR_PAST),
    Correction("unusual noun", _unusual_noun, "Boy playing with a truck.",
               "a dog on a beach", UNUSUAL),
    Correction("unusual look", _unusual_look, "a boy jumping barefoot into a lake",
               "a boy quickly jumping", UNUSUAL | {"RB"}),
    Correction("mistaken noun", _mistaken_noun, "two geese near a metal can",
               "a boy can jump", RARELY_NOUNS),
)  # fmt: skip
