"""Repairs of the tagger's readings that captions need: the lexicon and the neighbours decide."""

from __future__ import annotations

from ramctl.parsing.hidden_nouns import (
    BE,
    MAKES_NOUN,
    RARELY_NOUNS,
    heads_its_phrase,
    is_comparative,
    is_doer,
    is_mistaken_noun,
    is_noun_after_all,
)
from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.lists import word_set
from ramctl.parsing.sentence import (
    ADJECTIVES,
    NOUNS,
    VERBS,
    Sentence,
)
from ramctl.parsing.wordnet import NOUN, VERB

#: What may follow a verb that was taken for a noun.
AFTER_VERB = frozenset({"DT", "PRP$", "IN", "RP", "TO", "RB", "PRP", "CC", "", ".", ",", "VBG"})
#: Before an -ing word that is a verb with its object: "sitting and drinking water".
BEFORE_GERUND = NOUNS | VERBS | {"CC", ",", "PRP", "RB", ""}
#: Where a person is in a picture, between commas.
PLACES_OF_PEOPLE = frozenset({"left", "right", "center", "centre", "above", "below", "pictured"})
ONE = frozenset({"a", "an", "this", "one", "another", "each", "every"})


def repair(sentence: Sentence, lexicon: Lexicon) -> None:
    """Correct the tags in place."""
    words, tags = sentence.words, sentence.tags
    title_case = _is_title_case(sentence)
    for i, word in enumerate(words):
        tag = tags[i]
        if tag in ("NNP", "NNPS"):
            tag = tags[i] = _common_noun(sentence, i, lexicon, title_case)
        if tag in ("NN", "NNS"):
            tags[i] = _noun_reading(sentence, i, lexicon)
        elif tag == "VBG":
            tags[i] = _gerund_reading(sentence, i, lexicon)
        elif tag in ADJECTIVES:
            if tag == "JJ" or lexicon.is_plain_noun(word):
                tag = tags[i] = _adjective_reading(word, tag, lexicon)
                if tag in ADJECTIVES and _is_only_verb(sentence, i, lexicon):
                    tag = tags[i] = "VBP"
            if tag in ADJECTIVES and heads_its_phrase(sentence, i, lexicon):
                tags[i] = "NN" if lexicon.noun(word) == word else "NNS"
        elif tag in ("VBZ", "VBP", "VB", "VBD", "VBN") and is_noun_after_all(sentence, i, lexicon):
            tags[i] = "NNS" if word.endswith("s") else "NN"
        elif tag in ("FW", "UH") and lexicon.is_plain_noun(lexicon.noun(word)):
            tags[i] = "NN"
        elif tag in ("FW", "UH", "RB") and word in lexicon.colors:
            tags[i] = "JJ"
        elif tag in RARELY_NOUNS and is_mistaken_noun(sentence, i, lexicon):
            tags[i] = "NN" if lexicon.noun(word) == word else "NNS"


def _is_title_case(sentence: Sentence) -> bool:
    long_words = [w for w in sentence.shown if len(w) > 3 and w.isalpha()]
    upper = sum(w[0].isupper() for w in long_words)
    return len(long_words) > 1 and upper > 0.7 * len(long_words)


def _common_noun(sentence: Sentence, i: int, lexicon: Lexicon, title_case: bool) -> str:
    word, shown = sentence.words[i], sentence.shown[i]
    lower = shown[:1].islower() or title_case or i == 0
    next_to_name = any(
        sentence.tag(k) in ("NNP", "NNPS") and sentence.shown[k][:1].isupper()
        for k in (i - 1, i + 1)
        if 0 <= k < len(sentence)
    )
    if word in lexicon.colors and (lower or not next_to_name):
        return "JJ"
    lemma = lexicon.noun(word)
    if not lower and lexicon.is_also_name(word) and lemma not in lexicon.objects:
        return sentence.tags[i]
    if lexicon.noun_kind(lemma) and lexicon.is_plain_noun(lemma) and (lower or not next_to_name):
        return "NNS" if lemma != word else "NN"
    if lower and not lexicon.is_plain_noun(lemma) and lexicon.is_plain_adjective(word):
        return "JJ"
    if (
        shown.islower()
        and lexicon.noun_kind(lemma) is None
        and lexicon.is_plain_verb(word)
        and sentence.tag(i - 1) in NOUNS
        and sentence.tag(i + 1) in ("IN", "DT", "PRP$")
    ):
        return "VBP"  # "a person march towards"
    return sentence.tags[i]


