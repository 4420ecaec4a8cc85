"""Corrections of the tags of nouns and names: what is a name, an adjective or a verb instead."""

from ramctl.parsing.english.dictionary.lexicon import Lexicon, word_set
from ramctl.parsing.english.dictionary.wordnet import NOUN, VERB
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    MAKES_NOUN,
    NOUNS,
    VERBS,
    Sentence,
    is_person_or_animal,
    starts_with_one,
)
from ramctl.parsing.english.rules.table import Correction

# Tags that may follow a verb that was tagged as a noun.
AFTER_VERB = frozenset({"DT", "PRP$", "IN", "RP", "TO", "RB", "PRP", "CC", "", ".", ",", "VBG"})
# Tags before an -ing word that is a verb with an object: "sitting and drinking water".
BEFORE_GERUND = NOUNS | VERBS | {"CC", ",", "PRP", "RB", ""}
COMMON = frozenset({"NN", "NNS"})
NAMES = frozenset({"NNP", "NNPS"})
GERUND = frozenset({"VBG"})
# Colours that are things as often.
THINGS_OF_COLOR = frozenset({"orange", "gold", "silver", "salmon"})


def _is_lower(sentence: Sentence, i: int) -> bool:
    """Whether a capital would say nothing here."""
    return sentence.written[i][:1].islower() or sentence.is_title or i == 0


def _is_common(sentence: Sentence, i: int) -> bool:
    is_beside_name = any(
        sentence.tag(k) in NAMES and sentence.is_capital(k) for k in (i - 1, i + 1)
    )
    return _is_lower(sentence, i) or not is_beside_name


