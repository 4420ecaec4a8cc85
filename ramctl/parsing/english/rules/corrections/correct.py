"""Corrections of part-of-speech tags that captions need, as rows of tables."""

from ramctl.parsing.english.dictionary.lexicon import VISIBLE_FILES, Lexicon, word_set
from ramctl.parsing.english.dictionary.wordnet import ADJECTIVE, NOUN
from ramctl.parsing.english.rules.corrections import nouns, others
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Sentence,
    is_person_or_animal,
)
from ramctl.parsing.english.rules.table import Correction, RuleTable

SIDES = frozenset({"left", "right"})
LAND_VERBS = frozenset(verb + end for verb in word_set("shapes_of_land") for end in ("", "s"))
# Tags before the object of a verb.
OBJECT_STARTS = frozenset({"DT", "PRP$"})
# Tags after a verb without an object.
AFTER_VERB = frozenset({"IN", "RB", "RP", "TO"})


def correct_tags(sentence: Sentence, lexicon: Lexicon) -> None:
    """Correct the tags of a sentence in place, and note which rules did.

    Two passes: single words first, what is no name among them before all else; then what relies
    on its neighbours' corrected tags.
    """
    words, tags = sentence.words, sentence.tags
    for i, word in enumerate(words):
        if tags[i] in nouns.NAMES:
            _correct_word(sentence, i, NAMES.rows_at(word, tags[i]), lexicon)
        if rows := WORDS.rows_at(word, tags[i]):
            _correct_word(sentence, i, rows, lexicon)
    for i, word in enumerate(words):
        if rows := RULES.rows_at(word, tags[i]):
            _correct_word(sentence, i, rows, lexicon)


def _correct_word(
    sentence: Sentence, i: int, rows: tuple[Correction, ...], lexicon: Lexicon
) -> None:
    for rule in rows:
        if tag := rule.pattern(sentence, i, lexicon):
            sentence.tags[i] = tag
            sentence.corrected[i] = (*sentence.corrected.get(i, ()), rule.name)
            break


def _participle_before_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    if sentence.words[i] not in lexicon.states:
        return None
    k = sentence.skip(i + 1, ADJECTIVES | {"VBN"})
    if sentence.tag(k) == "VBG":
        k += 1
    starts = sentence.tag(i - 1) in DETERMINERS | {"IN", ",", "CC", ""}
    return "VBN" if starts and sentence.tag(k) in NOUNS else None