def _noun_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    if after in NOUNS and word in lexicon.stop_adjectives and lexicon.is_plain_adjective(word):
        return "JJ"  # "an ornamental gourd"
    if after in NOUNS | ADJECTIVES and word in lexicon.visible_adjectives:
        return "JJ"  # "a matte gray wall"
    if _is_among_colors(sentence, i, lexicon):
        return "JJ"
    if word.endswith("ing") and len(word) > 4:
        if lexicon.noun(word) in lexicon.ing_things or word in lexicon.objects:
            return tag
        is_verb = lexicon.is_plain_verb(word) and lexicon.verb(word) != word
        if is_verb and (after not in NOUNS or before in BEFORE_GERUND):
            return "VBG"
    if not lexicon.is_plain_noun(lexicon.noun(word)):
        if lexicon.is_plain_adjective(word):
            return "JJ"
        if tag == "NNS" and lexicon.is_plain_verb(word):
            return "VBZ"
        if tag == "NN" and before == "CC" and lexicon.is_plain_verb(word):
            return "VBP"  # "stand or recline"
    if (
        word in lexicon.colors
        and (word not in ("orange", "gold", "silver", "salmon") or after in ADJECTIVES | {"VBN"})
        and (after in NOUNS or after in ADJECTIVES | {"VBN"} or sentence.word(i - 1) == "in")
    ):
        return "JJ"
    if (
        word in lexicon.verb_forms
        and (before in NOUNS or before == "RB" or _is_worn_color(sentence, i - 1, lexicon))
        and after in AFTER_VERB
        and sentence.word(i + 1) not in ("of", "'s")
        and (word != "leaves" or is_doer(sentence, i - 1, lexicon))
    ):
        return "VBZ" if word.endswith("s") else "VBP"
    if before == "," and sentence.word(i - 2) in PLACES_OF_PEOPLE and lexicon.is_plain_verb(word):
        return "VBZ" if word.endswith("s") else "VBP"  # "person , left , shops with"
    if tag == "NNS" and lexicon.is_plain_verb(word) and _is_bare_verb(sentence, i, lexicon):
        return "VBZ"
    if after not in AFTER_VERB or not lexicon.is_plain_verb(word):
        return tag
    if tag == "NN" and lexicon.verb(word) == word and _has_plural_subject(sentence, i, lexicon):
        return "VBP"
    if tag == "NNS" and before == "NN" and _starts_with_one(sentence, i):
        lemma, verb = lexicon.noun(word), lexicon.verb(word)
        is_noun = lexicon.wordnet.count(lemma, NOUN) > 2 * lexicon.wordnet.count(verb, VERB)
        has_object = after in ("DT", "PRP$", "PRP")
        doing = has_object or not is_noun or is_doer(sentence, i - 1, lexicon)
        return "VBZ" if doing else tag
    return tag


