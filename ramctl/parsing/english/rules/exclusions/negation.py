"""Words for what is not there, and for actions that do not happen."""

from ramctl.parsing.english.dictionary.lexicon import Lexicon, word_set
from ramctl.parsing.english.rules.sentence import (
    BOUNDARIES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Sentence,
    verb_before,
)
from ramctl.parsing.english.rules.table import Exclusion, Span

NEGATORS = word_set("negators")
FREE_OF = frozenset({"free", "empty", "devoid", "lack", "absence", "instead", "void", "absent",
                     "reminiscent", "evocative"})  # fmt: skip
# Words before "to" and an action that does not happen.
UNDONE = frozenset({"fail", "refuse", "pretend", "decline", "unable", "forget"})
BARE_PHRASE_STARTS = NOUNS | {"DT", "PRP$", "CD"}
# How many words after "nobody" its verb may be.
NEAR_VERB = 6
HABIT = frozenset({"once", "usually", "normally", "often", "formerly"})
SIGNS = frozenset({"sign", "signs", "symbol", "symbols", "zone"})


def _negated(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    words, start = sentence.words, i
    if sentence.word(i + 1) in ("only", "just"):
        return None
    if undone := _neither_does(sentence, i, lexicon):
        return undone
    i = sentence.skip(i + 1, ("RB", "RBR")) - 1  # "no longer holding", "not really wet"
    end = sentence.phrase_end(i + 1)
    if words[start] == "no" and words[end - 1] in SIGNS:
        return start, end - 1
    to_do = sentence.tag(i + 1) == "TO"  # "hoping not to fall"
    if end == i + 1 and sentence.tag(end + to_do) in VERBS:
        end += to_do
        end = sentence.phrase_end(end + 1)
    while sentence.word(end) in ("or", "nor") or _continues(sentence, end):
        end = max(sentence.phrase_end(end + 1), end + 1)
    return start, end


def _neither_does(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    """What two that are there do not do: "neither the dog nor the cat wears a collar"."""
    start = i
    while sentence.word(start) != "neither":
        if start == max(i - NEAR_VERB, 0) or sentence.words[i] != "nor":
            return None
        start -= 1
    middle = sentence.phrase_end(start + 1)
    verb = sentence.phrase_end(middle + 1)
    does = sentence.skip(verb, VERBS | {"RB", "MD"})
    is_doing = not lexicon.be.issuperset(sentence.words[verb:does])
    if sentence.word(middle) != "nor" or not is_doing:
        return None
    return verb, sentence.clause_end(verb)


def _free_of(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    word, before = sentence.words[i], sentence.word(i - 1)
    if (before not in FREE_OF) if word == "of" else (before != "rather"):
        return None
    done = sentence.tag(i + 1) in VERBS  # "instead of walking a dog"
    end = sentence.phrase_end(i + done + 1)
    while sentence.word(end) in ("and", "or") and sentence.tag(end + 1) in NOUNS:
        end = sentence.phrase_end(end + 1)
    return i, end


def _missing(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    lacks = sentence.tag(i - 1) not in DETERMINERS and sentence.tag(i + 1) in BARE_PHRASE_STARTS
    if not lacks:
        return None
    end = sentence.phrase_end(i + 1)
    while sentence.word(end) == "and" and sentence.tag(end + 1) in DETERMINERS:
        end = sentence.phrase_end(end + 1)
    return i, end


def _undone(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    is_undone = verb_before(sentence, i, lexicon) in UNDONE
    return (i, sentence.phrase_end(i + 2)) if is_undone else None


def _nobody_does(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    word, after = sentence.words[i], sentence.word(i + 1)
    if word in ("none", "neither") and after == "of":
        start = i
    elif word in ("nobody", "noone") or (word in ("no", "none") and after == "one"):
        start = i + (after == "one")
    else:
        return None
    verb = start + 1
    while verb < min(start + NEAR_VERB, len(sentence)) and sentence.tags[verb] not in VERBS:
        verb += 1
    whom = word not in ("none", "neither") or sentence.word(i + 2) in ("whom", "which", "them")
    return (i if whom else verb), sentence.clause_end(verb)


def _would(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.word(i + 1) == "like":
        return None
    return i, sentence.text_end(i + 1, BOUNDARIES | {",", "CC"})


def _no_more(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    end = sentence.phrase_end(i + 1)
    if sentence.words[end : end + 2] == ["used", "to"]:
        end += 2
    elif sentence.word(end) not in HABIT:
        return None
    return (i, sentence.clause_end(end)) if end > i + 1 else None


def _continues(sentence: Sentence, i: int) -> bool:
    """Whether a list of bare nouns that ends in "or" goes on: "no chairs, tables or lamps"."""
    end = sentence.phrase_end(i + 1)
    return sentence.word(i) == "," and end > i + 1 and sentence.word(end) == "or"


RULES = (
    Exclusion("nobody does it", _nobody_does, "Nobody is sitting on the bench.",
              "Somebody is sitting on the bench.",
              frozenset({"nobody", "noone", "no", "none", "neither"})),
    Exclusion("negation", _negated, "A man without a hat.", "A man not only with a hat.", NEGATORS),
    Exclusion("free of", _free_of, "A street empty of cars.", "A street full of cars.",
              frozenset({"of", "than"})),
    Exclusion("missing", _missing, "A car missing a wheel.", "A missing dog on a poster.",
              frozenset({"missing"})),
    Exclusion("undone", _undone, "A man fails to catch a ball.", "A man runs to catch a ball.",
              frozenset({"to"})),
    Exclusion("would", _would, "He would rather have tea, but drinks coffee.",
              "A man would like a beer.", frozenset({"would"})),
    Exclusion("no more", _no_more, "A field where a barn once stood.", "A field where a barn is.",
              frozenset({"where"})),
)  # fmt: skip
