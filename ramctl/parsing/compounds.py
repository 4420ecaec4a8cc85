"""Dictionary compounds in a caption: the longest one wins, if it can be meant."""

from __future__ import annotations

from ramctl.parsing.lexicon import NATURAL_KINDS, Lexicon
from ramctl.parsing.sentence import ADJECTIVES, DETERMINERS, NOUNS, VERBS, Sentence

ENDS_COMPOUND = NOUNS | {"VBG", "RB", "JJ", "VBN", "RP", "VBD", "VB", "MD", "VBZ", "VBP"}
#: Heads that an adjective leaves what they are: "primitive people", "a working man".
GENERAL_PEOPLE = frozenset({"person", "man", "woman", "boy", "girl", "child", "lady"})
BEFORE_VERB = NOUNS | {",", "PRP", "VBZ", "VBP", "VBD", "RB", "TO", "MD"}


def find_compounds(sentence: Sentence, lexicon: Lexicon) -> None:
    """Fill `sentence.units` with the compounds that a lexicon lists, left to right."""
    words, tags, longest = sentence.words, sentence.tags, lexicon.compounds.longest
    i, n = 0, len(words)
    while i < n:
        first = lexicon.noun(words[i]) if sentence.word(i + 1) == "of" else words[i]
        reach = min(longest.get(first, 0), n - i)
        for length in range(reach, 1, -1):
            end = i + length
            if any(sentence.muted[i:end]) or tags[end - 1] not in ENDS_COMPOUND:
                continue
            lemma = _listed(words[i:end], lexicon)
            if lemma and _can_be_meant(sentence, i, end, lemma, lexicon):
                sentence.units[i] = (end, lemma)
                i = end - 1
                break
        i += 1


def _listed(words: list[str], lexicon: Lexicon) -> str | None:
    phrase = " ".join(words)
    if phrase in lexicon.irregular:
        return lexicon.irregular[phrase]
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


def _can_be_meant(sentence: Sentence, i: int, end: int, lemma: str, lexicon: Lexicon) -> bool:
    words, tags = sentence.words, sentence.tags
    if lexicon.noun_kind(lemma) is None:
        return False
    if any(tag in (",", "CC", ".", "POS", "DT", "TO") for tag in tags[i:end]):
        return lemma in lexicon.added_compounds
    if tags[i] in VERBS and sentence.tag(i - 1) in BEFORE_VERB:
        bare = tags[i] in ("VB", "VBP") and tags[end - 1] == "NN"
        return bare and lemma in lexicon.added_compounds
    # A longer noun phrase goes on: "drinking water spray", "cowboy hat rack".
    if tags[end - 1] in VERBS | {"RB", "RP", "JJ", "MD"} and lemma not in lexicon.added_compounds:
        return False
    if tags[end - 1] in ("VBZ", "VBP", "VBG") and sentence.tag(end) in DETERMINERS:
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