def _is_among_colors(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour that is no food stands beside another: "green, violet and tan"."""
    word, words = sentence.words[i], sentence.words
    if word not in lexicon.colors:
        return False
    joined = (words[i - 2 : i][::-1], words[i + 1 : i + 3])
    beside = any(w[:1] in ([","], ["and"]) and w[1:] and w[1] in lexicon.colors for w in joined)
    return beside and all(s.file != "noun.food" for s in lexicon.wordnet.synsets(word, NOUN))


def _is_worn_color(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a colour ends a doer: "a man in red leaves"."""
    phrase = sentence.words[max(i - 3, 0) : i]
    return sentence.word(i) in lexicon.colors and not {"in", "wearing"}.isdisjoint(phrase)


def _is_bare_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "plural" is a verb: with an object after one doer, or no thing that is seen."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma, verb = lexicon.noun(word), lexicon.verb(word)
    as_noun = lexicon.wordnet.count(lemma, NOUN)
    as_verb = lexicon.wordnet.count(verb, VERB)
    if before == "NN" and after in ("NN", "NNS", "JJ"):
        return as_verb > as_noun and _starts_with_one(sentence, i)
    if before == "," and after in ("IN", "DT", "PRP$"):
        one = sentence.tag(i - 2) == "NN" and _starts_with_one(sentence, i - 1)
        return lexicon.noun_kind(lemma) is None and (one or sentence.tag(i - 3) == ",")
    return False


def _has_plural_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the nouns before a place are doers: "dogs drink", "a zebra and a giraffe stand"."""
    if sentence.tag(i - 1) not in NOUNS or not is_doer(sentence, i - 1, lexicon):
        return False
    word = sentence.words[i]
    as_noun = lexicon.wordnet.count(word, NOUN)
    if as_noun >= 6 and as_noun > 5 * lexicon.wordnet.count(word, VERB):
        return word in lexicon.verb_forms  # "on a mans lap", "feeding four giraffes grass"
    return sentence.tag(i - 1) == "NNS" or "and" in sentence.words[max(i - 5, 0) : i]


def _starts_with_one(sentence: Sentence, i: int) -> bool:
    """Whether "a" governs the noun phrase of a plural: then the plural is a verb."""
    k = i - 1
    while k >= 0 and sentence.tags[k] in NOUNS | ADJECTIVES | {"VBN", "VBG"}:
        if sentence.tags[k] == "VBG" and sentence.tag(k - 1) in NOUNS:
            return False  # "a suit including small air tanks"
        k -= 1
    return sentence.word(k) in ONE


def _gerund_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word = sentence.words[i]
    if word not in lexicon.ing_things:
        return "VBG"
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    after_word = sentence.word(i + 1)
    if after in ("DT", "PRP$", "PRP") or sentence.word(i - 1) in BE:
        return "VBG"
    if before in NOUNS and is_doer(sentence, i - 1, lexicon) and after not in NOUNS:
        return "VBG"  # "a boy drawing in a notepad"
    if before in MAKES_NOUN or sentence.word(i - 1) in word_set("placing"):
        return "NN"
    if before in ("VBG", "VBZ", "TO") and after in ("", ".", "IN") and word != "crossing":
        return "NN"
    if after_word == "of" or before in ("", "."):
        return "NN"
    return "NN" if before in ("CC", ",", "NN") and after in ("IN", "", ".") else "VBG"


def _is_only_verb(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether an "adjective" is a verb and nothing else: "an entertainer and a person rehearse"."""
    word = sentence.words[i]
    return (
        lexicon.verb(word) == word
        and lexicon.is_plain_verb(word)
        and not lexicon.is_plain_adjective(word)
        and not lexicon.is_plain_noun(word)
        and sentence.tag(i - 1) in NOUNS
        and sentence.tag(i + 1) not in NOUNS
    )


def _adjective_reading(word: str, tag: str, lexicon: Lexicon) -> str:
    known = word in lexicon.colors or word in lexicon.stop_adjectives
    if known or lexicon.is_plain_adjective(word):
        return tag
    if lexicon.is_plain_noun(word) and word not in lexicon.visible_adjectives:
        return tag if is_comparative(word, lexicon) else "NN"
    lemma = lexicon.noun(word)
    if lemma != word and lexicon.is_plain_noun(lemma) and word not in lexicon.visible_adjectives:
        return "NNS"  # "ducks and geese"
    if word.endswith("ed") and lexicon.is_plain_verb(word):
        return "VBN"
    if word.endswith("ing") and lexicon.is_plain_verb(word):
        return "VBG"
    return tag