def _doing_of_one(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    if sentence.tag(i - 1) != "NN" or not is_person_or_animal(sentence, i - 1, lexicon):
        return None
    if sentence.tag(i + 1) in NOUNS:  # "a farmer herds sheep"
        is_thing = lexicon.noun_kind(lexicon.noun(word)) is not None
        return "VBZ" if sentence.word(i - 2) in ("a", "an") or not is_thing else None
    if sentence.tag(i + 1) not in AFTER_VERB and sentence.word(i + 1) not in SIDES:
        return None
    lemma = lexicon.noun(word)
    is_seen = lexicon.first_file(lemma) in VISIBLE_FILES or lemma in lexicon.objects
    return "VBZ" if lexicon.is_mostly_verb(word) or not is_seen else None


def _doing_to_it(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A noun phrase does not follow another without a comma: "his hand grips a wrench"."""
    word = sentence.words[i]
    if sentence.tag(i - 1) not in ("NN", "NNP"):
        return None
    is_free = sentence.tag(i + 1) in OBJECT_STARTS and sentence.word(i + 1) not in ("all", "both")
    return "VBZ" if is_free and word.endswith("s") and lexicon.is_plain_verb(word) else None


def _doing_of_many(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A plural is no first part of a compound: "seeds drift across"."""
    word = sentence.words[i]
    goes_on = sentence.tag(i + 1) in AFTER_VERB and sentence.word(i + 1) != "of"
    if sentence.tag(i - 1) != "NNS" or lexicon.verb(word) != word or not goes_on:
        return None
    return "VBP" if lexicon.is_mostly_verb(word) else None


def _lie_of_land(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """The course of a road, of a hose: "a road forks beyond", "hoses snake across"."""
    if sentence.tag(i + 1) != "IN":
        return None
    agrees = (sentence.tag(i - 1), sentence.tags[i]) in (("NN", "NNS"), ("NNS", "NN"))
    if not agrees or sentence.word(i + 1) == "of":
        return None
    if is_person_or_animal(sentence, i - 1, lexicon):
        return None
    return "VBZ" if sentence.tags[i] == "NNS" else "VBP"


def _place_name(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A word that is also the name of a place, where a place is named: "Bath, England"."""
    is_common = sentence.tags[i] in ("NN", "NNS") and sentence.is_capital(i)
    if not is_common or not lexicon.is_also_name(sentence.words[i]):
        return None
    if i == 0 and sentence.word(1) == ":":
        return "NNP"
    at_end = sentence.tag(i + 1) in ("", ".", ",") and sentence.words[i] not in lexicon.objects
    if sentence.word(i - 1) == "in" and at_end:
        return "NNP"  # "a march in Berlin"
    country = sentence.word(i + 2)
    named = sentence.is_capital(i + 2) and lexicon.is_also_name(country)
    is_only_name = named and lexicon.noun_kind(country) is None
    return "NNP" if sentence.word(i + 1) == "," and is_only_name else None


def _adjective_before_year(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    return "JJ" if sentence.tags[i] == "NN" and sentence.tag(i + 1) == "CD" else None


def _adjective_in_title(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    if not sentence.written[i].istitle():
        return None
    if sentence.tag(i + 1) not in NOUNS or sentence.tag(i - 1) in NOUNS:
        return None
    count = lexicon.wordnet.count
    return "JJ" if count(word, ADJECTIVE) > 2 * count(word, NOUN) else None


def _surname(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    named = sentence.is_capital(i) and sentence.word(i - 1) in lexicon.given_names
    is_place = sentence.words[i] in lexicon.landmarks  # "Charles Bridge"
    ends = sentence.tag(i + 1) not in NOUNS - {"NNP"}
    return "NNP" if named and not is_place and ends else None


def _given_name(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    is_name = sentence.is_capital(i) and sentence.is_capital(i + 1)
    is_phrase = sentence.tags[i] in ("NN", "NNP") and sentence.tag(i + 1) in NOUNS | {"JJ"}
    ends = sentence.tag(i + 2) not in NOUNS - {"NNP"}
    return "NNP" if is_name and is_phrase and ends else None


NAMES = RuleTable(nouns.OF_NAMES)
WORDS = RuleTable((*nouns.OF_NOUNS, *others.OF_OTHERS))
RULES = RuleTable((
    Correction("adjective in a title", _adjective_in_title, "Empty Room with Wooden Floor",
               "Oak Table with Drawers", frozenset({"NNP", "NN"})),
    Correction("given name", _given_name, "Jack Black plays the guitar", "A jack and a black cat",
               word_set("given_names")),
    Correction("place name", _place_name, "Turkey: a market in the rain",
               "Turkey on a plate", NOUNS),
    Correction("surname", _surname, "Portrait of John Green, a baker", "A portrait of a green man",
               NOUNS | ADJECTIVES | VERBS),
    Correction("participle before its noun", _participle_before_noun,
               "Around it, crumpled wrapping paper.", "A man crumpled wrapping paper.",
               frozenset({"VBD"})),
    Correction("doing of one", _doing_of_one,
               "A farmer herds sheep down a lane.", "The dog bowls on the floor.",
               frozenset({"NNS"})),
    Correction("doing to it", _doing_to_it, "His left hand grips a wrench.",
               "He sells flowers the whole day.", frozenset({"NNS"})),
    Correction("lie of the land", _lie_of_land, "The road forks beyond the barn.",
               "A woman eats with forks.", LAND_VERBS),
    Correction("doing of many", _doing_of_many, "Its seeds drift across the field.",
               "A sports car in a garage.", frozenset({"NN"})),
    Correction("adjective before a year", _adjective_before_year,
               "Vintage 1962 Fender Guitar", "A vintage guitar", word_set("visible_adjectives")),
))  # fmt: skip
