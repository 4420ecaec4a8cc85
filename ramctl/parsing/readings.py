"""Repairs of the tagger's readings that captions need: the lexicon and the neighbours decide."""

from __future__ import annotations

from ramctl.parsing.lexicon import Lexicon
from ramctl.parsing.lists import word_set
from ramctl.parsing.sentence import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Sentence,
)
from ramctl.parsing.wordnet import ADJECTIVE, ADVERB, NOUN, VERB

#: What may follow a verb that was taken for a noun.
AFTER_VERB = frozenset({"DT", "PRP$", "IN", "RP", "TO", "RB", "PRP", "CC", "", ".", ",", "VBG"})
MAKES_NOUN = DETERMINERS | ADJECTIVES
#: Before an -ing word that is a verb with its object: "sitting and drinking water".
BEFORE_GERUND = NOUNS | VERBS | {"CC", ",", "PRP", "RB", ""}
#: Determiners that may be a whole subject: "another walks".
BARE_SUBJECTS = frozenset(
    {"that", "this", "another", "each", "all", "both", "some", "these", "those"}
)
ONE = frozenset({"a", "an", "this", "one", "another", "each", "every"})
BE = frozenset(
    {"is", "are", "was", "were", "be", "being", "been", "'s", "'re", "am", "gets", "get"}
)
#: Readings of a word that the tagger does not know; WordNet knows no such adverb.
RARELY_NOUNS = frozenset({"RB", "RBR", "RBS", "PRP", "XX", "AFX", "RP", "MD"})
NEVER_NOUNS = frozenset({"may", "must", "might", "will", "mine", "i", "he", "it", "thus", "trough"})
PHRASE = NOUNS | ADJECTIVES | {"VBN", "HYPH"}
#: What follows the last noun of its phrase.
AFTER_HEAD = frozenset({"", ".", ":", "IN", "VBZ", "VBP", "VBD", "WDT", "WP", "RB", "RP", "''"})
#: What may follow it, or go on with it.
AFTER_SURE_HEAD = AFTER_HEAD | {",", "CC", "VBG", "TO", "DT"}


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
            if tag in ADJECTIVES and _heads_its_phrase(sentence, i, lexicon):
                tags[i] = "NN" if lexicon.noun(word) == word else "NNS"
        elif tag in ("VBZ", "VBP", "VB", "VBD", "VBN") and _is_noun_after_all(sentence, i, lexicon):
            tags[i] = "NNS" if word.endswith("s") else "NN"
        elif tag in ("FW", "UH") and lexicon.is_plain_noun(lexicon.noun(word)):
            tags[i] = "NN"
        elif tag in ("FW", "UH", "RB") and word in lexicon.colors:
            tags[i] = "JJ"
        elif tag in RARELY_NOUNS and _is_mistaken_noun(sentence, i, lexicon):
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
    return sentence.tags[i]


def _noun_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
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
    if (
        word in lexicon.colors
        and word not in ("orange", "gold", "silver", "salmon")
        and (after in NOUNS or after in ADJECTIVES or sentence.word(i - 1) == "in")
    ):
        return "JJ"
    if (
        word in lexicon.verb_forms
        and (before in NOUNS or before == "RB" or sentence.word(i - 1) in lexicon.colors)
        and after in AFTER_VERB
        and sentence.word(i + 1) not in ("of", "'s")
    ):
        return "VBZ" if word.endswith("s") else "VBP"
    if after not in AFTER_VERB or not lexicon.is_plain_verb(word):
        return tag
    if tag == "NN" and lexicon.verb(word) == word and _has_plural_subject(sentence, i, lexicon):
        return "VBP"
    if tag == "NNS" and before == "NN" and _starts_with_one(sentence, i):
        return "VBZ"
    return tag


