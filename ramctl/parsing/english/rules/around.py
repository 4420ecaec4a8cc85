"""What the corrections of tags look at: the words around one."""

from ramctl.parsing.english.dictionary.lexicon import Lexicon
from ramctl.parsing.english.rules.sentence import ADJECTIVES, DETERMINERS, NOUNS, Sentence

ONE = frozenset({"a", "an", "this", "one", "another", "each", "every"})
MAKES_NOUN = DETERMINERS | ADJECTIVES
# Tags that follow the last noun of a phrase.
AFTER_HEAD = frozenset({"", ".", ":", "IN", "VBZ", "VBP", "VBD", "WDT", "WP", "RB", "RP", "''"})
# Tags that may follow it or continue the phrase.
AFTER_SURE_HEAD = AFTER_HEAD | {",", "CC", "VBG", "TO", "DT"}


def is_person_or_animal(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    """Whether the word at an index is a person or an animal."""
    lemma = lexicon.noun(sentence.words[i]) if i >= 0 else ""
    return lemma == "person" or lexicon.first_file(lemma) in ("noun.person", "noun.animal")


def starts_with_one(sentence: Sentence, i: int) -> bool:
    """Whether the noun phrase of a plural starts with "a": then the plural is a verb."""
    k = i - 1
    while k >= 0 and sentence.tags[k] in NOUNS | ADJECTIVES | {"VBN", "VBG"}:
        if sentence.tags[k] == "VBG" and sentence.tag(k - 1) in NOUNS:
            return False  # "a suit including small air tanks"
        k -= 1
    return sentence.word(k) in ONE


def is_comparative(word: str, lexicon: Lexicon) -> bool:
    """Whether it is a form of an adjective: "a lighter shade", "the cleaner side"."""
    stems = (word[:-2], word[:-1], word[:-3]) if word.endswith("er") else (word[:-3], word[:-2])
    return word.endswith(("er", "est")) and any(
        len(stem) > 2 and lexicon.is_plain_adjective(stem) for stem in stems
    )


def uses(word: str, pos: str, lexicon: Lexicon) -> int:
    """How often WordNet's texts use a word as this part of speech; -1 if it has no such sense."""
    return lexicon.wordnet.count(word, pos) if lexicon.wordnet.has(word, pos) else -1


def verb_before(sentence: Sentence, i: int, lexicon: Lexicon) -> str:
    """The base form of the verb that a word belongs to."""
    k = i - 1
    while k > 0 and sentence.tags[k] in ("RB", "RP"):
        k -= 1
    return lexicon.verb(sentence.word(k))
