"""Corrections of part-of-speech tags that the tagger gets wrong in captions, as tables."""

from ramctl.parsing.english.lexicon import VISIBLE_FILES, Lexicon, word_set
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    DETERMINERS,
    MAKES_NOUN,
    NOUNS,
    VERBS,
    Rule,
    RuleTable,
    Sentence,
    is_person_or_animal,
)
from ramctl.parsing.english.wordnet import ADJECTIVE, ADVERB, NOUN, VERB

LAND_VERBS = frozenset(verb + end for verb in word_set("shapes_of_land") for end in ("", "s"))
# Tags after a verb without an object.
AFTER_VERB = frozenset({"IN", "RB", "RP", "TO"})
# Tags that may follow a verb that was tagged as a noun.
AFTER_VERB_FORM = AFTER_VERB | {"DT", "PRP$", "PRP", "CC", "", ".", ",", "VBG"}
# Tags before an -ing word that is a verb with an object: "sitting and drinking water".
BEFORE_GERUND = NOUNS | VERBS | {"CC", ",", "PRP", "RB", ""}
ONE = frozenset({"a", "an", "this", "one", "another", "each", "every"})
COMMON = frozenset({"NN", "NNS"})
PROPER = frozenset({"NNP", "NNPS"})
# Colours that are things as often.
THINGS_OF_COLOR = frozenset({"orange", "gold", "silver", "salmon"})
NEVER_NOUNS = word_set("never_nouns")
# Tags that spaCy gives words it does not know.
RARELY_NOUNS = frozenset({"RB", "RBR", "RBS", "PRP", "XX", "AFX", "RP", "MD"})
FINITE_OR_PAST = frozenset({"VBZ", "VBP", "VB", "VBD", "VBN"})
# Tags that follow the last noun of a phrase.
AFTER_HEAD = frozenset({"", ".", ":", "IN", "VBZ", "VBP", "VBD", "WDT", "WP", "RB", "RP", "''"})
# Tags that may follow it or continue the phrase.
AFTER_SURE_HEAD = AFTER_HEAD | {",", "CC", "VBG", "TO", "DT"}
AFTER_BARE_HEAD = (AFTER_HEAD | {","}) - {"RB", "RP"}


def correct_tags(sentence: Sentence, lexicon: Lexicon) -> None:
    """Correct the tags of a sentence in place, and note which rules did.

    There are two passes: single words first, words that are no names before all others; then the
    rules that rely on corrected neighbours.
    """
    for i in range(len(sentence)):
        _correct(sentence, i, NAMES, lexicon)
        _correct(sentence, i, WORDS, lexicon)
    for i in range(len(sentence)):
        _correct(sentence, i, RULES, lexicon)


def _correct(sentence: Sentence, i: int, table: RuleTable, lexicon: Lexicon) -> None:
    for rule in table.rows_at(sentence.words[i], sentence.tags[i]):
        if tag := rule.pattern(sentence, i, lexicon):
            sentence.tags[i] = tag
            sentence.corrected[i] = (*sentence.corrected.get(i, ()), rule.name)
            break


def _is_lower(sentence: Sentence, i: int) -> bool:
    """Whether a capital would mean nothing here."""
    return sentence.written[i][:1].islower() or sentence.is_title or i == 0


def _is_common(sentence: Sentence, i: int) -> bool:
    names = [k for k in (i - 1, i + 1) if sentence.tag(k) in PROPER and sentence.is_capital(k)]
    return not names or _is_lower(sentence, i)