def _has_plural_subject(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the nouns before a place are doers: "dogs drink", "a zebra and a giraffe stand"."""
    if sentence.tag(i - 1) not in NOUNS or not _is_doer(sentence, i - 1, lexicon):
        return False
    return sentence.tag(i - 1) == "NNS" or "and" in sentence.words[max(i - 5, 0) : i]


def _starts_with_one(sentence: Sentence, i: int) -> bool:
    """Whether "a" governs the noun phrase of a plural: then the plural is a verb."""
    k = i - 1
    while k >= 0 and sentence.tags[k] in NOUNS | ADJECTIVES | {"VBN", "VBG"}:
        k -= 1
    return sentence.word(k) in ONE


def _is_doer(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    lemma = lexicon.noun(sentence.words[i]) if i >= 0 else ""
    return lemma == "person" or lexicon.first_file(lemma) in ("noun.person", "noun.animal")


def _gerund_reading(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    word = sentence.words[i]
    if word not in lexicon.ing_things:
        return "VBG"
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    after_word = sentence.word(i + 1)
    if after in ("DT", "PRP$", "PRP") or sentence.word(i - 1) in BE:
        return "VBG"
    if before in MAKES_NOUN or sentence.word(i - 1) in word_set("placing"):
        return "NN"
    if after_word == "of" or i == 0 or (before in ("CC", ",", "NN") and after in ("IN", "", ".")):
        return "NN"
    return "VBG"


def _adjective_reading(word: str, tag: str, lexicon: Lexicon) -> str:
    known = word in lexicon.colors or word in lexicon.stop_adjectives
    if known or lexicon.is_plain_adjective(word):
        return tag
    if lexicon.is_plain_noun(word) and word not in lexicon.visible_adjectives:
        return "NN"
    if word.endswith("ed") and lexicon.is_plain_verb(word):
        return "VBN"
    if word.endswith("ing") and lexicon.is_plain_verb(word):
        return "VBG"
    return tag


def _heads_its_phrase(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether an "adjective" that nouns share is the noun of its phrase: "a locomotive at"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    kind = lexicon.noun_kind(lemma) if lexicon.is_plain_noun(lemma) else None
    if word in lexicon.colors or kind is None or after not in AFTER_SURE_HEAD:
        return False
    as_noun, as_adjective = _uses(lemma, NOUN, lexicon), _uses(word, ADJECTIVE, lexicon)
    if word in lexicon.stop_adjectives:
        is_person = lexicon.first_file(lemma) == "noun.person" and as_noun > 0
        return is_person and before in ("DT", "PRP$") and after in AFTER_HEAD
    if after not in AFTER_HEAD or word in lexicon.visible_adjectives:
        surely = as_noun > as_adjective or (
            as_noun == as_adjective and word not in lexicon.visible_adjectives
        )
        goes_on = (after == "CC" and sentence.tag(i + 2) not in DETERMINERS) or (
            after == "," and as_adjective >= 0
        )
        return before in MAKES_NOUN | {"NN"} and surely and not goes_on
    if before in MAKES_NOUN:
        return as_noun >= as_adjective or _is_determined(sentence, i)
    if before == "NN":
        return as_noun >= as_adjective or kind == "scene"
    if sentence.word(i - 1) in BE or before in VERBS - {"VBG"} | {"RB", "NNS"}:
        return False
    return as_adjective == 0 and not (before == "CC" and sentence.tag(i - 2) in ADJECTIVES)


def _is_determined(sentence: Sentence, i: int) -> bool:
    """Whether only adjectives stand between a place and its determiner."""
    k = i - 1
    while sentence.tag(k) in ADJECTIVES:
        k -= 1
    return sentence.tag(k) in ("DT", "PRP$", "POS") and sentence.word(k) not in BARE_SUBJECTS


def _uses(word: str, pos: str, lexicon: Lexicon) -> int:
    """How often WordNet's texts use a word so; -1 if it cannot be."""
    return lexicon.wordnet.count(word, pos) if lexicon.wordnet.has(word, pos) else -1


def _is_mistaken_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a word that is no noun to the tagger can be nothing else: "fire hydrant/RB"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    is_tag = lexicon.is_plain_noun(lemma) and lexicon.noun_kind(lemma) is not None
    if len(word) < 2 or word in NEVER_NOUNS or not is_tag:
        return False
    if sentence.tags[i] == "MD":
        return before in PHRASE | DETERMINERS and after in AFTER_HEAD - {"RB", "VBP", "VBZ"}
    if lexicon.wordnet.has(word, ADVERB) or lexicon.is_plain_adjective(word):
        return (
            before in MAKES_NOUN
            and after in ("IN", ".", "")
            and sentence.tags[i] == "RB"
            and lexicon.wordnet.count(lemma, NOUN) > 0
        )
    return after not in ("DT", "PRP$")


def _is_noun_after_all(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "verb" has no room to be one: no verb sense, or a determiner before it."""
    word, tag = sentence.words[i], sentence.tags[i]
    lemma = lexicon.noun(word)
    if not lexicon.wordnet.has(lemma, NOUN):
        return False
    if not lexicon.is_plain_verb(word):
        return True
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    determined = before in ("DT", "PRP$", "POS") and sentence.word(i - 1) not in BARE_SUBJECTS
    if tag in ("VBD", "VBN"):
        return (
            determined or before in ADJECTIVES or sentence.word(i - 1) in lexicon.colors
        ) and after in ("IN", ".", "", "CC", "RP")
    if determined:
        return True
    if before in ("CC", ",", "IN") and word not in lexicon.verb_forms:
        verb_uses = lexicon.wordnet.count(lexicon.verb(word), VERB)
        return verb_uses == 0 and lexicon.wordnet.count(lemma, NOUN) > 0
    return before in ADJECTIVES and tag != "VBZ" and after not in VERBS
