"""Words for what is not there, and for actions that do not happen."""

from ramctl.parsing.english.dictionary.lexicon import Lexicon, word_set
from ramctl.parsing.english.rules.around import verb_before
from ramctl.parsing.english.rules.sentence import (
    BOUNDARIES,
    DETERMINERS,
    NOUNS,
    VERBS,
    Sentence,
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
    if words[i] not in NEGATORS or sentence.word(i + 1) in ("only", "just"):
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
    if end == i + 1 and sentence.tag(end).startswith("JJ"):
        end += 1
    while sentence.word(end) in ("or", "nor") or (
        words[start] in ("no", "without")
        and sentence.word(end) == ","
        and _continues(sentence, end)
    ):
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
    return verb, _clause_end(sentence, verb)


def _free_of(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    word, before = sentence.words[i], sentence.word(i - 1)
    if (word == "of" and before in FREE_OF) or (word == "than" and before == "rather"):
        done = sentence.tag(i + 1) in VERBS  # "instead of walking a dog"
        return i, _bare_list_end(sentence, i + done)
    return None


def _missing(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    lacks = sentence.words[i] == "missing" and sentence.tag(i - 1) not in DETERMINERS
    if not lacks or sentence.tag(i + 1) not in BARE_PHRASE_STARTS:
        return None
    end = sentence.phrase_end(i + 1)
    while sentence.word(end) == "and" and sentence.tag(end + 1) in DETERMINERS:
        if sentence.tag(sentence.phrase_end(end + 1)) in VERBS:
            break  # "missing a wheel and the driver waits"
        end = sentence.phrase_end(end + 1)
    return i, end


def _undone(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.words[i] != "to" or verb_before(sentence, i, lexicon) not in UNDONE:
        return None
    return i, max(sentence.phrase_end(i + 2), i + 2)


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
    if sentence.tag(verb) not in VERBS:
        return i, start + 1
    whom = word not in ("none", "neither") or sentence.word(i + 2) in ("whom", "which", "them")
    end = _clause_end(sentence, verb)
    return (i if whom else verb), end


def _clause_end(sentence: Sentence, verb: int) -> int:
    """The index after a verb's group and its object: "is wearing a hat"."""
    end = sentence.skip(verb, VERBS | {"RB", "RP", "MD"})
    return max(sentence.phrase_end(end), end)


def _would(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.words[i] != "would" or sentence.word(i + 1) == "like":
        return None
    end = i + 1
    while end < len(sentence) and sentence.tags[end] not in BOUNDARIES | {",", "CC"}:
        end += 1
    return i, end


def _no_more(sentence: Sentence, i: int, lexicon: Lexicon) -> Span:
    if sentence.words[i] != "where":
        return None
    end = sentence.phrase_end(i + 1)
    if sentence.words[end : end + 2] == ["used", "to"]:
        end += 2
    elif sentence.word(end) not in HABIT:
        return None
    return (i, _clause_end(sentence, end)) if end > i + 1 else None


def _bare_list_end(sentence: Sentence, i: int) -> int:
    """The index after the noun phrase that follows a word, and after bare nouns joined to it."""
    end = sentence.phrase_end(i + 1)
    while sentence.word(end) in ("and", "or") and sentence.tag(end + 1) in NOUNS:
        end = sentence.phrase_end(end + 1)
    return end


def _continues(sentence: Sentence, comma: int) -> bool:
    """Whether a list of bare nouns that ends in "or" goes on after a comma."""
    end = sentence.phrase_end(comma + 1)
    return end > comma + 1 and sentence.word(end) == "or"


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
