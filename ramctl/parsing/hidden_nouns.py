"""Nouns that the tagger takes for adjectives, adverbs or verbs: "a locomotive/JJ at a station".

The lexicon, WordNet's counts and the neighbours decide.
"""

from __future__ import annotations

from ramctl.parsing.lexicon import VISIBLE_FILES, Lexicon
from ramctl.parsing.sentence import ADJECTIVES, DETERMINERS, NOUNS, VERBS, Sentence
from ramctl.parsing.wordnet import ADJECTIVE, ADVERB, NOUN, VERB

MAKES_NOUN = DETERMINERS | ADJECTIVES
#: Determiners that may be a whole subject: "another walks".
BARE_SUBJECTS = frozenset(
    {"that", "this", "another", "each", "all", "both", "some", "these", "those"}
)
BE = frozenset(
    {"is", "are", "was", "were", "be", "being", "been", "'s", "'re", "am", "gets", "get"}
)
#: Readings of a word that the tagger does not know; WordNet knows no such adverb.
RARELY_NOUNS = frozenset({"RB", "RBR", "RBS", "PRP", "XX", "AFX", "RP", "MD"})
NEVER_NOUNS = frozenset({"have", "has", "had", "do", "does", "be", "may", "must", "might", "will",
                         "mine", "i", "he", "it", "thus", "trough"})  # fmt: skip
#: Before "to" and a place: "next to pole", "the path leading to sand".
LEADING_TO = frozenset({"next", "close", "adjacent", "attached", "leading", "connected", "tied"})
PHRASE = NOUNS | ADJECTIVES | {"VBN", "HYPH"}
#: What follows the last noun of its phrase.
AFTER_HEAD = frozenset({"", ".", ":", "IN", "VBZ", "VBP", "VBD", "WDT", "WP", "RB", "RP", "''"})
AFTER_BARE_HEAD = (AFTER_HEAD | {","}) - {"RB", "RP"}
#: What may follow it, or go on with it.
AFTER_SURE_HEAD = AFTER_HEAD | {",", "CC", "VBG", "TO", "DT"}


def heads_its_phrase(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether an "adjective" that nouns share is the noun of its phrase: "a locomotive at"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    kind = lexicon.noun_kind(lemma) if lexicon.is_plain_noun(lemma) else None
    if word in lexicon.colors or kind is None or after not in AFTER_SURE_HEAD:
        return False
    if is_comparative(word, lexicon):
        return before in ("DT", "PRP$", "POS") and after in AFTER_HEAD
    as_noun, as_adjective = _uses(lemma, NOUN, lexicon), _uses(word, ADJECTIVE, lexicon)
    if word in lexicon.stop_adjectives:
        is_person = lexicon.first_file(lemma) == "noun.person" and as_noun > 0
        of_its_own = before == "PRP$" and lexicon.first_file(lemma) in VISIBLE_FILES  # "its sole"
        return ((is_person and before == "DT") or of_its_own) and after in AFTER_SURE_HEAD
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


def is_doer(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the word at a place is a person or an animal."""
    lemma = lexicon.noun(sentence.words[i]) if i >= 0 else ""
    return lemma == "person" or lexicon.first_file(lemma) in ("noun.person", "noun.animal")


def _is_determined(sentence: Sentence, i: int) -> bool:
    """Whether only adjectives stand between a place and its determiner."""
    k = i - 1
    while sentence.tag(k) in ADJECTIVES:
        k -= 1
    return sentence.tag(k) in ("DT", "PRP$", "POS") and sentence.word(k) not in BARE_SUBJECTS


def _uses(word: str, pos: str, lexicon: Lexicon) -> int:
    """How often WordNet's texts use a word so; -1 if it cannot be."""
    return lexicon.wordnet.count(word, pos) if lexicon.wordnet.has(word, pos) else -1


def is_comparative(word: str, lexicon: Lexicon) -> bool:
    """Whether it is an adjective's form: "a lighter shade", "the cleaner side"."""
    stems = (word[:-2], word[:-1], word[:-3]) if word.endswith("er") else (word[:-3], word[:-2])
    return word.endswith(("er", "est")) and any(
        len(stem) > 2 and lexicon.is_plain_adjective(stem) for stem in stems
    )


def is_mistaken_noun(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a word that is no noun to the tagger can be nothing else: "fire hydrant/RB"."""
    word, before, after = sentence.words[i], sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    is_tag = lexicon.is_plain_noun(lemma) and lexicon.noun_kind(lemma) is not None
    if len(word) < 2 or word in NEVER_NOUNS or not is_tag or is_comparative(word, lexicon):
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


def is_noun_after_all(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "verb" has no room to be one: no verb sense, or a determiner before it."""
    word, tag = sentence.words[i], sentence.tags[i]
    lemma = lexicon.noun(word)
    if not lexicon.wordnet.has(lemma, NOUN) or word in NEVER_NOUNS:
        return False
    if not lexicon.is_plain_verb(word):
        return True
    if tag not in ("VBD", "VBN") and _is_noun_by_use(sentence, i, lexicon):
        return True
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    determined = before in ("DT", "PRP$", "POS") and sentence.word(i - 1) not in BARE_SUBJECTS
    in_color = sentence.word(i - 1) in lexicon.colors and sentence.tag(i - 2) == "DT"
    described = determined or before in ADJECTIVES or in_color
    if tag == "VBD" and described and after not in NOUNS:
        return lexicon.noun_kind(lemma) is not None  # "a yellow rose next to"
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


def _is_noun_by_use(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether a "verb" that mostly is a noun has no subject that fits it: "a chef hat/VBP"."""
    word, tag = sentence.words[i], sentence.tags[i]
    before, after = sentence.tag(i - 1), sentence.tag(i + 1)
    lemma = lexicon.noun(word)
    if after in ("DT", "PRP$", "PRP") or lexicon.noun_kind(lemma) is None:
        return False
    if word == "leaves":
        return before in ADJECTIVES or (
            before in NOUNS | {""}
            and after in AFTER_HEAD | {",", "CC"}
            and not is_doer(sentence, i - 1, lexicon)
        )
    as_noun = lexicon.wordnet.count(lemma, NOUN)
    as_verb = lexicon.wordnet.count(lexicon.verb(word), VERB)
    if i == 0 and tag == "VBZ":
        return after == "IN" and as_noun > 2 * as_verb
    if i == 0 and tag in ("VB", "VBP"):
        return as_noun > 2 * as_verb or (as_noun == as_verb == 0)
    if tag == "VB" and before == "TO":
        return as_noun > as_verb and sentence.word(i - 2) in LEADING_TO
    if tag in ("VB", "VBP") and before == "CC":  # "a robe and hat"
        return (
            sentence.tag(i - 2) in NOUNS
            and as_noun > 2 * as_verb
            and after in AFTER_BARE_HEAD
            and word not in lexicon.verb_forms
        )
    if tag == "VBP" and before == "NN":
        two = "and" in sentence.words[max(i - 5, 0) : i]
        return as_noun > 4 * as_verb and not two and after in AFTER_SURE_HEAD
    if tag in ("VBP", "VBZ") and before in NOUNS and after in AFTER_SURE_HEAD:
        return as_noun >= 8 and as_noun > 10 * as_verb and after not in ("RP", "RB")
    return False
