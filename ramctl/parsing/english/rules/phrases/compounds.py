"""Which words are a compound of the dictionary (guidelines: compounds)."""

from ramctl.parsing.english.dictionary.lexicon import NATURAL_KINDS, Lexicon
from ramctl.parsing.english.rules.sentence import (
    ADJECTIVES,
    NOUNS,
    VERBS,
    Sentence,
)

ENDS_COMPOUND = NOUNS | {"VBG", "RB", "JJ", "VBN", "RP", "VBD", "VB", "MD", "VBZ", "VBP"}
# Heads that keep their meaning after an adjective: "primitive people", "a working man".
GENERAL_PEOPLE = frozenset({"person", "man", "woman", "boy", "girl", "child", "lady"})
BEFORE_VERB = NOUNS | {",", "PRP", "VBZ", "VBP", "VBD", "RB", "TO", "MD"}


def find_compounds(sentence: Sentence, lexicon: Lexicon) -> None:
    """Fill `sentence.compounds` with the lexicon's compounds, the longest first, left to right."""
    words, tags, longest = sentence.words, sentence.tags, lexicon.compounds.longest
    i, n = 0, len(words)
    while i < n:
        first = lexicon.noun(words[i]) if sentence.word(i + 1) == "of" else words[i]
        reach = min(longest.get(first, 0), n - i)
        for length in range(reach, 1, -1):
            end = i + length
            if any(sentence.excluded[i:end]) or tags[end - 1] not in ENDS_COMPOUND:
                continue
            lemma = _listed_compound(words[i:end], lexicon)
            if lemma and _is_compound_here(sentence, i, end, lemma, lexicon):
                sentence.compounds[i] = (end, lemma)
                i = end - 1
                break
        i += 1


def _listed_compound(words: list[str], lexicon: Lexicon) -> str | None:
    phrase = " ".join(words)
    if len(words) > 2 and words[1] == "of":  # "bodies of water"
        phrase = " ".join([lexicon.noun(words[0]), *words[1:]])
        return phrase if phrase in lexicon.compounds else None
    last = "glass" if words[-1] == "glasses" else lexicon.noun(words[-1])
    lemma = " ".join([*words[:-1], last])
    if lemma in lexicon.plural_only or phrase in lexicon.plural_only:
        return phrase
    for form in (lemma, phrase):
        if form in lexicon.compounds:
            return form
    return None


def _is_compound_here(sentence: Sentence, i: int, end: int, lemma: str, lexicon: Lexicon) -> bool:
    words, tags = sentence.words, sentence.tags
    if lexicon.noun_kind(lemma) is None:
        return False
    if any(tag in (",", "CC", ".", "POS", "DT", "TO") for tag in tags[i:end]):
        return lemma in lexicon.added_compounds
    named = lemma in lexicon.added_compounds and tags[end - 1] in NOUNS
    if named and (
        tags[i] == "VBN" or (tags[i] == "VBG" and _is_lifeless(sentence, i - 1, lexicon))
    ):
        return True  # "stained glass windows", "a bamboo cutting board"
    if tags[i] in VERBS and sentence.tag(i - 1) in BEFORE_VERB:
        bare = tags[i] in ("VB", "VBP") and tags[end - 1] == "NN"
        return bare and lemma in lexicon.added_compounds
    # A longer noun phrase goes on: "drinking water spray", "cowboy hat rack".
    if tags[end - 1] in VERBS | {"RB", "RP", "JJ", "MD"} and lemma not in lexicon.added_compounds:
        return False
    if lemma in lexicon.added_compounds:
        return True
    if tags[i] in ADJECTIVES and lemma.rpartition(" ")[2] in GENERAL_PEOPLE:
        return False
    if lexicon.is_relational(words[i]):
        return True  # "military uniform"
    if words[i] in lexicon.colors or words[i] in lexicon.stop_adjectives:
        # A black bear and white wine are kinds, a blue flag (an iris) is a flag that is blue.
        head = lexicon.first_file(lemma.rpartition(" ")[2])
        if head not in NATURAL_KINDS and lexicon.first_file(words[i]) == "noun.attribute":
            return False
        synsets = lexicon.wordnet.synsets(lemma, "n")
        return any(s.file in NATURAL_KINDS for s in synsets)
    return True


def _is_lifeless(sentence: Sentence, i: int, lexicon: Lexicon) -> bool:
    if sentence.tag(i) not in NOUNS:
        return False
    file = lexicon.first_file(lexicon.noun(sentence.words[i]))
    return file not in ("noun.person", "noun.animal", "noun.Tops", "noun.group")