def _name_color(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    is_color = sentence.words[i] in lexicon.colors and _is_common(sentence, i)
    return "JJ" if is_color else None


def _real_name(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, tag = sentence.words[i], sentence.tags[i]
    if _is_lower(sentence, i):
        return None
    if lexicon.is_also_name(word) and lexicon.noun(word) not in lexicon.objects:
        return tag
    return tag if tag == "NNP" and _is_bare_subject(sentence, i, lexicon) else None


def _is_bare_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a thing in the singular does something without an article."""
    bare = sentence.tag(i - 1) not in MAKES_NOUN | NOUNS | {".", ":", "``"}
    does = sentence.tag(i + 1) in ("VBZ", "VBD", "VBP")
    made = lexicon.first_file(sentence.words[i]) in ("noun.artifact", "noun.animal", "noun.plant")
    return bare and does and made


def _name_thing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    lemma = lexicon.noun(word)
    is_thing = lexicon.noun_kind(lemma) and lexicon.is_plain_noun(lemma)
    is_place = word in lexicon.landmarks or _is_named_place(sentence, i, lexicon)
    is_common = _is_common(sentence, i) or is_place  # "Charles Bridge"
    return ("NNS" if lemma != word else "NN") if is_thing and is_common else None


def _is_named_place(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a name before the word says which place it is: "at Bells Beach"."""
    start = sentence.name_start(i)
    placed = start < i and sentence.word(start - 1) in word_set("at_place")
    return placed and lexicon.noun_kind(lexicon.noun(sentence.words[i])) == "scene"


def _name_adjective(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    is_noun = lexicon.is_plain_noun(lexicon.noun(word))
    is_look = _is_lower(sentence, i) and not is_noun and lexicon.is_plain_adjective(word)
    return "JJ" if is_look else None


def _adjective_before_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, after = sentence.words[i], sentence.tag(i + 1)
    vague = word in lexicon.stop_adjectives and lexicon.is_plain_adjective(word)
    if after in NOUNS and vague:
        return "JJ"  # "an ornamental gourd"
    return "JJ" if after in NOUNS | ADJECTIVES and word in lexicon.visible_adjectives else None


def _thing_in_ing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    if not _ends_in_ing(word):
        return None
    is_thing = lexicon.noun(word) in lexicon.ing_things or word in lexicon.objects
    return sentence.tags[i] if is_thing else None


def _ends_in_ing(word: str) -> bool:
    return word.endswith("ing") and len(word) > 4


def _doing_in_ing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    if not _ends_in_ing(word):
        return None
    is_verb = lexicon.is_plain_verb(word) and lexicon.verb(word) != word
    stands = sentence.tag(i + 1) not in NOUNS or sentence.tag(i - 1) in BEFORE_GERUND
    return "VBG" if is_verb and stands else None


def _no_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A word that no dictionary has as a noun."""
    word, tag = sentence.words[i], sentence.tags[i]
    if lexicon.is_plain_noun(lexicon.noun(word)):
        return None
    if lexicon.is_plain_adjective(word):
        return "JJ"
    return "VBZ" if tag == "NNS" and lexicon.is_plain_verb(word) else None


def _color_of_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, after = sentence.words[i], sentence.tag(i + 1)
    described = after in ADJECTIVES | {"VBN"}
    if word not in lexicon.colors or (word in THINGS_OF_COLOR and not described):
        return None
    return "JJ" if described or after in NOUNS or sentence.word(i - 1) == "in" else None


def _verb_form(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, before = sentence.words[i], sentence.tag(i - 1)
    if word not in lexicon.verb_forms or sentence.tag(i + 1) not in AFTER_VERB:
        return None
    has_subject = before in NOUNS | {"RB"} or _is_worn_color(sentence, i - 1, lexicon)
    if not has_subject or sentence.word(i + 1) in ("of", "'s"):
        return None
    if word == "leaves" and not is_person_or_animal(sentence, i - 1, lexicon):
        return None
    return "VBZ" if word.endswith("s") else "VBP"


def _is_worn_color(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour is what somebody wears: "a man in red leaves"."""
    phrase = sentence.words[max(i - 3, 0) : i]
    return sentence.word(i) in lexicon.colors and not {"in", "wearing"}.isdisjoint(phrase)


def _bare_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "plural" that has one subject and an object, or names nothing visible."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    if sentence.tags[i] != "NNS" or not lexicon.is_plain_verb(word):
        return None
    is_verb = False
    if before == "NN" and after in ("NN", "NNS", "JJ"):
        is_verb = lexicon.is_mostly_verb(word) and starts_with_one(sentence, i)
    elif before == "," and after in ("IN", "DT", "PRP$"):
        one = sentence.tag(i - 2) == "NN" and starts_with_one(sentence, i - 1)
        is_seen = lexicon.noun_kind(lexicon.noun(word)) is not None
        is_verb = not is_seen and (one or sentence.tag(i - 3) == ",")
    return "VBZ" if is_verb else None


def _may_be_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    return sentence.tag(i + 1) in AFTER_VERB and lexicon.is_plain_verb(sentence.words[i])


def _plural_does(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    is_base = sentence.tags[i] == "NN" and lexicon.verb(word) == word
    does = _may_be_verb(sentence, i, lexicon) and _has_plural_subject(sentence, i, lexicon)
    return "VBP" if is_base and does else None


def _has_plural_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether people or animals stand before it: "dogs drink", "a zebra and a giraffe stand"."""
    if sentence.tag(i - 1) not in NOUNS or not is_person_or_animal(sentence, i - 1, lexicon):
        return False
    word = sentence.words[i]
    as_noun = lexicon.wordnet.count(word, NOUN)
    if as_noun >= 6 and as_noun > 5 * lexicon.wordnet.count(word, VERB):
        return word in lexicon.verb_forms  # "on a mans lap", "feeding four giraffes grass"
    return sentence.tag(i - 1) == "NNS" or "and" in sentence.words[max(i - 5, 0) : i]


def _one_does(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, after = sentence.words[i], sentence.tag(i + 1)
    if sentence.tags[i] != "NNS" or sentence.tag(i - 1) != "NN":
        return None
    if not _may_be_verb(sentence, i, lexicon) or not starts_with_one(sentence, i):
        return None
    count = lexicon.wordnet.count
    is_noun = count(lexicon.noun(word), NOUN) > 2 * count(lexicon.verb(word), VERB)
    has_object = after in ("DT", "PRP$", "PRP")
    does = has_object or not is_noun or is_person_or_animal(sentence, i - 1, lexicon)
    return "VBZ" if does else None


def _gerund_thing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A thing in -ing that was taken for a verb: "the building", "in clothing"."""
    word = sentence.words[i]
    if word not in lexicon.ing_things or _does_in_ing(sentence, i, lexicon):
        return None
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    if before in MAKES_NOUN | {"", "."} or sentence.word(i - 1) in lexicon.placing:
        return "NN"
    if before in ("VBG", "VBZ", "TO") and after in ("", ".", "IN"):
        return "NN"
    is_last = before in ("CC", ",", "NN") and after in ("IN", "", ".")
    return "NN" if is_last or sentence.word(i + 1) == "of" else None


def _does_in_ing(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    if after in ("DT", "PRP$", "PRP") or sentence.word(i - 1) in lexicon.be:
        return True
    # "A boy drawing in a notepad".
    lives = before in NOUNS and is_person_or_animal(sentence, i - 1, lexicon)
    return lives and after not in NOUNS


# Tried at names first; what they make of a name, the other rows look at again.
OF_NAMES = (
    Correction("colour in a name", _name_color, "white bus on road", "a visit to Portugal", NAMES),
    Correction("real name", _real_name, "a street in China", "China on a shelf", NAMES),
    Correction("no name but a thing", _name_thing, "orange jello", "a visit to Portugal", NAMES),
    Correction("no name but an adjective", _name_adjective, "Snowy hills", "Oslo hills", NAMES),
)  # fmt: skip

OF_NOUNS = (
    Correction("adjective before a noun", _adjective_before_noun, "a matte gray wall",
               "a wall of stone", COMMON),
    Correction("thing in -ing", _thing_in_ing, "a ceiling with a lamp", "a man surfing", COMMON),
    Correction("doing in -ing", _doing_in_ing, "a flag furling in the wind", "an earring", COMMON),
    Correction("no noun", _no_noun, "drawing of an arty pen", "a field", COMMON),
    Correction("colour of a noun", _color_of_noun, "a woman in teal", "an orange on a table",
               COMMON),
    Correction("verb form", _verb_form,
               "A dog leaps in the air to catch a disc.", "a pony with long rides",
               COMMON),
    Correction("bare verb", _bare_verb,
               "A bridge hugs someone while wedding guests stand in the background.",
               "a man and darts", COMMON),
    Correction("plural subject", _plural_does,
               "actor and pop artist arrive at the premiere", "a drink on a table",
               COMMON),
    Correction("one subject", _one_does, "a lizard perches on a wall", "a man with balls", COMMON),
    Correction("thing and no doing", _gerund_thing, "building by a road", "men building a wall",
               GERUND),
)  # fmt: skip