def _name_color(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    return "JJ" if sentence.words[i] in lexicon.colors and _is_common(sentence, i) else None


def _real_name(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, tag = sentence.words[i], sentence.tags[i]
    is_name = lexicon.is_also_name(word) and lexicon.noun(word) not in lexicon.objects
    return tag if is_name and not _is_lower(sentence, i) else None


def _name_thing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    lemma = lexicon.noun(word)
    is_thing = lexicon.noun_kind(lemma) and lexicon.is_plain_noun(lemma)
    start = sentence.name_start(i)
    is_placed = start < i and sentence.word(start - 1) in word_set("at_place")  # "at Bells Beach"
    is_place = word in lexicon.landmarks or (is_placed and lexicon.noun_kind(lemma) == "scene")
    is_common = _is_common(sentence, i) or is_place  # "Charles Bridge"
    return ("NNS" if lemma != word else "NN") if is_thing and is_common else None


def _name_adjective(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    is_noun = lexicon.is_plain_noun(lexicon.noun(word))
    is_look = _is_lower(sentence, i) and not is_noun and lexicon.is_plain_adjective(word)
    return "JJ" if is_look else None


def _adjective_before_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word, after = sentence.words[i], sentence.tag(i + 1)
    if after in NOUNS and word in lexicon.stop_adjectives and lexicon.is_plain_adjective(word):
        return "JJ"  # "an ornamental gourd"
    return "JJ" if after in NOUNS | ADJECTIVES and word in lexicon.visible_adjectives else None


def _thing_in_ing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    is_thing = lexicon.noun(word) in lexicon.ing_things or word in lexicon.objects
    return sentence.tags[i] if is_thing and _ends_in_ing(word) else None


def _ends_in_ing(word: str) -> bool:
    return word.endswith("ing") and len(word) > 4


def _doing_in_ing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    is_verb = _ends_in_ing(word) and lexicon.is_plain_verb(word) and lexicon.verb(word) != word
    stands = sentence.tag(i + 1) not in NOUNS or sentence.tag(i - 1) in BEFORE_GERUND
    return "VBG" if is_verb and stands else None


def _no_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
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
    word = sentence.words[i]
    if word not in lexicon.verb_forms or sentence.tag(i + 1) not in AFTER_VERB_FORM:
        return None
    if sentence.tag(i - 1) not in NOUNS | {"RB"} or sentence.word(i + 1) in ("of", "'s"):
        return None
    if word == "leaves" and not is_person_or_animal(sentence, i - 1, lexicon):
        return None
    return "VBZ" if word.endswith("s") else "VBP"


def _one_does(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "plural" after one subject is its verb: "a woman with a knife cuts pepper"."""
    word, after = sentence.words[i], sentence.tag(i + 1)
    if sentence.tags[i] != "NNS" or sentence.tag(i - 1) != "NN" or not lexicon.is_plain_verb(word):
        return None
    has_one = sentence.word(sentence.skip_back(i - 1, NOUNS | ADJECTIVES | {"VBN"})) in ONE
    does = lexicon.is_mostly_verb(word) and after in AFTER_VERB_FORM | COMMON | {"JJ"}
    lives = is_person_or_animal(sentence, i - 1, lexicon) and after in AFTER_VERB_FORM
    return "VBZ" if has_one and (does or lives or after in ("DT", "PRP$", "PRP")) else None


def _gerund_thing(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A thing in -ing that was taken for a verb: "the building", "in clothing"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    is_doing = after in ("DT", "PRP$", "PRP") or sentence.word(i - 1) in lexicon.be
    if word not in lexicon.ing_things or is_doing:
        return None
    # "A boy drawing in a notepad".
    if before in NOUNS and after not in NOUNS and is_person_or_animal(sentence, i - 1, lexicon):
        return None
    if before in MAKES_NOUN | {"", "."} or sentence.word(i - 1) in lexicon.placing:
        return "NN"
    if before in ("VBG", "VBZ", "TO") and after in ("", ".", "IN"):
        return "NN"
    is_last = before in ("CC", ",", "NN") and after in ("IN", "", ".")
    return "NN" if is_last or sentence.word(i + 1) == "of" else None


def _number(word: str, lexicon: Lexicon) -> str:
    return "NN" if lexicon.noun(word) == word else "NNS"


def _no_adjective(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    word = sentence.words[i]
    known = word in lexicon.colors or word in lexicon.stop_adjectives
    if known or lexicon.is_plain_adjective(word):
        return None
    if lexicon.is_plain_noun(word):
        return None if _is_comparative(word, lexicon) else "NN"
    if lexicon.is_plain_noun(lexicon.noun(word)):
        return "NNS"  # "ducks and geese"
    if not lexicon.is_plain_verb(word):
        return None
    return "VBN" if word.endswith("ed") else "VBG" if word.endswith("ing") else None


def _head_of_phrase(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """An "adjective" that is a noun as often and ends its phrase: "a locomotive at"."""
    word, before, count = sentence.words[i], sentence.tag(i - 1), lexicon.wordnet.count
    lemma = lexicon.noun(word)
    kind = lexicon.noun_kind(lemma) if lexicon.is_plain_noun(lemma) else None
    if kind is None or word in lexicon.colors or word in lexicon.visible_adjectives:
        return None
    if sentence.tag(i + 1) not in AFTER_SURE_HEAD or before not in MAKES_NOUN | {"NN"}:
        return None
    is_place = kind == "scene" and before == "NN"  # "a street fair"
    is_often = count(lemma, NOUN) >= count(word, ADJECTIVE) and not _is_comparative(word, lexicon)
    return _number(word, lexicon) if is_place or is_often else None


def _mistaken_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A word with a rare tag that can only be a noun: "fire hydrant/RB"."""
    word, after = sentence.words[i], sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    is_tag = lexicon.is_plain_noun(lemma) and lexicon.noun_kind(lemma) is not None
    if word in NEVER_NOUNS or not is_tag or _is_comparative(word, lexicon):
        return None
    if sentence.tags[i] == "MD":  # "a metal can"
        stands = sentence.tag(i - 1) in NOUNS | MAKES_NOUN and after in AFTER_BARE_HEAD
    else:
        is_other = lexicon.wordnet.has(word, ADVERB) or lexicon.is_plain_adjective(word)
        stands = not is_other and after not in ("DT", "PRP$")
    return _number(word, lexicon) if stands else None


def _noun_after_all(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "verb" that is none: it has no verb sense, or is a "past form" that ends a phrase."""
    word = sentence.words[i]
    if not lexicon.wordnet.has(lexicon.noun(word), NOUN) or word in NEVER_NOUNS:
        return None
    described = sentence.tag(i - 1) in ADJECTIVES or sentence.word(i - 1) in lexicon.colors
    is_last = described and sentence.tag(i + 1) in ("IN", "RB", "RP", "CC", ".", "")
    is_noun = is_last and sentence.tags[i] in ("VBD", "VBN")  # "a yellow rose next to"
    return _number(word, lexicon) if is_noun or not lexicon.is_plain_verb(word) else None


def _noun_by_use(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A "verb" that mostly is a noun and has no fitting subject: "a chef hat/VBP"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    if sentence.tags[i] in ("VBD", "VBN") or word in NEVER_NOUNS:
        return None
    if after in ("DT", "PRP$", "PRP") or not lexicon.noun_kind(lexicon.noun(word)):
        return None
    if word == "leaves":
        no_subject = before in NOUNS | {""} and not is_person_or_animal(sentence, i - 1, lexicon)
        is_noun = before in ADJECTIVES or (no_subject and after in AFTER_HEAD | {",", "CC"})
    else:
        as_noun = lexicon.wordnet.count(lexicon.noun(word), NOUN)
        as_verb = lexicon.wordnet.count(lexicon.verb(word), VERB)
        is_noun = i == 0 and (as_noun > 2 * as_verb or as_noun == as_verb == 0)
    return _number(word, lexicon) if is_noun else None


def _is_comparative(word: str, lexicon: Lexicon) -> bool:
    """Whether it is a form of an adjective: "a lighter shade", "the cleaner side"."""
    stems = (word[:-2], word[:-1], word[:-3]) if word.endswith("er") else (word[:-3], word[:-2])
    return word.endswith(("er", "est")) and any(
        len(stem) > 2 and lexicon.is_plain_adjective(stem) for stem in stems
    )


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
    if sentence.tag(i + 1) not in AFTER_VERB and sentence.word(i + 1) not in ("left", "right"):
        return None
    lemma = lexicon.noun(word)
    is_visible = lexicon.first_file(lemma) in VISIBLE_FILES or lemma in lexicon.objects
    return "VBZ" if lexicon.is_mostly_verb(word) or not is_visible else None


def _doing_to_it(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    """A noun phrase does not follow another without a comma: "his hand grips a wrench"."""
    word = sentence.words[i]
    if sentence.tag(i - 1) not in ("NN", "NNP"):
        return None
    is_free = sentence.tag(i + 1) in ("DT", "PRP$") and sentence.word(i + 1) not in ("all", "both")
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
    if sentence.tag(i + 1) != "IN" or sentence.word(i + 1) == "of":
        return None
    agrees = (sentence.tag(i - 1), sentence.tags[i]) in (("NN", "NNS"), ("NNS", "NN"))
    if not agrees or is_person_or_animal(sentence, i - 1, lexicon):
        return None
    return "VBZ" if sentence.tags[i] == "NNS" else "VBP"


def _surname(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    is_full = sentence.is_capital(i) and sentence.word(i - 1) in lexicon.given_names
    is_place = sentence.words[i] in lexicon.landmarks  # "Charles Bridge"
    ends = sentence.tag(i + 1) not in NOUNS - {"NNP"}
    return "NNP" if is_full and not is_place and ends else None


def _given_name(sentence: Sentence, i: int, lexicon: Lexicon) -> str | None:
    is_name = sentence.is_capital(i) and sentence.is_capital(i + 1)
    is_phrase = sentence.tags[i] in ("NN", "NNP") and sentence.tag(i + 1) in NOUNS | {"JJ"}
    ends = sentence.tag(i + 2) not in NOUNS - {"NNP"}
    return "NNP" if is_name and is_phrase and ends else None


# Applied to names first; the other tables then see the corrected tags.
NAMES = RuleTable((
    Rule("colour in a name", _name_color, "white bus on road", "a visit to Portugal", PROPER),
    Rule("real name", _real_name, "a street in China", "China on a shelf", PROPER),
    Rule("no name but a thing", _name_thing, "orange jello", "a visit to Portugal", PROPER),
    Rule("no name but an adjective", _name_adjective, "Snowy hills", "Oslo hills", PROPER),
))  # fmt: skip

WORDS = RuleTable((
    Rule("adjective before a noun", _adjective_before_noun, "a matte gray wall", "a wall of stone",
         COMMON),
    Rule("thing in -ing", _thing_in_ing, "a ceiling with a lamp", "a man surfing", COMMON),
    Rule("doing in -ing", _doing_in_ing, "a flag furling in the wind", "an earring", COMMON),
    Rule("no noun", _no_noun, "drawing of an arty pen", "a field", COMMON),
    Rule("colour of a noun", _color_of_noun, "a woman in teal", "an orange on a table", COMMON),
    Rule("verb form", _verb_form, "A dog leaps in the air to catch a disc.",
         "a pony with long rides", COMMON),
    Rule("one subject", _one_does, "a lizard perches on a wall", "a man with balls", COMMON),
    Rule("thing and no doing", _gerund_thing, "building by a road", "men building a wall", {"VBG"}),
    Rule("no adjective", _no_adjective, "ducks and geese near a pond", "a wet pond", ADJECTIVES),
    Rule("head of its phrase", _head_of_phrase, "a locomotive at a station", "an empty station",
         ADJECTIVES),
    Rule("noun by use", _noun_by_use, "mirror over sink", "dogs run", FINITE_OR_PAST),
    Rule("mistaken noun", _mistaken_noun, "two geese near a metal can", "a boy can jump",
         RARELY_NOUNS),
    Rule("noun after all", _noun_after_all, "a yellow rose next to a tree", "a cat sleeps",
         FINITE_OR_PAST),
))  # fmt: skip

RULES = RuleTable((
    Rule("given name", _given_name, "Jack Black plays the guitar", "A jack and a black cat",
         word_set("given_names")),
    Rule("surname", _surname, "Portrait of John Green, a baker", "A portrait of a green man",
         NOUNS | ADJECTIVES | VERBS),
    Rule("participle before its noun", _participle_before_noun,
         "Around it, crumpled wrapping paper.", "A man crumpled wrapping paper.", {"VBD"}),
    Rule("doing of one", _doing_of_one, "A farmer herds sheep down a lane.",
         "The dog bowls on the floor.", {"NNS"}),
    Rule("doing to it", _doing_to_it, "His left hand grips a wrench.",
         "He sells flowers the whole day.", {"NNS"}),
    Rule("lie of the land", _lie_of_land, "A road slopes toward the sea.",
         "A woman eats with forks.", LAND_VERBS),
    Rule("doing of many", _doing_of_many, "Its seeds drift across the field.",
         "A sports car in a garage.", {"NN"}),
))  # fmt: skip
